"""The paired comparison: known values, and error rates."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.errors import MlengineError
from mlengine.validation.paired_test import NonInferiority, PairedCounts


def test_only_rows_that_one_model_gets_right_count() -> None:
    paired = PairedCounts.of([1, 2, 3, 4, 5], [1, 2, 0, 4, 9], [1, 0, 3, 4, 8])
    assert paired == PairedCounts(rows=5, gained=1, lost=1)
    assert paired.difference == 0


@pytest.mark.parametrize(("labels", "mine", "theirs"), [([], [], []), ([1, 2], [1], [1, 2]), ([1], [1], [1, 2])])
def test_sequences_of_different_lengths_are_refused(labels: list[int], mine: list[int], theirs: list[int]) -> None:
    with pytest.raises(MlengineError, match="cannot compare"):
        PairedCounts.of(labels, mine, theirs)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 3), (2, 10), (40, 61), (700, 500)])
def test_the_p_value_is_mid_p_of_the_binomial(gained: int, lost: int) -> None:
    pairs, fewer = gained + lost, min(gained, lost)
    below = sum(Fraction(comb(pairs, count), 2**pairs) for count in range(fewer))
    exact = 2 * below + Fraction(comb(pairs, fewer), 2**pairs)
    assert PairedCounts(10_000, gained, lost).p_value == pytest.approx(min(float(exact), 1.0), abs=1e-12)


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
    assert 0 < paired.p_value <= 1


@given(st.integers(0, 300), st.integers(0, 300))
def test_exchanging_the_models_mirrors_the_result(gained: int, lost: int) -> None:
    here, there = PairedCounts(10_000, gained, lost), PairedCounts(10_000, lost, gained)
    assert here.p_value == there.p_value
    assert here.interval(0.95)[0] == pytest.approx(-there.interval(0.95)[1])


def test_identical_models_are_not_worse() -> None:
    assert PairedCounts(10_000, 0, 0).non_inferiority(0.005, 0.95) is NonInferiority.NOT_WORSE


def test_a_percent_is_significant_and_a_tenth_of_a_percent_is_not() -> None:
    assert PairedCounts(10_000, 90, 100).non_inferiority(0.005, 0.95) is NonInferiority.NOT_WORSE
    assert PairedCounts(10_000, 50, 150).non_inferiority(0.005, 0.95) is NonInferiority.WORSE


def test_too_few_rows_are_undecided() -> None:
    assert PairedCounts(200, 3, 3).non_inferiority(0.005, 0.95) is NonInferiority.UNDECIDED
    assert PairedCounts(200, 1, 4).non_inferiority(0.005, 0.95) is NonInferiority.UNDECIDED


def _share_passed(generator: random.Random, worse_by: float, runs: int = 400) -> float:
    """The share of challengers, worse by ``worse_by``, that pass if both disagree on about 2 % of 10,000 rows."""
    passed = 0
    for _ in range(runs):
        # Normal approximations of the two counts, because 10,000 draws per run are slow.
        gain, loss = 100 - 5000 * worse_by, 100 + 5000 * worse_by
        gained = max(0, round(generator.gauss(gain, gain**0.5)))
        lost = max(0, round(generator.gauss(loss, loss**0.5)))
        passed += PairedCounts(10_000, gained, lost).non_inferiority(0.005, 0.95) is NonInferiority.NOT_WORSE
    return passed / runs


def test_error_rates_are_as_documented() -> None:
    """The rates are documented in :class:`~mlengine.core.verdict.Thresholds` and in docs/validation.md."""
    generator = random.Random(7)
    assert _share_passed(generator, 0.0) > 0.93
    assert _share_passed(generator, 0.001) > 0.80
    assert _share_passed(generator, 0.005) < 0.09
    assert _share_passed(generator, 0.01) < 0.005
