"""Bytecode of a new environment: modules that are compiled, and bytecode that is copied from an earlier environment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mlengine.runtime import bytecode
from mlengine.runtime.compile_imports import imports
from mlengine.runtime.file_lock import FileLock
from tests.support.local_jobs import until

SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def environment(root: Path, source: str, others: Mapping[str, str] | None = None) -> Path:
    """A minimal environment: an interpreter, and the package ``library`` whose file has a fixed mtime.

    :param others: further modules that belong to no package.
    """
    site = root / SITE
    info = site / "library-1.0.dist-info"
    info.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(sys.executable)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: library\nVersion: 1.0\n")
    (info / "RECORD").write_text("library.py,,\n")
    for name, text in {"library.py": source, **(others or {})}.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
        os.utime(site / name, (10**9, 10**9))
    return root


def compile_imported(root: Path, packages: Sequence[str], seconds: float = 60.0) -> None:
    with FileLock.take(root.with_name(f"{root.name}.lock")) or pytest.fail("the lock is held") as lock:
        bytecode.compile_imported(root, packages, seconds, lock)


def compiled(root: Path) -> list[str]:
    """The modules with bytecode."""
    return sorted(path.name.partition(".")[0] for path in (root / SITE).rglob("*.pyc"))


def value(root: Path) -> str:
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(root / SITE)!r}); import library"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_bytecode_is_reused_for_equal_sources(tmp_path: Path) -> None:
    donor = environment(tmp_path / "donor", "print(1)")
    compile_imported(donor, ["library"])
    root = environment(tmp_path / "root", "print(1)")
    assert bytecode.seed(root, donor) == 1
    assert value(root) == "1"


def test_bytecode_is_not_reused_for_a_source_of_equal_time_and_size(tmp_path: Path) -> None:
    donor = environment(tmp_path / "donor", "print(1)")
    compile_imported(donor, ["library"])
    root = environment(tmp_path / "root", "print(2)")
    assert bytecode.seed(root, donor) == 0
    compile_imported(root, ["library"])
    assert value(root) == "2"


def test_a_donor_that_is_being_removed_is_ignored(tmp_path: Path) -> None:
    donor = environment(tmp_path / "donor", "print(1)")
    compile_imported(donor, ["library"])
    (donor / SITE / "library.py").unlink()
    assert bytecode.seed(environment(tmp_path / "root", "print(1)"), donor) == 0


def test_only_imported_modules_are_compiled(tmp_path: Path) -> None:
    modules = {
        "direct.py": "import indirect\ndef never_called():\n    import unused",
        "indirect.py": "raise RuntimeError('this must not run')",
        "late.py": "",
        "unused.py": "",
        "broken.py": "def",
    }
    root = environment(tmp_path, "import direct, broken\ndef main():\n    import late", modules)
    compile_imported(root, ["library"])
    assert compiled(root) == ["direct", "indirect", "late", "library"]


def test_an_environment_without_the_package_is_ignored(tmp_path: Path) -> None:
    root = environment(tmp_path, "print(1)")
    compile_imported(root, ["another"])
    assert compiled(root) == []


def test_names_of_imported_packages_are_found() -> None:
    source = """
import a.b
from . import sibling
from ..upper.module import name
from .star import *
importlib.import_module("lazy.module")
"""
    code = compile(source, "m", "exec")
    names = set(imports(code, "top.package.m", is_package=False))
    assert {"a", "a.b", "top.package.sibling", "top.upper.module", "top.upper.module.name"} <= names
    assert {"top.package.star", "lazy", "lazy.module"} <= names
    assert "top.sibling" in set(imports(code, "top", is_package=True))


def test_the_lock_is_held_until_the_last_process_has_ended(tmp_path: Path) -> None:
    """The builder may die while its child is still writing."""
    root, pid = environment(tmp_path / "root", "print(1)"), tmp_path / "pid"
    python = root / "bin" / "python"
    python.unlink()
    python.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pid}\nwait\n")
    python.chmod(0o755)
    path = tmp_path / "lock"
    lock = FileLock.take(path) or pytest.fail("the lock is held")
    builder = threading.Thread(target=bytecode.compile_imported, args=(root, ["library"], 1.0, lock))
    builder.start()
    until(lambda: pid.exists() and pid.read_text(), "the start of the child")
    lock.give_back()
    assert FileLock.take(path) is None, "the child holds it"
    builder.join()
    assert FileLock.take(path, wait=5.0) is not None, "the child's own child is killed too"
