"""The tables in docs/validation.md agree with the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from mlengine.core.metrics import METRICS
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Decision
from mlengine.promotion.outcome import PublishDecision

MANUAL = (Path(__file__).parents[3] / "docs" / "validation.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """The table whose first header cell is ``heading``: first cell → second cell."""
    table = MANUAL.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    cells = [re.split(r" *\| *", line.strip("| ")) for line in table.splitlines()[2:]]
    return {row[0].strip("`"): row[1] for row in cells}


def test_every_threshold_is_in_the_manual_with_its_default() -> None:
    shown = rows("name")
    assert list(shown) == [field.name for field in fields(Thresholds)][1:]  # without the metrics
    assert shown.pop("slices") == "none"
    for name, value in Thresholds().to_json().items():
        expected = "none" if value is None else value if isinstance(value, str) else f"{value:g}"
        assert shown[name] in {expected, str(value)}


def test_every_metric_is_in_the_manual() -> None:
    table = MANUAL.split("| task | better | metrics |", 1)[1].split("\n\n", 1)[0]
    for line in table.splitlines()[2:]:
        tasks, better, names = re.split(r" *\| *", line.strip("| "))
        for name in re.findall(r"`([^`]+)`", names):
            info = METRICS[name.removesuffix("=…")]
            assert " and ".join(info.tasks) == tasks
            assert info.higher_is_better == (better == "higher")
    assert len(re.findall("`[^`]+`", table)) == len(METRICS)


def test_every_verdict_and_publish_decision_is_in_the_manual() -> None:
    assert set(rows("decision")) == {decision.value for decision in PublishDecision}
    assert {name.strip("`") for name in rows("verdict")} == {decision.value for decision in Decision}
