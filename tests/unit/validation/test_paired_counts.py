"""The confidence interval of a difference of accuracies: known values, and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.validation.paired_counts import PairedCounts


def test_the_interval_is_walds_with_half_a_row_added() -> None:
    # By hand: (59.5 - 16.5) / 164 = 0.2622; sqrt(76 - 43 * 43 / 164) / 164 = 0.0491; 1.96 of that to each side.
    low, high = PairedCounts(162, 59, 16).interval(0.975)
    assert low == pytest.approx(0.1660, abs=5e-4)
    assert high == pytest.approx(0.3584, abs=5e-4)


@given(st.integers(1, 20_000), st.integers(0, 500), st.integers(0, 500), st.floats(0.6, 0.999))
def test_the_interval_contains_the_difference_and_stays_in_range(more: int, gained: int, lost: int, at: float) -> None:
    paired = PairedCounts(more + gained + lost, gained, lost)
    low, high = paired.interval(at)
    # The half rows pull the interval a little towards zero.
    assert -1 <= low <= paired.difference + 2 / paired.rows
    assert paired.difference - 2 / paired.rows <= high <= 1


@given(st.integers(0, 300), st.integers(0, 300))
def test_exchanging_the_models_mirrors_the_interval(gained: int, lost: int) -> None:
    here, there = PairedCounts(10_000, gained, lost), PairedCounts(10_000, lost, gained)
    assert here.interval(0.95)[0] == pytest.approx(-there.interval(0.95)[1])
