"""Reads which ports of this machine have a listener, to report which replica a cluster is waiting for.

The ports are read from the kernel's table, as a test connection could disturb the replica. This works only on Linux.
"""

from __future__ import annotations

from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN = "0A"


def ports() -> set[int] | None:
    """The numbers of the ports that have a listener; ``None`` if the kernel's table cannot be read."""
    found: set[int] = set()
    try:
        for table in _TABLES:
            for line in table.read_text().splitlines()[1:] if table.exists() else ():
                fields = line.split()
                if fields[3] == _LISTEN:
                    found.add(int(fields[1].rpartition(":")[2], 16))
    except (OSError, IndexError, ValueError):
        return None
    return found if _TABLES[0].exists() else None
