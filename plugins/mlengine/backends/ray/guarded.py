"""Starts a command on a node under :mod:`mlengine.backends.ray.guard`, reads its output, and ends it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlengine.backends.ray import guard
from mlengine.runtime.file_lock import FileLock

_START_SECONDS = 60.0
_READ_BYTES = 256 << 10


class Guarded:
    """A running command, which ends when the process of this object ends.

    :param grace: the seconds between SIGTERM and SIGKILL.
    :param locks: locks that are held until the command and all its descendants have ended, even if this process dies
        before.
    :raises OSError: the guard cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        *,
        grace: float,
        locks: Sequence[FileLock] = (),
    ) -> None:
        cwd.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self._position = log.stat().st_size if log.exists() else 0
        self._code: int | None = None
        commands, self._commands = os.pipe()
        self._report, report = os.pipe()
        os.set_blocking(self._report, False)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", guard.__file__, str(log), str(grace), *command],
                cwd=cwd,
                env=dict(env),
                stdin=commands,
                stdout=report,
                start_new_session=True,
                pass_fds=[lock.fileno() for lock in locks],
            )
        finally:
            os.close(commands)
            os.close(report)
        # The started process forks at once, so that the guard itself is not a child of this process.
        process.wait(_START_SECONDS)

    def poll(self) -> int | None:
        """The exit code, once the command and everything that it started have ended."""
        if self._code is None:
            try:
                report = os.read(self._report, 64)
            except BlockingIOError:
                return None
            # An empty report means that the guard was killed, and the command with it.
            self._code = int(report) if report.strip() else -9
        return self._code

    def read(self) -> bytes:
        """The output since the last call, limited in size; empty if there is none."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._position)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            return b""
        self._position += len(data)
        return data

    def end(self) -> None:
        """Send SIGTERM, and SIGKILL after the grace period. The call returns at once, and can be repeated safely."""
        with contextlib.suppress(OSError):
            os.write(self._commands, b"end\n")

    def close(self) -> None:
        """Release the pipes. A command that still runs is ended."""
        for name in ("_commands", "_report"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)
