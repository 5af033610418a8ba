"""Each skip is reported with its reason, and CI fails on a skip that is not on the list."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.skips import FILE, allowed_reasons

ROOT = Path(__file__).parents[3]
SKIPPED = "test_it.py::test_skipped: "


@pytest.mark.parametrize(
    ("reason", "ci", "code", "line"),
    [
        ("gcloud is not installed", "true", 0, "gcloud is not installed"),
        ("no Chromium on this machine", "true", 1, "no Chromium on this machine (not allowed)"),
        ("no Chromium on this machine", "", 0, "no Chromium on this machine"),
    ],
)
def test_only_listed_reasons_pass_in_ci(tmp_path: Path, reason: str, ci: str, code: int, line: str) -> None:
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_runs(): pass\ndef test_skipped(): pytest.skip({reason!r})\n"
    )
    done = pytest_in(tmp_path, ci=ci)
    assert done.returncode == code, done.stdout + done.stderr
    assert (SKIPPED + "no Chromium" in done.stdout) == bool(code)
    assert (tmp_path / "skips").read_text() == f"{SKIPPED}{line}\n"


def test_workers_of_xdist_send_their_skips(tmp_path: Path) -> None:
    """The skips include modules that are skipped on import."""
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.skip(reason='a')\ndef test_skipped(): pass\n")
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_module', reason='b')\n")
    (tmp_path / "test_runs.py").write_text("def test_runs(): pass\n")
    done = pytest_in(tmp_path, "-n", "1", ci="true")
    assert done.returncode == 1, done.stdout + done.stderr
    said = sorted(set((tmp_path / "skips").read_text().splitlines()))
    assert said == [f"{SKIPPED}a (not allowed)", "test_whole.py: b (not allowed)"]


def pytest_in(folder: Path, *options: str, ci: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "scripts.skips", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        [*command, str(folder)],
        cwd=folder,
        env={**own, "CI": ci, "PYTHONPATH": str(ROOT), FILE: str(folder / "skips")},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )


def test_each_listed_reason_is_the_reason_of_a_test() -> None:
    """Reasons that no test gives any more must be removed from the list."""
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "trainer" / "tests").rglob("*.py")]
    calls = re.compile(r"""(?:skip\(|reason=|return )f?"([^"]+)""")
    reasons = {reason for path in files if path != Path(__file__) for reason in calls.findall(path.read_text())}
    unused = [allowed.pattern for allowed in allowed_reasons() if not any(map(allowed.search, reasons))]
    assert unused == []
