"""Jobs in a state directory of another user: an error, instead of the answer that there are none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import JobHandle, JobState

KEY = "k" * 40


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBackend:
    """A backend that may read its state directory, but not the jobs in it."""
    backend = LocalBackend(tmp_path)
    (tmp_path / "jobs" / f"{KEY}-1").mkdir(parents=True)
    backend.host()
    denied = str(tmp_path / "jobs")

    def refusing(original: Callable[..., Any], prefix: str) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **options: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path).startswith(prefix):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return original(path, *args, **options)

        return call

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name), denied))
    for name in ("stat", "open"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name), f"{denied}/"))
    monkeypatch.setattr("io.open", refusing(open, f"{denied}/"))
    return backend


def test_jobs_that_may_not_be_read_are_an_error(backend: LocalBackend) -> None:
    handle = JobHandle("local", f"{backend.host()}:{KEY}-1", "job", 1, "gs://bkt/m/job")
    calls: list[Callable[[], object]] = [backend.jobs, lambda: backend.find(KEY), lambda: backend.logs(handle, {})]
    for call in calls:
        with pytest.raises(BackendUnavailableError, match=r"cannot be read.*Permission denied.*\n.*local_state_dir"):
            call()
    (status,) = backend.describe([handle])
    assert status.state is JobState.UNKNOWN
    assert "Permission denied" in status.detail
    assert backend.console_url(handle) is None
    assert backend.elsewhere(handle) is None
