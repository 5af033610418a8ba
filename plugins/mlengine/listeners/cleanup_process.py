"""Cancels the jobs that a DAG run left running: ``python -m mlengine.listeners.cleanup_process``.

Airflow's scheduler or API server notices that a run has ended. Neither may wait for a cloud or load its libraries. They
write a request to a folder, start this process, and return.

Many are started at once when a person marks a hundred runs. The process that gets the lock handles all requests; the
others exit before they load anything. The one with the lock reads the folder once more after it has released it, so
that no request is left. A request is deleted when it was handled.
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
from typing import Any

import mlengine
from mlengine.connections import CloudAccess
from mlengine.core.layout import JobDir
from mlengine.jobs.submission import Submitter

log = logging.getLogger("mlengine.listeners.cleanup_process")

_VARIABLE = "MLENGINE_ORPHANS"
# Environment variables that differ between two processes of one component.
_VOLATILE = frozenset({"_", "SHLVL", "OLDPWD", "PWD", "INVOCATION_ID", _VARIABLE, "_AIRFLOW_PROCESS_CONTEXT"})
# By then, a submission that was in progress when the run ended can be found.
_LATE_SECONDS = 10.0
_START_SECONDS = 10.0


@dataclass(frozen=True)
class CancelRequest:
    """A request to cancel the jobs of ``key``, or of the key that has claimed ``job_dir``.

    :param backend: its name, or ``None`` for the configured one.
    :param begun_before: attempts that were made later are kept; in seconds since the epoch.
    """

    key: str = ""
    job_dir: str = ""
    backend: str | None = None
    gcp_conn_id: str | None = None
    impersonation_chain: str | Sequence[str] | None = None
    project_id: str | None = None
    region: str | None = None
    backend_options: Mapping[str, Any] | None = None
    begun_before: float | None = None
    why: str = "its DAG run has ended"


def start(requests: Sequence[CancelRequest]) -> None:
    """Start a process that handles the requests, and return at once.

    :raises OSError: they cannot be written, or no process can be started.
    """
    folder = _folder()
    file = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps([asdict(request) for request in requests]), encoding="utf-8")
    partial.rename(file)
    env = {
        **os.environ,
        _VARIABLE: str(folder),
        "PYTHONPATH": str(Path(mlengine.__file__).parent.parent),
        # With this value Airflow lets a process read connections where the scheduler reads them.
        "_AIRFLOW_PROCESS_CONTEXT": "server",
    }
    # The shell exits at once, so that its child is not ours to reap.
    command = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-P", "-m", "mlengine.listeners.cleanup_process"]
    subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, start_new_session=True, timeout=_START_SECONDS, check=True
    )


def _folder() -> Path:
    """The folder of requests: one for all processes with the same environment."""
    same = sorted((name, value) for name, value in os.environ.items() if name not in _VOLATILE)
    digest = hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    folder = home / "mlengine" / "orphans" / digest
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mlengine-orphans-"))
    return folder


def cancel_jobs(request: CancelRequest) -> bool:
    """Handle one request. Returns whether any job was ever submitted for its key."""
    access = CloudAccess(
        request.gcp_conn_id, request.impersonation_chain, request.project_id, request.region, request.backend_options
    )
    backend = access.backend(request.backend)
    submitter = Submitter(access.storage(), backend)
    key = request.key or submitter.record(JobDir(request.job_dir)).key
    handles = backend.find(key)
    for status in backend.describe(handles) if handles else ():
        later = request.begun_before is not None and (status.created or 0.0) > request.begun_before
        if not status.state.terminal and not later:
            log.warning("Cancelling job %s: %s", status.handle.job_id, request.why)
            submitter.end(status.handle, request.why)
    return bool(handles)


def main() -> int:
    """Handle all requests; repeat those without a job after :data:`_LATE_SECONDS`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s mlengine: %(message)s")
    folder = Path(os.environ[_VARIABLE])
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
    if without_job:
        time.sleep(_LATE_SECONDS)
        for request in without_job:
            _handle(request)
    return 0


def _pending(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _read(file: Path) -> list[CancelRequest]:
    try:
        return [CancelRequest(**request) for request in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        log.exception("Could not read %s", file)
        return []


def _handle(request: CancelRequest) -> bool:
    """As :func:`cancel_jobs`; an error is logged."""
    try:
        return cancel_jobs(request)
    except Exception:
        log.exception("Could not cancel jobs of %s; run `mlengine jobs reap`", request.key or request.job_dir)
        return True


if __name__ == "__main__":
    sys.exit(main())
