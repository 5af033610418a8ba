"""The difference of two models' accuracies on the same rows, with a confidence interval.

Only rows that exactly one of the models classifies correctly carry information, so a paired comparison is several times
more sensitive than a comparison of two separate accuracies. The interval is Wald's with half a row added to each of the
two counts (Agresti and Min 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


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
