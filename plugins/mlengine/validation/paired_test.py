"""Two models on the same rows: is the challenger worse than the champion, or is it noise?

Both models answer the same held-out rows, so only the rows where one is right and the other wrong say anything. That
makes the comparison several times sharper than two separate accuracies. Two figures come of it: an interval for the
difference of accuracies (Agresti and Min 2005: Wald's, with half a row added to each count), and the p-value of "no
difference" (McNemar's test in its mid-p form; Fagerland et al. 2013).

Standard library only, so that a publisher can compare stored predictions without TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any, Self

from mlengine.core.errors import MlengineError


class Standing(StrEnum):
    """Where the challenger stands, against a tolerance."""

    NOT_WORSE = "not_worse"  # the whole interval lies above -tolerance
    WORSE = "worse"  # the challenger is beyond the tolerance, and the difference is not noise
    UNDECIDED = "undecided"  # too few rows to tell


@dataclass(frozen=True)
class Paired:
    """The counts of a paired comparison.

    :param rows: how many rows both answered.
    :param gained: rows that only the challenger has right.
    :param lost: rows that only the champion has right.
    """

    rows: int
    gained: int
    lost: int

    @classmethod
    def of(cls, labels: Sequence[int], challenger: Sequence[int], champion: Sequence[int]) -> Self:
        """:raises MlengineError: if the three are not of one length, or empty."""
        if not labels or not len(labels) == len(challenger) == len(champion):
            raise MlengineError(
                f"cannot pair {len(challenger)} and {len(champion)} predictions with {len(labels)} labels",
                hint="let both models answer the same held-out set",
            )
        gained = lost = 0
        for label, mine, theirs in zip(labels, challenger, champion, strict=True):
            if mine != theirs:
                gained += mine == label
                lost += theirs == label
        return cls(len(labels), gained, lost)

    @property
    def difference(self) -> float:
        """Challenger's accuracy minus champion's."""
        return (self.gained - self.lost) / self.rows

    def interval(self, confidence: float) -> tuple[float, float]:
        """The difference's bounds: each alone holds with ``confidence`` (so both together with less)."""
        gained, lost, rows = self.gained + 0.5, self.lost + 0.5, self.rows + 2
        centre = (gained - lost) / rows
        spread = math.sqrt(max(gained + lost - (gained - lost) ** 2 / rows, 0.0)) / rows
        reach = NormalDist().inv_cdf(confidence) * spread
        return max(centre - reach, -1.0), min(centre + reach, 1.0)

    @property
    def p_value(self) -> float:
        """Two-sided mid-p of "both are equally good"; 1.0 if they never differ in being right."""
        pairs, fewer = self.gained + self.lost, min(self.gained, self.lost)
        if pairs == 0:
            return 1.0
        # Whole numbers all the way: 2**-pairs is below the smallest float from 1,075 pairs on.
        term = below = 1
        for count in range(1, fewer + 1):
            term = term * (pairs - count + 1) // count
            below += term
        # P(X <= fewer) - P(X = fewer) / 2, doubled.
        return min(float((2 * below - term) / (1 << pairs)), 1.0)

    def standing(self, tolerance: float, confidence: float) -> Standing:
        """Against "at most ``tolerance`` worse"."""
        lower, _ = self.interval(confidence)
        if lower >= -tolerance:
            return Standing.NOT_WORSE
        if self.difference < -tolerance and self.p_value < 1 - confidence:
            return Standing.WORSE
        return Standing.UNDECIDED

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
