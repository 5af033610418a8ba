"""Ending what a DAG run left running, in a process of its own: ``python -m mlengine.listeners.cleanup_process``.

Whoever notices that a run is over is Airflow's scheduler or API server, which must neither wait for a cloud nor load
its libraries. They leave an order in a folder, start this, and forget it.

Of many that are started at once, for a hundred runs that somebody marked, one carries out all orders and the others end
before they have loaded anything: who finds the lock taken leaves its order to whoever holds it, who looks once more
after giving it back. An order is removed when it was carried out.
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
# Not the same in two processes of one component.
_PASSING = frozenset({"_", "SHLVL", "OLDPWD", "PWD", "INVOCATION_ID", _VARIABLE, "_AIRFLOW_PROCESS_CONTEXT"})
# A submission that was on its way when the run ended shows by then.
_LATE_SECONDS = 10.0
_START_SECONDS = 10.0


@dataclass(frozen=True)
class Order:
    """Everything of ``key`` shall end, or of the key that has claimed ``job_dir``.

    :param backend: its name, or ``None`` for the configured one.
    :param begun_before: attempts that were made later are not meant; in seconds since the epoch.
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
    why: str = "its DAG run is over"


def start(orders: Sequence[Order]) -> None:
    """Have the orders carried out; returns at once.

    :raises OSError: they cannot be written, or no process can be started.
    """
    folder = _folder()
    file = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps([asdict(order) for order in orders]), encoding="utf-8")
    partial.rename(file)
    env = {
        **os.environ,
        _VARIABLE: str(folder),
        "PYTHONPATH": str(Path(mlengine.__file__).parent.parent),
        # By this word Airflow lets a process look up its connections where the scheduler does.
        "_AIRFLOW_PROCESS_CONTEXT": "server",
    }
    # The shell ends at once, and nobody has to reap its child.
    command = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-P", "-m", "mlengine.listeners.cleanup_process"]
    subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, start_new_session=True, timeout=_START_SECONDS, check=True
    )


def _folder() -> Path:
    """Where orders are left: one for all who would carry them out with the same environment."""
    same = sorted((name, value) for name, value in os.environ.items() if name not in _PASSING)
    digest = hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    folder = home / "mlengine" / "orphans" / digest
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mlengine-orphans-"))
    return folder


def end(order: Order) -> bool:
    """Carry out one order. Returns whether anything was ever submitted for its key."""
    access = CloudAccess(
        order.gcp_conn_id, order.impersonation_chain, order.project_id, order.region, order.backend_options
    )
    backend = access.backend(order.backend)
    submitter = Submitter(access.storage(), backend)
    key = order.key or submitter.record(JobDir(order.job_dir)).key
    handles = backend.find(key)
    for status in backend.describe(handles) if handles else ():
        late = order.begun_before is not None and (status.created or 0.0) > order.begun_before
        if not status.state.terminal and not late:
            log.warning("job %s: %s; cancelling it", status.handle.job_id, order.why)
            submitter.end(status.handle, order.why)
    return bool(handles)


def main() -> int:
    """All orders; those that find nothing, once more a little later."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s mlengine: %(message)s")
    folder = Path(os.environ[_VARIABLE])
    missing: list[Order] = []
    while _waiting(folder):
        with (folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            for file in _waiting(folder):
                missing += [order for order in _read(file) if not _tried(order)]
                file.unlink(missing_ok=True)
    if missing:
        time.sleep(_LATE_SECONDS)
        for order in missing:
            _tried(order)
    return 0


def _waiting(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _read(file: Path) -> list[Order]:
    try:
        return [Order(**order) for order in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        log.exception("%s cannot be read", file)
        return []


def _tried(order: Order) -> bool:
    try:
        return end(order)
    except Exception:
        log.exception("jobs of %s could not be ended; `mlengine reap` will find them", order.key or order.job_dir)
        return True


if __name__ == "__main__":
    sys.exit(main())
