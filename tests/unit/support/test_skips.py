"""CI fails on a skip that is not on the list."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("gcloud is not installed", "true", 0),
        ("no Chromium on this machine", "true", 1),
        ("no Chromium on this machine", "", 0),
    ],
)
def test_only_listed_reasons_pass_in_ci(tmp_path: Path, reason: str, ci: str, code: int) -> None:
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_runs(): pass\ndef test_skipped(): pytest.skip({reason!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.skips", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("test_it.py::test_skipped: no Chromium" in done.stdout) == bool(code)
