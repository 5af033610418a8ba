"""``make clean``: remove everything that make created, except ``.env`` and ``mlengine.env``.

It needs only Python, because it also removes the environment. It removes nothing else: a ``.venv`` that make did not
create stays, and so does everything else in ``dist``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".mlengine", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis")
STAMP = Path(".venv", ".mlengine-stamp")  # scripts/bootstrap.py writes it to the environments that it creates


def main() -> int:
    if _locked() or (alive := _alive()):
        if _locked():
            what, hint = "make run is up", "end it with Ctrl-C in its terminal, then make clean again"
        else:
            what = f"processes of this clone are alive: {', '.join(map(str, alive))}"
            hint = "make run, then Ctrl-C ends training jobs; kill others; then make clean again"
        sys.stderr.write(f"clean: {what}\n  What to do: {hint}\n")
        return 1
    folders = [*(ROOT / name for name in FOLDERS), *([ROOT / STAMP.parent] if (ROOT / STAMP).exists() else [])]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for wheel in ROOT.glob("dist/mlengine-*.whl"):
        wheel.unlink()
    if not any(path.name != ".gitignore" for path in ROOT.glob("dist/*")):  # .gitignore is from the build tool
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
    for folder in ROOT.rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)
    left = [folder for folder in folders if os.path.lexists(folder)]
    for folder in left:
        what = f"is a link to {folder.readlink()}" if folder.is_symlink() else "could not be deleted completely"
        hint = "delete that directory and the link" if folder.is_symlink() else "correct the owner and the permissions"
        sys.stderr.write(f"clean: {folder} {what}\n  What to do: {hint}; then make clean again\n")
    return 1 if left else 0


def _locked() -> bool:
    lock = ROOT / ".mlengine" / "data" / "lock"
    if not lock.exists():
        return False
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _alive() -> list[int]:
    """The processes that work in ``.mlengine``. Training jobs outlive the process that submitted them. Linux only."""
    found, folder = [], (ROOT / ".mlengine").resolve()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
