"""The lines of docs/service.md for testing a DAG of one's own, run as they stand there, with a new Airflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.bootstrap import ROOT

from mlengine.testing.gcs import GcsServer

pytestmark = pytest.mark.integration

MY_DAG = f"""
from airflow.sdk import DAG

from mlengine.task_groups import RetrainingTaskGroup

with DAG("my_dag", schedule=None) as dag:
    RetrainingTaskGroup(
        model="hello",
        trainer={str(ROOT / "examples" / "hello")!r},
        job_file={{"trainingInput": {{"pythonModule": "hello.task"}}}},
        validation_level="files",
    )
"""


def test_the_ten_lines_for_ci(tmp_path: Path, gcs_server: GcsServer) -> None:
    text = (ROOT / "docs" / "service.md").read_text("utf-8").partition("## Testing a DAG of your own in CI")[2]
    block = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    conftest, test = block.split("# test_my_dag.py\n")
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    for name, content in (("conftest.py", conftest), ("test_my_dag.py", test), ("dags/my_dag.py", MY_DAG)):
        path = tmp_path / "ci" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLENGINE", "PYTEST"))}
    env = {
        **own,
        **gcs_server.env,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "ci" / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "ci"), str(ROOT / "plugins")]),
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path / "ci", env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    run("airflow", "db", "migrate")
    assert "1 passed" in run("pytest", "-q", "-p", "no:cacheprovider")
