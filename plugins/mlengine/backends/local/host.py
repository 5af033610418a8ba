"""The name of the host that a job runs on. It is part of the job's name, as only that host can read the job's state.

The name is stored in the state directory, so that containers that share the directory count as one host. It is derived
from the machine's name and identity and from the directory's path: an emptied state directory gets the same name again,
and its jobs are known to be lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
from pathlib import Path

from mlengine.runtime import json_files

_FILE = "host.json"
_MACHINE = Path("/etc/machine-id")


def here(state_dir: Path) -> str:
    """The host name that is stored in the state directory; it is created if there is none."""
    path = state_dir / _FILE
    known = json_files.read_json(path)
    if known is None:
        name = _name(state_dir)
        # If the directory is not writable, no job can be submitted from here either.
        with contextlib.suppress(OSError):
            state_dir.mkdir(parents=True, exist_ok=True)
            json_files.create_json(path, {"host": name})
        known = json_files.read_json(path) or {"host": name}
    return str(known.get("host", ""))


def split(name: str) -> tuple[str, str]:
    """The host and the directory in a job name. The host is empty in names of version 0.1."""
    host, _, folder = name.rpartition(":")
    return host, folder


def _name(state_dir: Path) -> str:
    hostname = re.sub(r"[^0-9A-Za-z.-]+", "-", socket.gethostname()) or "host"
    try:
        machine = _MACHINE.read_text().strip()
    except OSError:
        machine = ""
    identity = hashlib.sha256(f"{machine or hostname}|{state_dir.resolve()}".encode()).hexdigest()
    return f"{hostname}-{identity[:8]}"
