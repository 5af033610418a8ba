"""Statistics of one column's values in one split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from mlengine.core.dataset.fields import Fields
from mlengine.core.dataset.schema import Value

# The quantiles that a manifest keeps: the minimum, 5 %, 10 %, … the maximum.
QUANTILE_STEPS = 20


@dataclass(frozen=True)
class ColumnStatistics:
    """Statistics of a column's values.

    A field that does not apply to the column's type, or was not computed, is ``None`` or empty.

    :param nulls: the number of rows without a value. NaN counts as no value.
    :param distinct: the number of different values, if counting was completed.
    :param min: a number, or a time in ISO 8601.
    :param std: standard deviation of the population.
    :param quantiles: :data:`QUANTILE_STEPS` + 1 values, from the minimum to the maximum, evenly spaced in rank.
    :param top: the most frequent values with their numbers of rows, most frequent first; for a target, all classes.
    :param infinite: the number of rows with an infinite value. No other figure includes them.
    :param sampled: the number of rows that ``quantiles`` and ``top`` were estimated from, if not from all.
    """

    nulls: int | None = None
    distinct: int | None = None
    min: Value | None = None
    max: Value | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] = ()
    top: tuple[tuple[Value, int], ...] = ()
    sampled: int | None = None
    infinite: int | None = None

    @property
    def counts(self) -> dict[Value, int]:
        """The number of rows of each value in ``top``."""
        return dict(self.top)

    def to_json(self) -> dict[str, Any]:
        names = ("nulls", "infinite", "distinct", "min", "max", "mean", "std", "sampled")
        scalars = {name: getattr(self, name) for name in names}
        data: dict[str, Any] = {name: value for name, value in scalars.items() if value is not None}
        if self.quantiles:
            data["quantiles"] = list(self.quantiles)
        if self.top:
            data["top"] = [[value, rows] for value, rows in self.top]
        return data

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = Fields(data, where)
        return cls(
            nulls=fields.optional("nulls", fields.count),
            distinct=fields.optional("distinct", fields.count),
            min=fields.optional("min", fields.value),
            max=fields.optional("max", fields.value),
            mean=fields.optional("mean", fields.number),
            std=fields.optional("std", fields.number),
            quantiles=_quantiles(fields),
            top=_top(fields),
            sampled=fields.optional("sampled", fields.count),
            infinite=fields.optional("infinite", fields.count),
        )


def _quantiles(fields: Fields) -> tuple[float, ...]:
    values = fields.optional("quantiles", fields.items) or []
    numbers = Fields({f"quantiles[{index}]": value for index, value in enumerate(values)}, fields.where)
    return tuple(numbers.number(key) for key in numbers.data)


def _top(fields: Fields) -> tuple[tuple[Value, int], ...]:
    pairs = fields.optional("top", fields.items) or []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], int):
            raise fields.wrong("top", f"{pair!r} is not a value with its number of rows")
    return tuple((value, rows) for value, rows in pairs)
