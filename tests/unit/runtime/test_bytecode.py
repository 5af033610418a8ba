"""Bytecode that an environment takes over from the one before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlengine.runtime import bytecode

SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def environment(root: Path, source: str) -> Path:
    """As much of one as this needs: an interpreter, and a library whose file has a fixed time."""
    site = root / SITE
    site.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(sys.executable)
    (site / "library.py").write_text(source)
    os.utime(site / "library.py", (10**9, 10**9))
    return root


def value(root: Path) -> str:
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(root / SITE)!r}); import library"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_taken_over_for_equal_sources(tmp_path: Path) -> None:
    donor = environment(tmp_path / "donor", "print(1)")
    bytecode.compile_all(donor, 60.0)
    root = environment(tmp_path / "root", "print(1)")
    assert bytecode.seed(root, donor) == 1
    assert value(root) == "1"


def test_it_is_not_for_another_source_of_the_same_time_and_size(tmp_path: Path) -> None:
    donor = environment(tmp_path / "donor", "print(1)")
    bytecode.compile_all(donor, 60.0)
    root = environment(tmp_path / "root", "print(2)")
    assert bytecode.seed(root, donor) == 0
    bytecode.compile_all(root, 60.0)
    assert value(root) == "2"


def test_a_donor_that_is_being_removed_is_no_error(tmp_path: Path) -> None:
    donor = environment(tmp_path / "donor", "print(1)")
    bytecode.compile_all(donor, 60.0)
    (donor / SITE / "library.py").unlink()
    assert bytecode.seed(environment(tmp_path / "root", "print(1)"), donor) == 0
