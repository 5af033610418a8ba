"""The file lock, with a real process that dies while holding it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mlengine
from mlengine.runtime.file_lock import FileLock, held

_HOLD = """
import sys
from pathlib import Path
from mlengine.runtime.file_lock import FileLock
lock = FileLock.take(Path(sys.argv[1]))
print("held" if lock else "refused", flush=True)
sys.stdin.read()
"""


def test_an_exclusive_lock_has_one_holder(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "lock"
    assert not held(path)
    with FileLock.take(path) or sys.exit("free"):
        assert held(path)
        assert FileLock.take(path, wait=0.05) is None
        assert FileLock.take(path, shared=True) is None
    assert not held(path)


def test_shared_locks_block_an_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    one, two = FileLock.take(path, shared=True), FileLock.take(path, shared=True)
    assert one is not None
    assert two is not None
    one.give_back()
    assert FileLock.take(path) is None
    two.give_back()
    two.give_back()
    assert FileLock.take(path) is not None


def test_a_lock_is_released_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    env = {"PYTHONPATH": str(Path(mlengine.__file__).parents[0])}
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert held(path)
    finally:
        holder.kill()
        holder.communicate()
    assert not held(path)


@pytest.mark.parametrize("shared", [False, True], ids=["exclusive", "shared"])
def test_a_lock_file_that_was_deleted_while_waiting_is_created_again(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "lock"
    remover = FileLock.take(path)
    assert remover is not None
    taken: list[FileLock | None] = []
    waiter = threading.Thread(target=lambda: taken.append(FileLock.take(path, wait=20.0, shared=shared)))
    deleted = os.fstat(remover.fileno()).st_ino
    waiter.start()
    # Once this process has the file open twice, the waiter has opened it.
    while sum(_inode(descriptor) == deleted for descriptor in Path("/proc/self/fd").iterdir()) < 2:
        waiter.join(0.001)
    path.unlink()
    remover.give_back()
    waiter.join()
    assert path.exists()
    assert FileLock.take(path) is None, "the waiter must hold the lock of the current file"
    for lock in taken:
        assert lock is not None
        lock.give_back()


def _inode(descriptor: Path) -> int | None:
    try:
        return descriptor.stat().st_ino
    except OSError:  # closed in the meantime
        return None
