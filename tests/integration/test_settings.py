"""Tests that settings have the same values with and without Airflow imported, and that Airflow reads them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlengine.settings import SETTINGS

pytestmark = pytest.mark.integration

_PRINT = """
import json, sys
if sys.argv[1] == "airflow":
    from airflow.configuration import conf
    import airflow.sdk
from mlengine import settings
found = {name: settings.get(name) for name in settings.SETTINGS}
own = {}
if sys.argv[1] == "airflow":
    own = {name: conf.get("mlengine", name, fallback=setting.default) for name, setting in settings.SETTINGS.items()}
from mlengine.backends.local.settings import Settings
local, imported = Settings.load().to_json(), "airflow" in sys.modules
print(json.dumps({"found": found, "airflow": own, "local": local, "imported": imported}))
"""


_COMMAND = """
import sys
from mlengine.cli import main
print(main(["models", "list"]), "airflow" in sys.modules)
"""


def run(home: Path, which: str, **env: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", _PRINT, which],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parents[2] / "plugins"),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_setting_does_not_depend_on_whether_airflow_is_imported(tmp_path: Path) -> None:
    special = {"bucket": "gs://$MY_BUCKET/a%%b", "local_state_dir": "~/state", "tensorboard_url": "http://h:1/?a=1"}
    config = {name: special.get(name, "9" if one.kind != "string" else f"of-{name}") for name, one in SETTINGS.items()}
    (tmp_path / "airflow.cfg").write_text(
        "[mlengine]\n" + "".join(f"{name} = {value}\n" for name, value in config.items() if name != "backend")
    )
    env = {"MY_BUCKET": "mine", "AIRFLOW__MLENGINE__LOCAL_MAX_RESTARTS": "7", "AIRFLOW__MLENGINE__VERTEX_REGION": ""}
    outside, inside = run(tmp_path, "", **env), run(tmp_path, "airflow", **env)
    assert not outside["imported"]
    assert inside["imported"]
    assert outside["found"] == inside["found"] == inside["airflow"]
    assert outside["local"] == inside["local"]
    assert outside["found"]["bucket"] == "gs://mine/a%b"
    assert outside["found"]["local_state_dir"] == str(tmp_path / "state")
    assert (outside["local"]["max_restarts"], outside["local"]["max_workers"]) == (7, 9)
    assert outside["found"]["backend"] == "local"


_NEW_FILE = """
import json
from airflow.configuration import write_default_airflow_configuration_if_needed
write_default_airflow_configuration_if_needed()
from mlengine import settings
print(json.dumps([name for name in settings.SETTINGS if not settings.find(name).is_default]))
"""


def test_defaults_that_airflow_writes_into_a_new_file_count_as_defaults(tmp_path: Path) -> None:
    """Otherwise, a wait in a worker would poll every 5 s in each new installation."""
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONFIG": str(tmp_path / "airflow.cfg")}
    env = {name: value for name, value in env.items() if not name.startswith("AIRFLOW__MLENGINE__")}
    command = [sys.executable, "-c", _NEW_FILE]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\npoll_interval_seconds = 5\n" in (tmp_path / "airflow.cfg").read_text()
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_command_line_reads_airflows_configuration(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text("[mlengine]\nbucket = gs:///no-name\n")
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND],
        env={
            "PATH": "/usr/bin:/bin",
            "AIRFLOW_HOME": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).parents[2] / "plugins"),
        },
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.stdout.split() == ["1", "False"], done.stderr
    assert "gs:///no-name" in done.stderr
