"""Determines which of two trainings without a dataset version has the newer data, by their DAG runs.

A run has a partition key, a date, or both. Keys are compared if both are dates, or differ only in their numbers (``v9``
and ``v12``, but not ``de`` and ``us``). Otherwise the dates are compared: the partition date, or else the end of the
data interval, the logical date, or the earliest start of the run. For a backfill, all of these are in the past. A job
without a run has the time of its submission.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from mlengine.core.versions import version_key, version_time

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class RunOrder:
    """The position of a training in time.

    :param partition_key: the run's partition key; empty if it has none.
    :param as_of: the date of the run's data, with a time zone; ``None`` if it is not known.
    """

    partition_key: str = ""
    as_of: datetime | None = None

    INPUT: ClassVar[str] = "run"  # the key of this value in a job's inputs

    def older_than(self, other: RunOrder) -> bool:
        """Whether this training's data is older; ``False`` if the two cannot be compared."""
        if _comparable(self.partition_key, other.partition_key):
            return version_key(self.partition_key) < version_key(other.partition_key)
        return self.as_of is not None and other.as_of is not None and self.as_of < other.as_of

    def __str__(self) -> str:
        if self.partition_key:
            return self.partition_key
        return "-" if self.as_of is None else self.as_of.astimezone(UTC).isoformat(sep=" ", timespec="minutes")

    def to_json(self) -> dict[str, Any]:
        return {
            "partition_key": self.partition_key,
            "as_of": None if self.as_of is None else self.as_of.astimezone(UTC).isoformat(),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read a recorded position; values that cannot be read are treated as unknown."""
        known = data if isinstance(data, Mapping) else {}
        return cls(str(known.get("partition_key") or ""), _moment(known.get("as_of")))

    @classmethod
    def from_lineage(cls, lineage: Mapping[str, Any]) -> Self:
        """The position of a job, from its report or its champion record."""
        order = cls.from_json((lineage.get("inputs") or {}).get(cls.INPUT))
        if order.partition_key or order.as_of:
            return order
        times = [event.get("time") for event in lineage.get("events") or () if isinstance(event, Mapping)]
        known = [float(time) for time in times if isinstance(time, (int, float))]
        return cls("", datetime.fromtimestamp(min(known), UTC) if known else None)


def _comparable(mine: str, theirs: str) -> bool:
    if not mine or not theirs:
        return False
    if version_time(mine) is not None and version_time(theirs) is not None:
        return True
    return _DIGITS.sub("0", mine) == _DIGITS.sub("0", theirs)


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
