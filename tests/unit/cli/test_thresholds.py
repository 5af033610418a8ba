"""``mlengine models validate --threshold``: the combination of several of these options."""

from __future__ import annotations

from itertools import permutations

import pytest

from mlengine.cli.models.validate import _thresholds
from mlengine.core.errors import UsageError
from mlengine.core.thresholds import Thresholds

CASES = [
    ({"roc_auc": "0.8", "roc_auc.max_regression": "0.005"}, {"min": 0.8, "max_regression": 0.005}),
    ({"roc_auc.min": "0.8", "roc_auc.max_regression": "1%"}, {"min": 0.8, "max_regression": "1%"}),
    ({"log_loss": "0.4", "log_loss.min": "0.1"}, {"min": 0.1, "max": 0.4}),
    ({"roc_auc": "0.8", "roc_auc.min": "0.9"}, {"min": 0.9}),
]


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_the_order_of_thresholds_does_not_matter(given: dict[str, str], expected: dict[str, object]) -> None:
    (name,) = {key.partition(".")[0] for key in given}
    for order in permutations(given.items()):
        assert _thresholds({}, dict(order)).metrics[name].to_json() == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"roc_auc.min": "0.9"}, {"min": 0.9, "max_regression": 0.01}),
        ({"roc_auc": "0.9"}, {"min": 0.9}),
        ({"roc_auc.max_regression": ""}, {"min": 0.7, "max_regression": None}),
        ({"accuracy": "0.5"}, {"min": 0.7, "max_regression": 0.01}),
    ],
)
def test_a_field_is_added_to_those_of_the_last_report(given: dict[str, str], expected: dict[str, object]) -> None:
    earlier = Thresholds.from_json({"roc_auc": {"min": 0.7, "max_regression": 0.01}}).to_json()
    assert _thresholds(earlier, given).metrics["roc_auc"].to_json() == expected


@pytest.mark.parametrize("name", ["size_ratio.max", "latency_ms.min", "slices.max", "confidence.max_regression"])
@pytest.mark.parametrize("bare", [False, True])
def test_other_thresholds_than_metrics_have_no_fields(name: str, bare: bool) -> None:
    whole = name.partition(".")[0]
    given = {**({whole: "3"} if bare else {}), name: "2"}
    with pytest.raises(UsageError, match=rf"--threshold {name}: {whole} is not a metric"):
        _thresholds(Thresholds().to_json(), given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bogus": "1"}, "unknown metric or threshold: bogus"),
        ({"bogus.min": "1"}, "unknown metric or threshold: bogus"),
        ({"confidence": "2"}, "threshold confidence='2'"),
        ({"accuracy.min": "nan"}, "threshold accuracy.min is not a number: 'nan'"),
        ({"accuracy.min": "0.9", "accuracy.max": "0.8"}, "min 0.9 is above max 0.8"),
    ],
)
def test_an_invalid_threshold_is_a_usage_error(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _thresholds({}, given)
