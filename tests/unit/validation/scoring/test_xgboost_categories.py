"""The categories of a model of XGBoost, as far as its version stores them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlengine.validation.scoring.predictors.xgboost import categories_of


def before_3_1(*types: str, names: list[str] | None = None) -> SimpleNamespace:
    """A booster of XGBoost 3.0, which has no ``get_categories``."""
    return SimpleNamespace(feature_types=list(types) or None, feature_names=names)


@pytest.mark.parametrize("names", [["shop", "age"], None])
def test_categories_of_an_xgboost_that_does_not_store_them_are_refused(names: list[str] | None) -> None:
    name = "shop" if names else "f0"
    with pytest.raises(ValueError, match=rf"has categories \({name}\), and XGBoost before 3.1 .* give a scorer"):
        categories_of(before_3_1("c", "int", names=names))


def test_numbers_need_no_categories() -> None:
    assert categories_of(before_3_1("float", "int", names=["shop", "age"])) == {}
    assert categories_of(before_3_1()) == {}
    stored = SimpleNamespace(get_categories=lambda: SimpleNamespace(empty=lambda: True))
    assert categories_of(stored) == {}
