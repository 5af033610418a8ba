"""Tests the CI files and commands of docs/emulator.md in a new project that has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.bootstrap import ROOT

pytestmark = pytest.mark.integration

# Variables of this test run that a new project does not have.
_OWN = ("AIRFLOW", "_AIRFLOW", "MLENGINE", "PYTEST", "STORAGE_EMULATOR", "GOOGLE_", "GCSFS", "CLOUDSDK_")


def section() -> str:
    text = (ROOT / "docs" / "emulator.md").read_text("utf-8")
    return text.partition("## Test a DAG in CI\n")[2].partition("\n## ")[0]


def test_the_files_and_commands_of_the_page_work(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "hello", project / "hello")
    for name, content in re.findall(r"```python\n# (\S+)\n(.*?)```", section(), re.DOTALL):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    (commands,) = re.findall(r"```sh\n(.*?)```", section(), re.DOTALL)
    install, *others = commands.splitlines()
    assert install == "pip install 'mlengine[testing]'"
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    # Replaces the page's first command, which installs mlengine.
    env |= {"PYTHONPATH": str(ROOT / "plugins"), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    home = Path.home() / "airflow"
    before = home.exists()
    done = subprocess.run(
        ["sh", "-ec", "\n".join(others)], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "1 passed" in done.stdout
    assert home.exists() == before, "the user's Airflow must not be changed"
