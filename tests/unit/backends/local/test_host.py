"""Two hosts that share a bucket: a host reports the other's jobs as such, and leaves them alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.backends import RunsOnHost
from mlengine.backends.local import host
from mlengine.backends.local.backend import LocalBackend
from mlengine.core.errors import BackendError, BackendUnavailableError
from mlengine.core.job import FailureCause, JobHandle, JobState


def test_a_host_name_is_stable_and_differs_for_each_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = host.here(tmp_path / "a")
    assert name != host.here(tmp_path / "b")
    (tmp_path / "a" / "host.json").unlink()
    assert host.here(tmp_path / "a") == name, "its jobs must be known to be lost then"
    # Containers that share a state dir are one host, regardless of their host names.
    monkeypatch.setattr("socket.gethostname", lambda: "another container")
    assert host.here(tmp_path / "a") == name


def test_a_job_name_contains_the_host_and_old_names_belong_to_this_host(tmp_path: Path) -> None:
    assert host.split("vm-3-1a2b3c4d:abc-2") == ("vm-3-1a2b3c4d", "abc-2")
    backend = LocalBackend(tmp_path)
    assert isinstance(backend, RunsOnHost)
    old = JobHandle("local", "abc-2", "j", 2, "gs://bkt/m/j")
    assert backend.elsewhere(old) is None
    failure = backend.describe([old])[0].failure
    assert failure is not None
    assert failure.cause is FailureCause.LOST


def test_a_job_of_another_host_is_reported_as_such_and_left_alone(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    handle = JobHandle("local", "vm-3-1a2b3c4d:abc-1", "mnist_1", 1, "gs://bkt/m/mnist_1")
    (status,) = backend.describe([handle])
    assert (status.state, status.failure) == (JobState.UNKNOWN, None)
    assert "runs on host vm-3-1a2b3c4d; its state can be read only there" in status.detail
    assert backend.elsewhere(handle) == "vm-3-1a2b3c4d"
    page = backend.logs(handle, {"chief-0": 7})
    assert (page.lines, page.cursor, page.more) == ((), {"chief-0": 7}, False)
    with pytest.raises(BackendUnavailableError, match="vm-3-1a2b3c4d") as caught:
        backend.cancel(handle)
    assert "mlengine jobs cancel mnist_1" in str(caught.value)


@pytest.mark.parametrize("name", ["", ".x", "..", "a/b", "host:", "a\0b", "x" * 300])
def test_an_invalid_name_in_job_json_does_not_hide_other_jobs(tmp_path: Path, name: str) -> None:
    backend = LocalBackend(tmp_path)
    handles = [JobHandle("local", one, "j", 1, "gs://bkt/m/j") for one in (name, "abc-1")]
    statuses = backend.describe(handles)
    assert [status.failure and status.failure.cause for status in statuses] == [FailureCause.LOST] * 2
    with pytest.raises(BackendError, match="not a job of the local backend"):
        backend.cancel(handles[0])
    assert list(tmp_path.rglob("cancel*")) == []
