"""Time and cost of a job, with the prices of the real backends. No job is run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import JobHandle, JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.validation.usage import job_usage

JOB_DIR = JobDir("gs://bucket/m/j")
SPEC = TrainingSpec("trainer.task", pools=(Pool(Role.CHIEF, 1), Pool(Role.WORKER, 3)))
RECORD = JobRecord("k", "j", "m", "vertex", SPEC.to_json(), {})
FAILED = (0.0, 60.0, 660.0)  # created, started, ended
DONE = (700.0, 730.0, 4330.0)


def usage_of(backend: Any, monkeypatch: pytest.MonkeyPatch, *times: tuple[float | None, ...]) -> dict[str, Any]:
    """The usage of attempts with these times, for which the backend has recorded no usage."""
    handles = [JobHandle("any", f"n{number}", "j", number, JOB_DIR.uri) for number, _ in enumerate(times, 1)]

    def describe(wanted: Sequence[JobHandle]) -> list[JobStatus]:
        return [
            JobStatus(handle, JobState.SUCCEEDED, created=one[0], started=one[1], ended=one[2])
            for handle, one in zip(wanted, times, strict=True)
        ]

    monkeypatch.setattr(backend, "find", lambda key: handles)
    monkeypatch.setattr(backend, "describe", describe)
    return job_usage(backend, RECORD, JOB_DIR)


def test_usage_on_vertex_ai_includes_all_attempts_at_list_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = VertexBackend(prices={"n1-standard-4": 0.25})
    assert usage_of(backend, monkeypatch, FAILED, DONE) == {
        "attempts": 2,
        "queued_seconds": 90.0,
        "seconds": 4200.0,
        "usd_per_hour": 1.0,
        "usd": round(4200 / 3600, 4),
    }


def test_a_machine_without_a_price_has_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = VertexBackend(machine_type="x9-quantum-1")
    assert usage_of(backend, monkeypatch, DONE) == {"attempts": 1, "queued_seconds": 30.0, "seconds": 3600.0}


def test_usage_on_the_local_backend_is_in_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cores = os.cpu_count() or 1
    found = usage_of(LocalBackend(tmp_path), monkeypatch, DONE)
    assert found == {
        "attempts": 1,
        "queued_seconds": 30.0,
        "seconds": 3600.0,
        "cores": cores,
        "core_seconds": 3600.0 * cores,
    }


def test_unknown_usage_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    assert usage_of(backend, monkeypatch) == {}
    assert usage_of(backend, monkeypatch, (0.0, None, 5.0)) == {}

    def silent(key: str) -> list[JobHandle]:
        raise BackendUnavailableError("no answer")

    monkeypatch.setattr(backend, "find", silent)
    assert job_usage(backend, RECORD, JOB_DIR) == {}
