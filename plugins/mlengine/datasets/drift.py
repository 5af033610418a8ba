"""The population stability index (PSI): how much the distribution of a column has changed between two versions.

Below 0.1 is usually called no change, above 0.25 a large one. It is computed from the statistics in two manifests, so
no rows are read again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from mlengine.core.dataset import ColumnStatistics, Manifest, Split, Value

_BINS = 10
# With more distinct numbers than this, ranges are compared, because in small versions the noise of each number adds up.
_MOST_NUMBERS = 20
_SMALLEST = 1e-4  # the share that is assumed for an empty bin


def psi(old: ColumnStatistics, new: ColumnStatistics, old_rows: int, new_rows: int) -> float | None:
    """The PSI of a column; ``None`` if the statistics of its values are not sufficient."""
    if _complete(old, old_rows) and _complete(new, new_rows):
        return _psi(*_value_shares(old, new))
    if old.quantiles and new.quantiles:
        return _psi(*_bin_shares(old.quantiles, new.quantiles))
    return None


def over_versions(manifests: Sequence[Manifest], split: str = "train") -> dict[str, list[float | None]]:
    """The PSI of each column in each version against the previous version, for plots.

    :param manifests: the manifests of one dataset, oldest first.
    :returns: for each column, one value per version; the first is ``None``.
    """
    columns = list(dict.fromkeys(column.name for manifest in manifests for column in manifest.schema.columns))
    found: dict[str, list[float | None]] = {name: [None] for name in columns}
    for old, new in pairwise(manifests):
        for name in columns:
            found[name].append(_of_split(old.splits.get(split), new.splits.get(split), name))
    return found


def _of_split(old: Split | None, new: Split | None, column: str) -> float | None:
    if old is None or new is None or column not in old.statistics or column not in new.statistics:
        return None
    return psi(old.statistics[column], new.statistics[column], old.counted, new.counted)


def new_values_share(old: ColumnStatistics, new: ColumnStatistics, old_rows: int, new_rows: int) -> float | None:
    """The share of new rows with a value that no old row has; ``None`` if not all values are known."""
    if not (_complete(old, old_rows) and _complete(new, new_rows)):
        return None
    known = old.counts
    total = sum(rows for _, rows in new.top)
    return sum(rows for value, rows in new.top if value not in known) / total if total else 0.0


def _complete(statistics: ColumnStatistics, rows: int) -> bool:
    """Whether ``top`` contains all values of the column."""
    counted = sum(count for _, count in statistics.top)
    return bool(statistics.top) and statistics.sampled is None and counted == rows - (statistics.nulls or 0)


def _value_shares(old: ColumnStatistics, new: ColumnStatistics) -> tuple[list[float], list[float]]:
    """The shares of both versions for each value, or for each range if there are many distinct numbers."""
    before, after = old.counts, new.counts
    values: list[Value] = list({**before, **after})
    ranges = len(values) > _MOST_NUMBERS and all(isinstance(value, int | float) for value in values)
    if ranges:
        values = sorted(values, key=float)
    totals = max(1, sum(before.values())), max(1, sum(after.values()))
    shares = [before.get(one, 0) / totals[0] for one in values], [after.get(one, 0) / totals[1] for one in values]
    return _merged(*shares) if ranges else shares


def _merged(old: Sequence[float], new: Sequence[float]) -> tuple[list[float], list[float]]:
    """The shares, summed over ranges of neighbouring values, each with about a tenth of the old values."""
    before, after, passed = [0.0] * _BINS, [0.0] * _BINS, 0.0
    for a, b in zip(old, new, strict=True):
        place = min(_BINS - 1, int((passed + a / 2) * _BINS))
        before[place] += a
        after[place] += b
        passed += a
    return before, after


def _bin_shares(old: Sequence[float], new: Sequence[float]) -> tuple[list[float], list[float]]:
    """The shares of both versions between the deciles of the old values. Equal deciles are merged."""
    step = (len(old) - 1) // _BINS
    edges = sorted({old[index] for index in range(step, len(old) - 1, step)})
    return _shares(old, edges), _shares(new, edges)


def _shares(quantiles: Sequence[float], edges: Sequence[float]) -> list[float]:
    below = [_share_up_to(quantiles, edge) for edge in edges]
    bounds = [0.0, *below, 1.0]
    return [max(0.0, b - a) for a, b in pairwise(bounds)]


def _share_up_to(quantiles: Sequence[float], value: float) -> float:
    """The share of values that are at most ``value``, interpolated between quantiles."""
    last = len(quantiles) - 1
    if value < quantiles[0]:
        return 0.0
    if value >= quantiles[-1]:
        return 1.0
    at = max(index for index in range(last + 1) if quantiles[index] <= value)
    low, high = quantiles[at], quantiles[at + 1]
    return (at + (value - low) / (high - low)) / last


def _psi(old: Sequence[float], new: Sequence[float]) -> float:
    total = 0.0
    for a, b in zip(old, new, strict=True):
        before, after = max(a, _SMALLEST), max(b, _SMALLEST)
        total += (after - before) * math.log(after / before)
    return total
