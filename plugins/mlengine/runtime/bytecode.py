"""Compiled bytecode for a new environment, most of it taken from the one before.

Compiling TensorFlow's 5,000 files is most of what a new environment costs, and each replica would repeat it if it
were left out. A trainer whose own code changed needs the same libraries again: their files come from uv's cache as
they did the last time, so what was compiled from them is still right.

Python takes bytecode for that of a source with the same time and size. Two versions of a file can have both, so
bytecode is taken over only where the sources themselves are equal.
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
    """Link the donor's bytecode next to the same sources in ``root``; returns how many files. Fails silently.

    The donor's files are shared, never changed: a compiler writes a new file and renames it.
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
    """Whether two files have the same content. From uv's cache both are links to one file, which costs no reading."""
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


def compile_all(root: Path, seconds: float) -> None:
    """Compile what has no bytecode yet. A file that does not compile is compiled when it is imported."""
    site = next(root.glob(_SITE), None)
    if site is not None:
        # A pool of compilers costs more than it saves for a small trainer.
        jobs = "0" if sum(1 for _ in site.rglob("*.py")) > _FEW else "1"
        command = [str(root / "bin" / "python"), "-m", "compileall", "-q", "-q", "-j", jobs, str(site)]
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run(
                command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=seconds, check=False
            )
