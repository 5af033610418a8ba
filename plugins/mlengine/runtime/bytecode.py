"""Compiles the bytecode of a new environment, reusing that of an existing one.

Compiling TensorFlow takes most of the time of a build; without this step, all replicas would compile it at the same
time. If only the trainer's code changes, the libraries are the same files from uv's cache, and their bytecode stays
valid.

Python identifies the source of bytecode by time and size. Two versions of a file can be equal in both, so bytecode is
reused only if the contents of the sources are equal.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mlengine.runtime import compile_imports
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.uv import kill_group

_SITE = "lib/python*/site-packages"


def seed(root: Path, donor: Path) -> int:
    """Hard-link the donor's bytecode for equal sources in ``root``, and return the number of files. Ignore errors.

    Shared files are safe: Python writes bytecode to a new file and renames it.
    """
    ours, theirs = next(root.glob(_SITE), None), next(donor.glob(_SITE), None)
    if ours is None or theirs is None or ours.parent.name != theirs.parent.name:
        return 0
    count = 0
    for cache, _, files in os.walk(theirs):
        if not cache.endswith("__pycache__"):
            continue
        target = ours / Path(cache).relative_to(theirs)
        if not target.parent.is_dir():
            continue
        for name in files:
            module = f"{name.partition('.')[0]}.py"
            with contextlib.suppress(OSError):
                if _equal(target.parent / module, Path(cache).parent / module):
                    target.mkdir(exist_ok=True)
                    os.link(Path(cache, name), target / name)
                    count += 1
    return count


def _equal(one: Path, other: Path) -> bool:
    """Whether two files have the same content. Files from uv's cache are links to one file and need not be read."""
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


def compile_imported(root: Path, packages: Sequence[str], seconds: float, lock: FileLock) -> None:
    """Compile packages and all modules that they import, unless they have bytecode. Errors are ignored.

    :param packages: names of packages that are installed in ``root``.
    :param seconds: the time limit, after which all processes are killed, and the rest is not compiled.
    :param lock: the lock of the environment, which the compiler inherits: if this process dies, no other process may
        remove or build the environment while bytecode is still written.
    """
    site = next(root.glob(_SITE), None)
    if site is not None:
        command = [str(root / "bin" / "python"), "-I", compile_imports.__file__, str(site), *packages]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            process = subprocess.Popen(
                command,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
            try:
                process.wait(seconds)
            finally:
                # The workers are killed, too: they would keep the lock.
                kill_group(process.pid)
                process.wait()
