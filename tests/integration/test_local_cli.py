"""Tests ``mlengine jobs list``, ``logs`` and ``cancel`` as a user types them in a terminal."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.cli.documents import BackendJobDocument
from mlengine.core.job import JobState
from mlengine.runtime import json_files
from mlengine.runtime.file_lock import held
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]


@pytest.fixture
def mlengine(make_backend: Make, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command with the test's state dir; returns exit code, standard output and standard error."""
    state = str(make_backend().state_dir)

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--state-dir", state])
        out, err = capsys.readouterr()
        return code, out, err

    return run


Command = Callable[..., tuple[int, str, str]]


def test_a_job_can_be_followed_shown_and_cancelled(
    mlengine: Command, make_backend: Make, actor: str, bucket: str
) -> None:
    assert mlengine("jobs", "list", "--backend", "local")[1].startswith("no jobs in ")
    backend = make_backend()
    chief = "say('one'); until(scratch.parent.parent / 'go'); say('two')"
    spec = local.spec(actor, worker=1, args=local.acts(chief=chief, worker="time.sleep(3600)"))
    handle = backend.submit(local.submission(bucket, spec))
    root = backend._job(handle.name).root
    local.until(lambda: "chief-0: one" in local.texts(backend, handle), "the chief is training")
    code, out, _ = mlengine("jobs", "list", "--backend", "local")
    assert code == 0
    assert re.search(rf"/{handle.job_id}  RUNNING  ", out)
    listed = json.loads(mlengine("jobs", "list", "--backend", "local", "--state", "running", "--json")[1])
    assert [(one["job_id"], one["name"]) for one in listed] == [(handle.job_id, handle.name)]
    assert set(listed[0]) == set(BackendJobDocument.__annotations__)
    assert json.loads(mlengine("jobs", "list", "--backend", "local", "--state", "FAILED", "--json")[1]) == []
    threading.Timer(0.3, (root / "go").touch).start()
    code, out, _ = mlengine("jobs", "logs", handle.job_id, "--follow")
    assert code == 0
    lines = out.splitlines()
    assert lines.index("chief-0     | one") < lines.index("chief-0     | two")
    assert "worker-0    | worker-0 restart 0" in lines
    assert "launcher    | SUCCEEDED: the chief ended with exit code 0" in lines
    assert mlengine("jobs", "logs", handle.name, "--replica", "chief-0")[1] == "chief-0 restart 0\none\ntwo\n"
    code, out, err = mlengine("jobs", "logs", handle.name, "--replica", "worker-9")
    assert (code, out) == (0, "")
    assert err == "mlengine: no lines of worker-9; the log has lines of chief-0, launcher, worker-0\n"
    assert json.loads(mlengine("jobs", "status", handle.job_id, "--json")[1])["state"] == "SUCCEEDED"
    assert mlengine("jobs", "cancel", handle.job_id)[1] == f"{handle.job_id} has already ended: SUCCEEDED\n"


def test_the_logs_of_an_old_job_are_removed_once_they_are_in_the_bucket(
    mlengine: Command, make_backend: Make, actor: str, bucket: str
) -> None:
    backend = make_backend(log_upload_timeout_seconds=60)
    handle, _ = local.run(backend, bucket, local.spec(actor))
    job = backend._job(handle.name)
    local.until(job.uploaded_file.exists, "the upload")
    state = job.state() or {}
    json_files.write_json(job.state_file, {**state, "ended": state["ended"] - 31 * 86400})
    assert "chief-0     | chief-0 restart 0\n" in mlengine("jobs", "logs", handle.name)[1]
    local.until(lambda: not held(job.lock_file), "the launcher ends")
    local.run(backend, bucket, local.spec(actor), key="later")
    assert not job.logs.exists()
    where = f"mlengine: local has no log lines of this job; those of an old job are in {handle.job_dir}/logs/\n"
    assert mlengine("jobs", "logs", handle.name) == (0, "", where)
    assert json.loads(mlengine("jobs", "status", handle.name, "--json")[1])["state"] == "SUCCEEDED"


def test_a_running_job_is_cancelled(mlengine: Command, make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    spec = local.spec(actor, args=local.acts(chief="time.sleep(3600)"))
    handle = backend.submit(local.submission(bucket, spec))
    local.until_state(backend, handle, JobState.RUNNING)
    assert mlengine("jobs", "cancel", handle.job_id) == (0, f"{handle.job_id}: CANCELLED\n", "")


def test_a_failure_is_reported_with_its_cause_and_last_lines(
    mlengine: Command, make_backend: Make, actor: str, bucket: str
) -> None:
    backend = make_backend()
    local.run(backend, bucket, local.spec(actor, args=local.acts(chief="sys.exit('no such file: x.csv')")))
    code, out, _ = mlengine("jobs", "status", "job_kkkkkkkk")
    assert code == 0
    assert "cause:      trainer (not retried)" in out
    assert out.endswith("last lines of chief-0:\n  chief-0 restart 0\n  no such file: x.csv\n")


def test_an_unknown_job_is_reported(mlengine: Command) -> None:
    for verb in ("status", "logs", "cancel"):
        code, _, err = mlengine("jobs", verb, "unknown")
        assert code == 1
        assert "no job 'unknown' in" in err
        assert "mlengine jobs list" in err
