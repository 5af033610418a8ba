"""Reads the learning curves in ``train/metrics.jsonl``: one JSON object per line, written by the untrusted trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

MAX_POINTS = 2000
MAX_SERIES = 24
_LONGEST_NAME = 60
_LARGEST = 1e300  # the axes of a plot exceed its values, and must be finite, too
# Series whose names differ only in these prefixes share a plot.
_PREFIXES = ("train_", "test_", "val_", "eval_", "heldout_")
# Numbers of a line that are not measurements.
_NO_SERIES = frozenset({"step", "epoch", "time", "wall_time", "seconds", "examples_per_second"})


@dataclass(frozen=True)
class Curves:
    """The points ``(step, value)`` of each series, in file order."""

    series: Mapping[str, tuple[tuple[float, float], ...]]

    @property
    def plots(self) -> dict[str, dict[str, tuple[tuple[float, float], ...]]]:
        """The series by plot: ``train_loss`` and ``test_loss`` are both in ``loss``."""
        found: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {}
        for name, points in self.series.items():
            prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix) and name != prefix), "")
            found.setdefault(name[len(prefix) :], {})[name] = points
        return found

    def __bool__(self) -> bool:
        return any(self.series.values())


def read_curves(storage: Storage, job_dir: JobDir) -> Curves:
    """Read a job's learning curves; empty if there are none. Invalid lines are skipped."""
    try:
        text = storage.read(job_dir.metrics).decode(errors="replace")
    except ObjectMissingError:
        return Curves({})
    except MlengineError as error:
        if error.retryable:
            raise
        return Curves({})
    return parse_curves(text)


def parse_curves(text: str) -> Curves:
    """Parse ``metrics.jsonl``: each number of a line, except its step, is a point of the series of its name.

    Larger numbers than :data:`_LARGEST`, and names that cannot be encoded, are skipped.

    A series with more than :data:`MAX_POINTS` points is thinned evenly. If there are more than :data:`MAX_SERIES`
    series, the first ones are kept.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict) or not _finite(row.get("step")):
            continue
        for name, value in row.items():
            known = name in points or len(points) < MAX_SERIES
            if name not in _NO_SERIES and known and _is_name(name) and _finite(value):
                points.setdefault(name, []).append((float(row["step"]), float(value)))
    return Curves({name: tuple(_thin(found)) for name, found in points.items()})


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(points) // MAX_POINTS)
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _finite(value: object) -> bool:
    # The comparison is also false for NaN.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _is_name(name: str) -> bool:
    """Whether the page and the report can show the name: it is short, and without lone surrogates."""
    return len(name) <= _LONGEST_NAME and name == name.encode(errors="replace").decode()
