"""The checks that a report covers, and those that a new validation would drop."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import MlengineError
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, Decision, Verdict
from mlengine.validation.report import Report
from mlengine.validation.rules import Rules, Scope, check_task, covers, dropped_checks
from mlengine.validation.serving_signature import ServingSignature

KERAS = ServingSignature.from_json(
    {
        "inputs": {"pixels": "float32[-1,784]"},
        "outputs": {"output_0": "float32[-1,10]"},
        "key": None,
        "features": "pixels",
        "output": "output_0",
    }
)


def has_words(model: Path, figures: Mapping[str, Any], least: Any = 5) -> Check:
    return Check("words", least, "", passed=True, message="")


def has_labels(model: Path, figures: Mapping[str, Any]) -> Check:
    return Check("labels", 1, "", passed=True, message="")


def report(rules: Rules) -> Report:
    """The report of a validation with ``rules``."""
    return Report(
        model="m",
        job_id="j",
        job_dir="gs://bucket/m/j",
        model_uri="gs://bucket/m/j/model",
        verdict=Verdict(Decision.FIRST, ("fine",)),
        thresholds=rules.thresholds,
        checks=rules.scope.value,
        created="2026-11-23T12:00:00+00:00",
        dataset={"uri": "gs://bucket/datasets/d/v1"},
        serving_signature=rules.expected.to_json(),
        extra_checks=rules.extra_check_records,
        require_comparison=rules.require_comparison,
    )


FULL = Rules(expected=KERAS, extra_checks=(has_words, has_labels))


@pytest.mark.parametrize(
    "rules",
    [
        FULL,
        replace(FULL, extra_checks=(has_labels,)),
        replace(FULL, scope=Scope.SIGNATURE),
        replace(FULL, scope=Scope.SIGNATURE, thresholds=Thresholds.from_json({"accuracy": 0.5})),
        Rules(Scope.FILES),
    ],
)
def test_a_report_covers_its_own_checks_and_subsets(rules: Rules) -> None:
    assert covers(report(FULL), rules)


@pytest.mark.parametrize(
    ("recorded", "rules"),
    [
        (FULL, replace(FULL, thresholds=Thresholds.from_json({"accuracy": 0.5}))),
        (FULL, replace(FULL, expected=ServingSignature())),
        (FULL, replace(FULL, require_comparison=False)),
        (FULL, replace(FULL, scope=Scope.FILES, thresholds=Thresholds(size_bytes=1))),
        (FULL, replace(FULL, extra_checks=(*FULL.extra_checks, functools.partial(has_words, least=9)))),
        (
            Rules(extra_checks=(functools.partial(has_words, least=5),)),
            Rules(extra_checks=(functools.partial(has_words, least=9),)),
        ),
        (Rules(extra_checks=(functools.partial(has_words, least=object()),)),) * 2,
        (Rules(Scope.FILES), Rules(Scope.SIGNATURE)),
        (Rules(Scope.SIGNATURE), Rules()),
    ],
)
def test_a_report_does_not_cover_other_checks(recorded: Rules, rules: Rules) -> None:
    assert not covers(report(recorded), rules)


def test_the_dataset_matters_only_if_the_model_runs() -> None:
    other = "gs://bucket/datasets/d/v2"
    assert not covers(report(FULL), FULL, other)
    assert covers(report(FULL), FULL, "gs://bucket/datasets/d/v1")
    assert covers(report(FULL), replace(FULL, scope=Scope.SIGNATURE), other)


@pytest.mark.parametrize(
    ("recorded", "rules", "dropped"),
    [
        (FULL, FULL, []),
        (FULL, replace(FULL, thresholds=Thresholds.from_json({"accuracy": None})), []),
        (Rules(Scope.FILES), FULL, []),
        (FULL, replace(FULL, extra_checks=(functools.partial(has_words, least=9), has_labels)), []),
        (FULL, replace(FULL, extra_checks=()), ["extra check has_words", "extra check has_labels"]),
        (Rules(), Rules(Scope.FILES), ["validation_level 'all', now 'files'"]),
        (Rules(Scope.SIGNATURE), Rules(Scope.FILES), ["validation_level 'signature', now 'files'"]),
        (Rules(expected=KERAS), Rules(), ["the configured serving signature, now the default"]),
        (Rules(expected=KERAS), Rules(Scope.FILES), ["validation_level 'all', now 'files'"]),
    ],
)
def test_checks_dropped_by_new_rules_are_listed(recorded: Rules, rules: Rules, dropped: list[str]) -> None:
    assert dropped_checks(report(recorded), rules) == dropped


def test_task_and_scorer_matter_only_if_the_model_runs() -> None:
    made = replace(report(FULL), task="binary", scorer="churn.score:load")
    assert covers(made, replace(FULL, task="binary", scorer="churn.score:load"))
    for other in (replace(FULL, task="regression"), replace(FULL, scorer="churn.score:other")):
        assert not covers(made, other)
        assert covers(made, replace(other, scope=Scope.SIGNATURE))


def test_the_default_thresholds_differ_from_a_chosen_main_metric() -> None:
    chosen = Rules(thresholds=Thresholds.from_json({"f1_macro": {"max_regression": 0.01}}))
    assert not covers(report(Rules()), chosen)
    assert not covers(report(chosen), Rules())


def test_an_unknown_task_is_refused() -> None:
    assert check_task("") == ""
    with pytest.raises(MlengineError, match="unknown prediction_task: 'ranking'"):
        check_task("ranking")
