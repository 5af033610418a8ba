"""Compiles the bytecode of a new environment, reusing that of an existing one.

Compiling TensorFlow's 5,000 files takes most of the time of a build; without it, each replica would compile them. When
only the trainer's own code changes, the libraries are the same files from uv's cache, and their bytecode stays valid.

Python identifies the source of bytecode by time and size. Two versions of a file can be equal in both, so bytecode is
reused only if the contents of the sources are equal.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import subprocess
from pathlib import Path

_SITE = "lib/python*/site-packages"
_FEW = 300


def seed(root: Path, donor: Path) -> int:
    """Hard-link the donor's bytecode for equal sources in ``root``; returns the number of files. Ignores errors.

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


def compile_all(root: Path, seconds: float) -> None:
    """Compile sources without bytecode. Files that fail to compile are skipped."""
    site = next(root.glob(_SITE), None)
    if site is not None:
        # For a few files a process pool takes longer than it saves.
        jobs = "0" if sum(1 for _ in site.rglob("*.py")) > _FEW else "1"
        command = [str(root / "bin" / "python"), "-m", "compileall", "-q", "-q", "-j", jobs, str(site)]
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run(
                command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=seconds, check=False
            )
