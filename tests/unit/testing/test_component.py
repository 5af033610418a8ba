"""The program that starts one of Airflow's components."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mlengine.testing import component

_AIRFLOW = """
import gc, json, sys

def main():
    print(json.dumps([gc.get_threshold()[0], sys.argv]))
    sys.exit(3)
"""


def test_airflow_gets_the_arguments_and_a_less_eager_garbage_collector(tmp_path: Path) -> None:
    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow" / "__init__.py").touch()
    (tmp_path / "airflow" / "__main__.py").write_text(_AIRFLOW)
    done = subprocess.run(
        [sys.executable, "-P", component.__file__, "scheduler", "--skip-serve-logs"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout) == [10_000, ["airflow", "scheduler", "--skip-serve-logs"]]
