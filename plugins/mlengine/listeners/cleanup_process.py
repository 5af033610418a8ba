"""Cancels the jobs that a DAG run left running: ``python -m mlengine.listeners.cleanup_process``.

Airflow's scheduler or API server notices that a run has ended. Neither may wait for a cloud service or load its
libraries. They write a request to a folder, start this process, and return.

If a person marks a hundred runs, many such processes start at once. The process that gets the lock handles all
requests; the others exit before they load anything. After the process has released the lock, it reads the folder once
more, so that no request is left. A request is deleted when it was handled. Requests of another environment are handled
if they are older than :data:`_ABANDONED_SECONDS`: their process was killed, or their component was restarted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlengine
from mlengine.backends import TrainingBackend, find_attempts
from mlengine.connections import CloudAccess
from mlengine.core.errors import JobFileError, MlengineError
from mlengine.core.job import JobHandle, JobRecord
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Submitter
from mlengine.runtime.file_lock import held

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

log = logging.getLogger("mlengine.listeners.cleanup_process")

_VARIABLE = "MLENGINE_ORPHANS"
_FOLDER = "orphans"
_INFO = "mlengine_cleanup"  # in `Session.info`: the folders of requests that wait for the end of the transaction
# Environment variables that differ between two processes of one component.
_VOLATILE = frozenset(
    {"_", "SHLVL", "OLDPWD", "PWD", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "JOURNAL_STREAM", "HOSTNAME"}
    | {_VARIABLE, "_AIRFLOW_PROCESS_CONTEXT"}
)
_ABANDONED_SECONDS = 300.0
# The time after which a submission that was in progress when the run ended can be found.
_LATE_SECONDS = 10.0
_START_SECONDS = 10.0


@dataclass(frozen=True)
class CancelRequest:
    """A request to cancel the jobs of ``key``, and of the key that has claimed ``job_dir``.

    :param owner: ``dag_id`` and ``run_id`` of the task that must have claimed ``job_dir``; by default, any task.
    :param backend: the backend's name; ``None`` for the configured one.
    :param begun_before: a time in seconds since the epoch; attempts that were made later are not cancelled.
    """

    key: str = ""
    job_dir: str = ""
    owner: Mapping[str, str] | None = None
    backend: str | None = None
    gcp_conn_id: str | None = None
    impersonation_chain: str | Sequence[str] | None = None
    project_id: str | None = None
    region: str | None = None
    backend_options: Mapping[str, Any] | None = None
    begun_before: float | None = None
    why: str = "its DAG run has ended"


def start(requests: Sequence[CancelRequest], session: Session | None = None) -> None:
    """Write the requests, and start a process that handles them. Does not wait for it.

    :param session: the session that ends the run or the wait. The process then starts at the end of its transaction:
        the triggerer, when it sees that a job was cancelled, resumes each task that it still finds deferred, and
        Airflow would write ``scheduled`` over the final state of a wait that was not committed yet.
    :raises OSError: the requests cannot be written, or no process can be started.
    """
    folder = _folder()
    file = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps([asdict(request) for request in requests]), encoding="utf-8")
    partial.rename(file)
    if session is None or not session.in_transaction():
        _spawn(folder)
        return
    from sqlalchemy import event

    session.info.setdefault(_INFO, set()).add(folder)
    if not event.contains(session, "after_transaction_end", _transaction_ended):
        event.listen(session, "after_transaction_end", _transaction_ended)


def _transaction_ended(session: Session, transaction: SessionTransaction) -> None:
    """Start the processes that waited for this transaction. After a rollback too: Airflow ends the run later."""
    if transaction.parent is not None:
        return
    for folder in session.info.pop(_INFO, ()):
        try:
            _spawn(folder)
        except (OSError, subprocess.SubprocessError):
            log.exception("Could not start the process that cancels jobs; run `mlengine jobs reap`")


def resume() -> None:
    """Start a process if there are requests that have not been handled.

    :raises OSError: no process can be started.
    """
    folder = _folder()
    if any(folder.parent.glob("*/*.json")):
        _spawn(folder)


def is_busy(home: Path) -> bool:
    """Whether requests of the Airflow with this AIRFLOW_HOME are being handled, or have not been handled."""
    folders = home / "mlengine" / _FOLDER
    return any(folders.glob("*/*.json")) or any(held(lock) for lock in folders.glob("*/lock"))


def _spawn(folder: Path) -> None:
    path = os.environ.get("PYTHONPATH")
    env = {
        **os.environ,
        _VARIABLE: str(folder),
        # Airflow's configuration may name modules on this process's path, such as a secrets backend.
        "PYTHONPATH": os.pathsep.join([str(Path(mlengine.__file__).parent.parent), *filter(None, [path])]),
        # With this value, Airflow lets a process read connections from the same places as the scheduler.
        "_AIRFLOW_PROCESS_CONTEXT": "server",
    }
    # The shell exits at once, so that this process need not reap the shell's child.
    command = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-P", "-m", "mlengine.listeners.cleanup_process"]
    subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, start_new_session=True, timeout=_START_SECONDS, check=True
    )


def _folder() -> Path:
    """The folder of requests: one for all processes with the same environment."""
    same = sorted((name, value) for name, value in os.environ.items() if name not in _VOLATILE)
    digest = hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    folder = home / "mlengine" / _FOLDER / digest
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mlengine-orphans-"))
    return folder


def cancel_jobs(request: CancelRequest) -> bool:
    """Handle one request. Return whether any job was ever submitted for its key."""
    access = CloudAccess(
        request.gcp_conn_id, request.impersonation_chain, request.project_id, request.region, request.backend_options
    )
    backend = access.backend(request.backend)
    submitter = Submitter(access.storage(), backend)
    handles = _find(request, submitter, backend)
    for status in backend.describe(handles) if handles else ():
        later = request.begun_before is not None and (status.created or 0.0) > request.begun_before
        if not status.state.terminal and not later:
            log.warning("Cancelling job %s: %s", status.handle.job_id, request.why)
            submitter.end(status.handle, request.why)
    return bool(handles)


def _find(request: CancelRequest, submitter: Submitter, backend: TrainingBackend) -> list[JobHandle]:
    """The attempts of the job in the job dir, and those with the requested key."""
    record = _record(request, submitter) if request.job_dir else None
    found = [] if record is None else _of_record(backend, record)
    if request.key and (record is None or record.key != request.key):
        found += backend.find(request.key)
    return found


def _record(request: CancelRequest, submitter: Submitter) -> JobRecord | None:
    """The record in the job dir.

    ``None`` if there is none or it is that of another run, and the request has a key, so that no record is needed.
    """
    try:
        record = submitter.record(JobDir(request.job_dir))
    except MlengineError as error:
        if not request.key or error.retryable:
            raise
        return None
    mine = request.owner is None or all(record.owner.get(name) == value for name, value in request.owner.items())
    return record if mine else None


def _of_record(backend: TrainingBackend, record: JobRecord) -> list[JobHandle]:
    """The attempts of a recorded job, including those in the region of its job file."""
    try:
        spec = TrainingSpec.from_json(record.spec)
    except JobFileError:
        return backend.find(record.key)
    return find_attempts(backend, record.key, spec, record.regions)


def main() -> int:
    """Handle all requests; repeat those without a job after :data:`_LATE_SECONDS`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s mlengine: %(message)s")
    folder = Path(os.environ[_VARIABLE])
    without_job = _handle_all(folder)
    for other in sorted(folder.parent.iterdir()) if folder.parent.name == _FOLDER else ():
        if other != folder and any(_is_abandoned(file) for file in _pending(other)):
            without_job += _handle_all(other)
    if without_job:
        time.sleep(_LATE_SECONDS)
        for request in without_job:
            _handle(request)
    return 0


def _handle_all(folder: Path) -> list[CancelRequest]:
    """Handle the requests in a folder, unless another process does. Return those for which no job was found."""
    without_job: list[CancelRequest] = []
    while _pending(folder):
        with (folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            for file in _pending(folder):
                without_job += [request for request in _read(file) if not _handle(request)]
                file.unlink(missing_ok=True)
    return without_job


def _is_abandoned(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > _ABANDONED_SECONDS
    except OSError:
        return False  # another process has just handled the request


def _pending(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _read(file: Path) -> list[CancelRequest]:
    try:
        return [CancelRequest(**request) for request in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        log.exception("Could not read %s", file)
        return []


def _handle(request: CancelRequest) -> bool:
    """Handle one request like :func:`cancel_jobs`, but log an error instead of raising it."""
    try:
        return cancel_jobs(request)
    except Exception:
        log.exception("Could not cancel jobs of %s; run `mlengine jobs reap`", request.key or request.job_dir)
        return True


if __name__ == "__main__":
    sys.exit(main())
