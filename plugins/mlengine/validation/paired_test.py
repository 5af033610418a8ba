"""A paired comparison of two models on the same rows, to decide whether the challenger is worse than the champion.

Only rows that exactly one of the models classifies correctly carry information, so a paired comparison is several times
more sensitive than a comparison of two separate accuracies. It gives a confidence interval for the difference of
accuracies (Agresti and Min 2005: Wald's interval with half a row added to each count) and a p-value for "no difference"
(McNemar's test, mid-p; Fagerland et al. 2013).

This module uses the standard library only, so that stored predictions can be compared without TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any, Self

from mlengine.core.errors import MlengineError


class NonInferiority(StrEnum):
    """The result of a comparison with a tolerance."""

    NOT_WORSE = "not_worse"  # the lower confidence limit is at least -tolerance
    WORSE = "worse"  # worse than the tolerance allows, and the difference is significant
    UNDECIDED = "undecided"  # too few rows to decide


@dataclass(frozen=True)
class PairedCounts:
    """The counts of a paired comparison.

    :param rows: the number of rows.
    :param gained: the number of rows that only the challenger classifies correctly.
    :param lost: the number of rows that only the champion classifies correctly.
    """

    rows: int
    gained: int
    lost: int

    @classmethod
    def of(cls, labels: Sequence[int], challenger: Sequence[int], champion: Sequence[int]) -> Self:
        """The counts of two models' predicted classes.

        :raises MlengineError: the sequences are empty or have different lengths.
        """
        if not labels or not len(labels) == len(challenger) == len(champion):
            raise MlengineError(
                f"cannot compare {len(challenger)} and {len(champion)} predictions on {len(labels)} labels",
                hint="validate both models on the same held-out set",
            )
        gained = lost = 0
        for label, mine, theirs in zip(labels, challenger, champion, strict=True):
            if mine != theirs:
                gained += mine == label
                lost += theirs == label
        return cls(len(labels), gained, lost)

    @property
    def difference(self) -> float:
        """The challenger's accuracy minus the champion's."""
        return (self.gained - self.lost) / self.rows

    def interval(self, confidence: float) -> tuple[float, float]:
        """The lower and upper confidence limits of the difference. ``confidence`` is that of each limit alone."""
        gained, lost, rows = self.gained + 0.5, self.lost + 0.5, self.rows + 2
        centre = (gained - lost) / rows
        spread = math.sqrt(max(gained + lost - (gained - lost) ** 2 / rows, 0.0)) / rows
        reach = NormalDist().inv_cdf(confidence) * spread
        return max(centre - reach, -1.0), min(centre + reach, 1.0)

    @property
    def p_value(self) -> float:
        """The two-sided mid-p value for "both are equally accurate"; 1.0 if no row distinguishes them."""
        pairs, fewer = self.gained + self.lost, min(self.gained, self.lost)
        if pairs == 0:
            return 1.0
        # The sum is computed in integers: from 1,075 pairs on, 2**-pairs is below the smallest float.
        term = below = 1
        for count in range(1, fewer + 1):
            term = term * (pairs - count + 1) // count
            below += term
        # The p-value is P(X <= fewer) - P(X = fewer) / 2, doubled.
        return min(float((2 * below - term) / (1 << pairs)), 1.0)

    def non_inferiority(self, tolerance: float, confidence: float) -> NonInferiority:
        """Whether the challenger is worse than the champion by more than ``tolerance``."""
        lower, _ = self.interval(confidence)
        if lower >= -tolerance:
            return NonInferiority.NOT_WORSE
        if self.difference < -tolerance and self.p_value < 1 - confidence:
            return NonInferiority.WORSE
        return NonInferiority.UNDECIDED

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
