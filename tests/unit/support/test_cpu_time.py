"""The summary of CPU time by module."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BURN = "import time\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass\n"
# One child that has exited, and one that is still running and is stopped by a session fixture.
ENDED = f"import subprocess, sys\ndef test_it(): subprocess.run([sys.executable, '-c', {BURN!r}])\n"
RUNNING = f"""
import subprocess, sys
import pytest
@pytest.fixture(scope="session")
def server():
    command = [sys.executable, "-c", {BURN!r} + "print(flush=True); time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.kill()
def test_it(server): pass
"""


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_children_count_running_or_not(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "test_a.py").write_text(ENDED)
    (tmp_path / "test_b.py").write_text(RUNNING)
    (tmp_path / "test_c.py").write_text("def test_it(): pass\n")
    (tmp_path / "conftest.py").write_text("from tests.support import cpu_time\ncpu_time._SHORT = 0.0\n")
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.cpu_time"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(tmp_path)],
        cwd=tmp_path,
        env={**own, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: float(seconds) for seconds, name in re.findall(r"([\d.]+) s  (test_\w)\.py", done.stdout)}
    assert found["test_a"] >= 1.0, done.stdout
    assert found["test_b"] >= 1.0, done.stdout
    assert found["test_c"] < 0.5, done.stdout
