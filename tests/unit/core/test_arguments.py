"""Operator arguments from templates and trigger forms: accepted and rejected values."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.arguments import flag, items, mapping, positive
from mlengine.core.errors import MlengineError


@pytest.mark.parametrize("value", [True, "true", "True", "on", "y", "t", "1", 1, " yes "])
def test_true_values_are_recognised(value: object) -> None:
    assert flag("force_retrain", value)


@pytest.mark.parametrize("value", [False, "false", "off", "n", "f", "0", 0])
def test_false_values_are_recognised(value: object) -> None:
    assert not flag("force_retrain", value)


@pytest.mark.parametrize("value", ["", " ", "None", None])
def test_an_empty_field_is_the_default_or_an_error(value: object) -> None:
    assert not flag("force_retrain", value, default=False)
    assert flag("x", value, default=True)
    with pytest.raises(MlengineError, match="require_comparison="):
        flag("require_comparison", value)


@pytest.mark.parametrize("value", ["maybe", "{{ params.f }}", 1.0, 2, []])
def test_other_values_than_booleans_are_refused(value: object) -> None:
    with pytest.raises(MlengineError, match="force_retrain="):
        flag("force_retrain", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, {}), ("", {}), ("None", {}), ({"a": 1}, {"a": 1}), ('{"a": 1}', {"a": 1}), ({}, {})],
)
def test_a_mapping_can_be_given_as_json(value: Any, expected: dict[str, Any]) -> None:
    assert mapping("thresholds", value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{'a': 1}", "thresholds is a string"),
        ("[1]", "thresholds is not a mapping"),
        ([1], "not a mapping"),
        (5, "not"),
    ],
)
def test_other_values_than_mappings_are_refused(value: Any, message: str) -> None:
    with pytest.raises(MlengineError, match=message) as caught:
        mapping("thresholds", value)
    assert caught.value.hint


def test_items_of_a_list_are_read() -> None:
    assert items("requirements", ["numpy>=2"]) == ("numpy>=2",)
    assert items("requirements", None) == ()
    for value in ("numpy>=2", {"a": 1}, 5, len):
        with pytest.raises(MlengineError, match="requirements is not a list"):
            items("requirements", value)


@pytest.mark.parametrize(("value", "expected"), [(8, 8.0), ("8", 8.0), (None, None), ("", None), ("None", None)])
def test_a_positive_number_can_be_given_as_text(value: Any, expected: float | None) -> None:
    assert positive("memory_limit_gib", value) == expected


@pytest.mark.parametrize("value", [0, -1, "nan", "inf", "{{ params.n }}", True, [1]])
def test_other_values_than_positive_numbers_are_refused(value: Any) -> None:
    with pytest.raises(MlengineError, match="memory_limit_gib="):
        positive("memory_limit_gib", value)
