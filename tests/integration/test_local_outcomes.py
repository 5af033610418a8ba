"""Tests how local jobs end: the outcome of each exit code, signal and deadline, and that no process is left."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import Failure, FailureCause, JobState
from mlengine.core.spec import TrainingSpec
from mlengine.runtime.processes import Process
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
FOR_EVER = "say('serving'); time.sleep(3600)"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('deaf'); time.sleep(3600)"


def failure_of(make_backend: Make, bucket: str, spec: TrainingSpec, **settings: object) -> Failure:
    backend = make_backend(**settings)
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert not local.alive(backend, handle)
    return status.failure


def test_the_job_ends_with_its_chief_and_other_replicas_are_stopped(
    make_backend: Make, actor: str, bucket: str, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    chief = f"until({str(ready / 'ps-0')!r}); until({str(ready / 'evaluator-0')!r})"
    mark = f"Path({str(ready)!r}, me).touch(); "
    ready.mkdir()
    spec = local.spec(
        actor, worker=1, ps=1, evaluator=1, args=local.acts(chief=chief, ps=mark + FOR_EVER, evaluator=mark + DEAF)
    )
    backend = make_backend(termination_grace_seconds=1.0)
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED
    assert not local.alive(backend, handle)
    lines = local.texts(backend, handle)
    assert any("evaluator-0 did not end within 1 s of SIGTERM: sending SIGKILL" in text for text in lines)


def test_scratch_is_deleted_but_not_the_targets_of_its_symlinks(
    make_backend: Make, actor: str, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.csv").touch()
    chief = f"os.symlink({str(tmp_path / 'data')!r}, 'link'); Path('scratch').touch()"
    backend = make_backend()
    handle, status = local.run(backend, bucket, local.spec(actor, args=local.acts(chief=chief)))
    assert status.state is JobState.SUCCEEDED
    job = backend._job(handle.name)
    local.until(lambda: not (job.root / "work").exists(), "the scratch is deleted")
    assert job.log("chief-0").exists()
    assert (tmp_path / "data" / "mine.csv").exists()


def test_workers_can_finish_after_the_chief_within_linger_seconds(make_backend: Make, actor: str, bucket: str) -> None:
    spec = local.spec(actor, worker=1, ps=1, args=local.acts(worker="time.sleep(1); say('finished')", ps=FOR_EVER))
    backend = make_backend(linger_seconds=30.0)
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED
    assert "worker-0: finished" in local.texts(backend, handle)


def test_an_error_of_the_chief_is_a_trainer_error_with_its_last_log_lines(
    make_backend: Make, actor: str, bucket: str
) -> None:
    spec = local.spec(actor, ps=1, args=local.acts(chief="raise ValueError('no such column')", ps=FOR_EVER))
    failure = failure_of(make_backend, bucket, spec)
    assert (failure.cause, failure.replica, failure.exit_code) == (FailureCause.TRAINER, "chief-0", 1)
    assert failure.log_tail[-1] == "ValueError: no such column"


def test_a_missing_module_is_reported(make_backend: Make, actor: str, bucket: str) -> None:
    failure = failure_of(make_backend, bucket, local.spec(actor, module="tiny.missing"))
    assert failure.cause is FailureCause.TRAINER
    assert "No module named tiny.missing" in failure.log_tail[-1]


@pytest.mark.parametrize(("end", "reported"), [("sys.exit(1)", 1), ("os.kill(os.getpid(), 9)", -9)])
def test_a_failed_worker_is_restarted_as_the_same_task(
    make_backend: Make, actor: str, bucket: str, end: str, reported: int
) -> None:
    worker = f"say('address', config['cluster']['worker'][0])\nif restarts < 2: print('cut', end='', flush=True); {end}"
    chief = "until(scratch.parent / 'worker-0' / 'restart-2'); time.sleep(0.5)"
    backend = make_backend()
    handle, status = local.run(
        backend, bucket, local.spec(actor, worker=1, args=local.acts(chief=chief, worker=worker))
    )
    assert status.state is JobState.SUCCEEDED
    texts = [line.text for line in local.lines(backend, handle) if line.replica == "worker-0"]
    assert [text for text in texts if " restart " in text] == [f"worker-0 restart {number}" for number in range(3)]
    assert len({text for text in texts if "address" in text}) == 1
    assert any(f"worker-0 ended with exit code {reported}:" in text for text in local.texts(backend, handle))


def test_a_worker_that_keeps_failing_fails_the_job(make_backend: Make, actor: str, bucket: str) -> None:
    spec = local.spec(actor, worker=1, args=local.acts(chief=FOR_EVER, worker="sys.exit('broken')"))
    failure = failure_of(make_backend, bucket, spec, max_restarts=2)
    assert (failure.cause, failure.replica) == (FailureCause.TRAINER, "worker-0")
    assert "after 2 restarts" in failure.message
    assert failure.log_tail[-1] == "broken"


def test_training_continues_without_its_evaluator(make_backend: Make, actor: str, bucket: str) -> None:
    chief = "until(scratch.parent / 'evaluator-0' / 'restart-1'); time.sleep(0.5)"
    spec = local.spec(actor, evaluator=1, args=local.acts(chief=chief, evaluator="sys.exit(3)"))
    _, status = local.run(make_backend(max_restarts=1), bucket, spec)
    assert status.state is JobState.SUCCEEDED


def test_a_stopped_chief_is_restarted_in_its_scratch(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend(max_concurrent_jobs=4)
    chief = "if restarts == 0: (scratch / 'saved').write_text('step 7'); {}\nsay((scratch / 'saved').read_text())"
    ends = ["sys.exit(75)", "sys.exit(143)", "os.kill(os.getpid(), 9)", "os.abort()"]
    handles = [
        backend.submit(
            local.submission(bucket, local.spec(actor, args=local.acts(chief=chief.format(end))), key=key * 40)
        )
        for key, end in zip("abcd", ends, strict=True)
    ]
    for handle in handles:
        assert local.until_ended(backend, handle).state is JobState.SUCCEEDED
        assert "chief-0: step 7" in local.texts(backend, handle)


@pytest.mark.parametrize(
    ("end", "cause"),
    [("sys.exit(75)", FailureCause.PREEMPTED), ("os.abort()", FailureCause.TRAINER)],
)
def test_a_chief_that_keeps_being_stopped_fails_the_job(
    make_backend: Make, actor: str, bucket: str, end: str, cause: FailureCause
) -> None:
    failure = failure_of(make_backend, bucket, local.spec(actor, args=local.acts(chief=end)), max_chief_restarts=1)
    assert failure.cause is cause
    assert "after 1 restarts" in failure.message


def test_grandchildren_do_not_outlive_the_job(make_backend: Make, actor: str, bucket: str, tmp_path: Path) -> None:
    start = "[sys.executable, '-c', 'import time; time.sleep(3600)']"
    chief = f"""
        here = subprocess.Popen({start})
        away = subprocess.Popen({start}, start_new_session=True)
        hidden = subprocess.Popen({start}, start_new_session=True, env={{}})
        Path({str(tmp_path / "pids")!r}).write_text(f"{{here.pid}} {{away.pid}} {{hidden.pid}}")
    """
    handle, status = local.run(make_backend(), bucket, local.spec(actor, args=local.acts(chief=chief)))
    assert status.state is JobState.SUCCEEDED
    for pid in (tmp_path / "pids").read_text().split():
        assert Process.of(int(pid)) is None, handle


def test_a_job_that_exceeds_its_deadline_fails(make_backend: Make, actor: str, bucket: str) -> None:
    spec = local.spec(actor, ps=1, max_running_seconds=1, args=local.acts(chief=FOR_EVER, ps=DEAF))
    failure = failure_of(make_backend, bucket, spec, termination_grace_seconds=0.5)
    assert failure.cause is FailureCause.DEADLINE
    assert "more than 1 s" in failure.message


def test_sigterm_to_the_launcher_lets_the_trainer_save(make_backend: Make, actor: str, bucket: str) -> None:
    chief = """
        def stop(*_):
            say('saved')
            sys.exit(143)
        signal.signal(signal.SIGTERM, stop)
        say('training')
        time.sleep(3600)
    """
    backend = make_backend()
    handle = backend.submit(local.submission(bucket, local.spec(actor, args=local.acts(chief=chief))))
    local.until(lambda: "chief-0: training" in local.texts(backend, handle), "training")
    os.kill(local.launcher_pid(backend, handle), signal.SIGTERM)
    status = local.until_ended(backend, handle)
    assert status.failure is not None
    assert status.failure.cause is FailureCause.PREEMPTED
    assert "chief-0: saved" in local.texts(backend, handle)


def test_a_port_taken_by_another_process_restarts_the_cluster(
    make_backend: Make, actor: str, bucket: str, tmp_path: Path
) -> None:
    stolen = tmp_path / "stolen"
    serve = f"""
        host, port = config['cluster'][task['type']][0].split(':')
        until({str(stolen)!r})
        server = socket.create_server((host, int(port)))
        say('listening')
    """
    spec = local.spec(
        actor,
        ps=1,
        args=local.acts(chief="time.sleep(0.5); " + serve_name(serve), ps=serve_name(serve) + "\ntime.sleep(3600)"),
    )
    backend = make_backend()
    handle = backend.submit(local.submission(bucket, spec))
    local.until(lambda: "ps-0: ps-0 restart 0" in local.texts(backend, handle), "the ps starts")
    started = next(text for text in local.texts(backend, handle) if "ps-0 started" in text)
    with socket.create_server(("127.0.0.1", int(started.rpartition(":")[2]))):
        stolen.touch()
        status = local.until_ended(backend, handle)
    assert status.state is JobState.SUCCEEDED
    assert any("another program uses port" in text for text in local.texts(backend, handle))


def serve_name(block: str) -> str:
    return "\n".join(line.strip() for line in block.strip().splitlines())


def test_missing_replicas_are_named(make_backend: Make, actor: str, bucket: str, tmp_path: Path) -> None:
    chief = f"""
        host, port = config['cluster']['chief'][0].split(':')
        server = socket.create_server((host, int(port)))
        until({str(tmp_path / "go")!r})
    """
    backend = make_backend()
    spec = local.spec(actor, worker=1, args=local.acts(chief=chief, worker=FOR_EVER))
    handle = backend.submit(local.submission(bucket, spec))
    local.until(lambda: "not listening: worker-0" in local.describe(backend, handle).detail, "worker-0 is named")
    (tmp_path / "go").touch()
    assert local.until_ended(backend, handle).state is JobState.SUCCEEDED


def test_start_and_end_times_are_recorded(make_backend: Make, actor: str, bucket: str) -> None:
    before = time.time()
    _, status = local.run(make_backend(), bucket, local.spec(actor))
    assert status.created is not None
    assert status.started is not None
    assert status.ended is not None
    assert before <= status.created <= status.started <= status.ended <= time.time()
