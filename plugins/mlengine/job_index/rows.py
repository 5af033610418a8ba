"""A row of the list of jobs: all data that the list shows about a job."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mlengine.core.job import JobState

_TEXT = frozenset(
    "model job_id backend state detail dag_id run_id by cluster decision dataset verdict metric".split()  # noqa: SIM905
)
_STATES = frozenset(state.value for state in JobState)
_TIME = frozenset({"seen", "claimed", "started", "ended", "final_at"})
_TIMES = (-62_135_596_800, 253_402_300_799)  # seconds since the epoch, from year 1 to year 9999
_LARGEST = 1e300


class Row(NamedTuple):
    """One job in the list. Times are in seconds since the epoch.

    The class is a tuple, because tuples are fast to create: a server creates ten thousand of them before its first
    response.

    :param seen: the time at which the row was read.
    :param final_at: the time from which the job is not expected to change; ``None`` if changes are expected.
    :param claim_generation: the generation of ``job.json`` from which the row was read.
    :param report_generation: the generation of ``report.json`` from which the row was read; 0 if there was no report.
    :param by: the user who triggered the job's run, or the run's type; empty if unknown.
    :param of: the total number of training steps; ``step`` is the current step.
    :param eta: estimated number of seconds until the last step.
    :param rate: training speed in examples per second.
    :param cost_usd: cost of the job's machines so far, by list prices; ``None`` if the backend has no prices.
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
        """Whether the job is no longer expected to change."""
        return self.final_at is not None and self.final_at <= now

    @property
    def generations(self) -> tuple[int, int]:
        """The generations of ``job.json`` and ``report.json``."""
        return self.claim_generation, self.report_generation

    @property
    def version(self) -> tuple[int, int, float]:
        """A key for comparison: of two rows of a job, the one with the larger key was read from newer objects."""
        return *self.generations, self.seen


def to_columns(rows: Collection[Row]) -> dict[str, list[Any]]:
    """Convert rows to columns, one list per field. As JSON, this takes a third of the size of a list of objects."""
    return dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}


def from_columns(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Convert the columns that :func:`to_columns` returned back to rows.

    Unknown fields are ignored. Missing fields get their default.

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
    """Check that readers accept the row. The files of a job may contain any values.

    :raises ValueError: a value has the wrong type, is a number that JSON does not support, or is a time out of range.
    """
    for name, value in zip(Row._fields, row, strict=True):
        _check(name, [value])


def _check(name: str, values: Sequence[Any]) -> None:
    """Check the values of one field. Others can also write to the bucket.

    :raises ValueError: a value is invalid.
    """
    kinds = set(map(type, values))
    allowed = {str} if name in _TEXT else {int} if _is_count(name) else {int, float, type(None)}
    if not kinds <= allowed or (name == "state" and not set(values) <= _STATES):
        raise ValueError(f"invalid {name}")
    if str in allowed:
        return
    lowest, highest = _TIMES if name in _TIME else (-_LARGEST, _LARGEST)
    # The comparison is also false for NaN.
    if not all(value is None or lowest <= value <= highest for value in values):
        raise ValueError(f"invalid {name}")


def _is_count(name: str) -> bool:
    return name in {"attempt", "claim_generation", "report_generation"}
