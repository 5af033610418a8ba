"""Metrics of slices of the held-out set: the rows with the same values, or in the same bins, of some columns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import Value, compute, user_info

if TYPE_CHECKING:
    from mlengine.validation.metrics.outcomes import Array

BINS = 5  # for numbers with more than 20 values; a value in more than a fifth of the rows is a separate slice
_FEW_VALUES = 20
_MOST = 1000  # the number of slices that are computed: those with the most rows


@dataclass(frozen=True)
class Slice:
    """One slice of the held-out set.

    :param name: the name, such as ``carrier=UA, origin=EWR``.
    :param value: the value of the model's metric.
    :param champion: the value of the champion's metric, if the champion was measured on the same rows.
    """

    name: str
    rows: int
    value: Value
    champion: Value | None = None


def slices(
    outcomes: Outcomes, columns: Mapping[str, Array], metric: str, min_rows: int, champion: Outcomes | None = None
) -> list[Slice]:
    """The slices with at least ``min_rows`` rows, the worst first; those whose metric is undefined come last.

    :param columns: by name, (rows,): the values by which the rows are divided.
    """
    import numpy as np

    labels, codes = _combined(columns)
    counts = np.bincount(codes, minlength=len(labels))
    large = [at for at in np.argsort(-counts, kind="stable")[:_MOST] if counts[at] >= max(min_rows, 1)]
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate(([0], counts.cumsum()))
    found = []
    for at in large:
        rows = order[starts[at] : starts[at + 1]]
        other = None if champion is None else compute(metric, champion.take(rows))
        found.append(Slice(labels[at], int(counts[at]), compute(metric, outcomes.take(rows)), other))
    sign = 1 if user_info(metric).higher_is_better else -1
    return sorted(found, key=lambda one: (one.value.number is None, sign * (one.value.number or 0.0)))


def _combined(columns: Mapping[str, Array]) -> tuple[list[str], Array]:
    """The names of all combinations that occur, and the index of each row's combination."""
    import numpy as np

    parts = [(name, *_groups(values)) for name, values in columns.items()]
    stacked = np.stack([codes for _, _, codes in parts], axis=1)
    unique, codes = np.unique(stacked, axis=0, return_inverse=True)
    names = [
        ", ".join(f"{name}={labels[code]}" for (name, labels, _), code in zip(parts, row, strict=True))
        for row in unique
    ]
    return names, codes.reshape(-1)


def _groups(values: Array) -> tuple[Sequence[str], Array]:
    """The labels of a column's values or bins, and the index of each row's label."""
    import numpy as np

    if values.dtype == object:
        values = np.array(["missing" if value is None else str(value) for value in values])
    if values.dtype.kind not in "fiu":
        found, codes = np.unique(values, return_inverse=True)
        return [str(value) for value in found], codes
    found, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(found) <= _FEW_VALUES:
        return ["missing" if value != value else str(value) for value in found.tolist()], codes  # noqa: PLR0124
    common = [*np.flatnonzero(counts * BINS > len(values)).tolist()]
    labels = [_short(float(value)) if value == value else "missing" for value in found[common]]  # noqa: PLR0124
    place = np.full(len(found), -1)
    place[common] = np.arange(len(common))
    rest = np.isfinite(found) & (place < 0)
    edges = np.unique(np.quantile(np.repeat(found[rest], counts[rest]), np.linspace(0, 1, BINS + 1)))
    bins = np.clip(np.searchsorted(edges, found, side="right") - 1, 0, max(len(edges) - 2, 0))
    place = np.where(place < 0, bins + len(labels), place)
    labels += [f"[{_short(low)}, {_short(high)}{']' if at == len(edges) - 2 else ')'}" for at, (low, high) in
               enumerate(itertools.pairwise(edges.tolist()))]  # fmt: skip
    if np.isnan(found).any() and "missing" not in labels:
        place = np.where(np.isnan(found), len(labels), place)
        labels.append("missing")
    return labels, place[codes]


def _short(value: float) -> str:
    return str(int(value)) if abs(value) < 1e15 and value.is_integer() else f"{value:.6g}"
