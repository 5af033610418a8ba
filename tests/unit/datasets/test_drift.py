"""The population stability index, computed only from statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlengine.core.dataset import ColumnStatistics, Manifest
from mlengine.datasets.drift import new_values_share, over_versions, psi
from tests.unit.core.test_dataset import MANIFEST


def numbers(values: np.ndarray) -> ColumnStatistics:
    return ColumnStatistics(nulls=0, quantiles=tuple(np.quantile(values, np.linspace(0, 1, 21)).tolist()))


def categories(**counts: int) -> ColumnStatistics:
    return ColumnStatistics(nulls=0, top=tuple(counts.items()))


def test_drift_of_numbers_is_measured() -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=20_000)
    same, wider, moved = random.normal(size=20_000), 1.5 * before, before + 1
    assert psi(numbers(before), numbers(same), 20_000, 20_000) == pytest.approx(0, abs=0.005)
    index = psi(numbers(before), numbers(moved), 20_000, 20_000)
    assert index == pytest.approx(_by_definition(before, moved), rel=0.15)
    assert index is not None
    assert index > 0.25
    index = psi(numbers(before), numbers(wider), 20_000, 20_000)
    assert index == pytest.approx(_by_definition(before, wider), rel=0.2)


def _by_definition(old: np.ndarray, new: np.ndarray) -> float:
    edges = np.quantile(old, np.linspace(0, 1, 11))[1:-1]
    before, after = (np.bincount(np.searchsorted(edges, values), minlength=10) / len(values) for values in (old, new))
    return float(((after - before) * np.log(after / before)).sum())


def test_drift_of_numbers_with_ties_is_measured() -> None:
    half = ColumnStatistics(nulls=0, quantiles=(0.0,) * 11 + (1.0,) * 10)
    assert psi(half, half, 100, 100) == pytest.approx(0)
    constant = ColumnStatistics(nulls=0, quantiles=(5.0,) * 21)
    assert psi(constant, constant, 10, 10) == pytest.approx(0)
    assert psi(constant, half, 10, 10) is not None


def test_drift_of_categories_is_measured() -> None:
    before, after = categories(a=50, b=50), categories(a=25, b=75)
    expected = -0.25 * np.log(0.5) + 0.25 * np.log(1.5)
    assert psi(before, after, 100, 100) == pytest.approx(expected)
    assert new_values_share(before, categories(a=90, c=10), 100, 100) == pytest.approx(0.1)


def test_drift_of_incompletely_counted_values_is_unknown() -> None:
    some = categories(a=50)
    assert psi(some, categories(a=100), 100, 100) is None
    assert new_values_share(some, categories(a=100), 100, 100) is None
    assert psi(ColumnStatistics(), ColumnStatistics(), 1, 1) is None


def test_drift_of_a_column_over_versions() -> None:
    def version(zeros: int) -> Manifest:
        label = {"label": ColumnStatistics(nulls=0, top=((0, zeros), (1, 60 - zeros)))}
        return replace(MANIFEST, splits={**MANIFEST.splits, "train": replace(MANIFEST.train, statistics=label)})

    found = over_versions([version(30), version(30), version(50)])
    assert found["image"] == [None, None, None]
    assert found["label"][:2] == [None, 0.0]
    assert found["label"][2] == pytest.approx(0.5364, abs=1e-3)
