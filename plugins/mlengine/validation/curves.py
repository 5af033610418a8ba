"""The learning curves in ``train/metrics.jsonl``: one JSON object per line, written by the trainer and not trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

MAX_POINTS = 2000
_SERIES = ("train_loss", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class Curves:
    """Points ``(step, value)`` of each series, in file order."""

    series: Mapping[str, tuple[tuple[float, float], ...]]

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
    """Parse ``metrics.jsonl``. A series with more than :data:`MAX_POINTS` points is thinned evenly."""
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in _SERIES}
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict) or not _finite(row.get("step")):
            continue
        for name in _SERIES:
            if _finite(row.get(name)):
                points[name].append((float(row["step"]), float(row[name])))
    return Curves({name: tuple(_thin(found)) for name, found in points.items() if found})


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(points) // MAX_POINTS)
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
