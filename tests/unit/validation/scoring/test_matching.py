"""The assignment of columns to inputs."""

from __future__ import annotations

import pytest

from mlengine.validation.scoring.matching import MatchError, match, match_features

TABLE = {"age": ("int64", ()), "plan": ("string", ()), "charges": ("float32", ()), "since": ("datetime64[us]", ())}


def test_inputs_get_the_columns_of_the_same_name() -> None:
    assert match(["plan", "age"], TABLE) == {"plan": ["plan"], "age": ["age"]}


def test_a_mapping_names_the_column_of_an_input() -> None:
    assert match(["age", "tariff"], TABLE, given={"tariff": "plan"}) == {"age": ["age"], "tariff": ["plan"]}


def test_the_only_input_takes_all_numeric_columns_in_schema_order() -> None:
    assert match(["x"], TABLE) == {"x": ["age", "charges"]}


def test_the_only_input_takes_the_only_column() -> None:
    assert match(["pixels"], {"image": ("uint8", (28, 28))}) == {"pixels": ["image"]}


def test_features_takes_all_columns_next_to_other_inputs() -> None:
    assert match(["age", "x"], TABLE, features="x") == {"age": ["age"], "x": ["age", "charges"]}


def test_an_input_without_a_column_is_refused_with_the_available_columns() -> None:
    with pytest.raises(
        MatchError, match="no column for input 'tariff': the dataset has the columns age, plan, charges"
    ):
        match(["age", "tariff"], TABLE)


def test_a_mapping_to_an_unknown_column_is_refused() -> None:
    with pytest.raises(MatchError, match="columns names tarif"):
        match(["age"], TABLE, given={"age": "tarif"})


def test_text_cannot_be_a_matrix() -> None:
    with pytest.raises(MatchError, match="none of title, body is numeric"):
        match(["x"], {"title": ("string", ()), "body": ("string", ())})


def test_a_mapping_names_the_columns_of_a_matrix_in_their_order() -> None:
    assert match(["plan", "x"], TABLE, given={"x": ["charges", "age"]}) == {"plan": ["plan"], "x": ["charges", "age"]}
    with pytest.raises(MatchError, match="columns names fee; the dataset has age"):
        match(["x"], TABLE, given={"x": ["age", "fee"]})


def test_a_missing_column_is_refused_with_the_ways_to_name_one() -> None:
    with pytest.raises(MatchError) as caught:
        match(["plan", "x"], TABLE)
    assert 'serving_signature={"columns": {"x": "…"}}' in caught.value.hint
    assert 'a list of them: ["…", "…"]' in caught.value.hint


def test_features_without_names_are_all_numbers_or_the_listed_columns() -> None:
    assert match_features(None, TABLE, {}) == ["age", "charges"]
    assert match_features(None, TABLE, {"features": ["charges"]}) == ["charges"]


def test_a_feature_takes_one_column() -> None:
    assert match_features(["fee", "age"], TABLE, {"fee": "charges"}) == ["charges", "age"]
    with pytest.raises(MatchError, match="feature 'fee' takes one column, not age, charges"):
        match_features(["fee"], TABLE, {"fee": ["age", "charges"]})
