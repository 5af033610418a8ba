"""The Airflow home that the pytest plugin prepares, in a separate pytest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlengine

SHOW = """
import json, os, sys

def test_show():
    print("\\nENV", json.dumps({name: value for name, value in os.environ.items() if name.startswith("AIRFLOW")}))
"""


def variables(project: Path, *options: str, **env: str) -> dict[str, str]:
    """Airflow's variables in a test of ``project``."""
    (project / "test_show.py").write_text(SHOW)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    own |= {"PYTHONPATH": str(Path(mlengine.__file__).parents[1]), **env}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-q", "-p", "mlengine.testing.emulator", *options],
        cwd=project,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("ENV "))
    found: dict[str, str] = json.loads(line.removeprefix("ENV "))
    return found


def test_a_project_gets_an_airflow_home_in_pytests_cache(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    assert variables(tmp_path) == {
        "AIRFLOW_HOME": str(tmp_path / ".pytest_cache" / "d" / "mlengine-airflow-main"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def test_the_home_is_temporary_without_a_cache(tmp_path: Path) -> None:
    home = Path(variables(tmp_path, "-p", "no:cacheprovider")["AIRFLOW_HOME"])
    assert home.name.startswith("mlengine-airflow-")
    assert not home.exists(), "the temporary home must be removed at the end"


def test_each_worker_of_xdist_has_a_home(tmp_path: Path) -> None:
    assert variables(tmp_path, PYTEST_XDIST_WORKER="gw1")["AIRFLOW_HOME"].endswith("/mlengine-airflow-gw1")


def test_settings_of_the_user_are_kept(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    assert variables(tmp_path, AIRFLOW_HOME="/mine") == {"AIRFLOW_HOME": "/mine"}
    assert variables(tmp_path, AIRFLOW__CORE__DAGS_FOLDER="/d")["AIRFLOW__CORE__DAGS_FOLDER"] == "/d"
