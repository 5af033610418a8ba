"""A row of the list of jobs: everything that the page shows of a job without opening it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mlengine.core.job import JobState

_TEXT = frozenset(
    "model job_id backend state detail dag_id run_id by cluster decision dataset verdict metric".split()  # noqa: SIM905
)
_STATES = frozenset(state.value for state in JobState)
_TIME = frozenset({"seen", "claimed", "started", "ended", "final_at"})
_TIMES = (-62_135_596_800, 253_402_300_799)  # the years 1 to 9999
_LARGEST = 1e300


class Row(NamedTuple):
    """One job in the list. Times are in seconds since the epoch.

    A tuple, because a server creates ten thousand of them before its first answer.

    :param seen: when the row was read.
    :param final_at: when the job is no longer expected to change; ``None`` if it is.
    :param claim_generation: the generation of ``job.json`` that the row was read from.
    :param report_generation: likewise of ``report.json``; 0 if there was none.
    :param by: the user who triggered its run, or the run's type; empty if it is unknown.
    :param of: the last step; ``step`` is the current one.
    :param eta: seconds until the last step.
    :param rate: examples per second.
    :param cost_usd: cost of its machines so far, by list prices; ``None`` if the backend has no prices.
    """

    model: str
    job_id: str
    backend: str
    attempt: int
    state: str
    seen: float
    detail: str = ""
    dag_id: str = ""
    run_id: str = ""
    by: str = ""
    cluster: str = ""
    decision: str = ""
    dataset: str = ""
    claimed: float | None = None
    started: float | None = None
    ended: float | None = None
    step: int | None = None
    of: int | None = None
    eta: float | None = None
    rate: float | None = None
    verdict: str = ""
    metric: str = ""
    metric_value: float | None = None
    cost_usd: float | None = None
    final_at: float | None = None
    claim_generation: int = 0
    report_generation: int = 0

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    def final(self, now: float) -> bool:
        """Whether the job is not expected to change any more."""
        return self.final_at is not None and self.final_at <= now

    @property
    def generations(self) -> tuple[int, int]:
        """Of ``job.json`` and ``report.json``."""
        return self.claim_generation, self.report_generation

    @property
    def version(self) -> tuple[int, int, float]:
        """Of two rows of a job, the one with the larger version was read from newer objects."""
        return *self.generations, self.seen


def to_columns(rows: Collection[Row]) -> dict[str, list[Any]]:
    """The rows by field: a third of the size of a list of objects, and faster to read."""
    return dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}


def from_columns(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    """The rows that :func:`to_columns` returned. Unknown fields are ignored, and missing ones have their default.

    :raises ValueError: a value has the wrong type, a required field is missing, or the columns differ in length.
    """
    if not columns:
        return []
    count = len(columns["job_id"]) if "job_id" in columns else 0
    found: list[Iterable[Any]] = []
    for name in Row._fields:
        values = columns.get(name)
        if values is None:
            if name not in Row._field_defaults:
                raise ValueError(f"no column {name}")
            values = [Row._field_defaults[name]] * count
        if not isinstance(values, list) or len(values) != count:
            raise ValueError(f"column {name} is not a list of {count} values")
        _check(name, values)
        found.append(values)
    return list(map(Row._make, zip(*found, strict=True)))


def check(row: Row) -> None:
    """Check that readers accept the row. The files of a job may contain anything.

    :raises ValueError: a value has the wrong type, or is a number that JSON or a calendar does not have.
    """
    for name, value in zip(Row._fields, row, strict=True):
        _check(name, [value])


def _check(name: str, values: Sequence[Any]) -> None:
    """:raises ValueError: a value is invalid. Others may write to the bucket, too."""
    kinds = set(map(type, values))
    allowed = {str} if name in _TEXT else {int} if _is_count(name) else {int, float, type(None)}
    if not kinds <= allowed or (name == "state" and not set(values) <= _STATES):
        raise ValueError(f"invalid {name}")
    if str in allowed:
        return
    lowest, highest = _TIMES if name in _TIME else (-_LARGEST, _LARGEST)
    # Also false for NaN.
    if not all(value is None or lowest <= value <= highest for value in values):
        raise ValueError(f"invalid {name}")


def _is_count(name: str) -> bool:
    return name in {"attempt", "claim_generation", "report_generation"}
