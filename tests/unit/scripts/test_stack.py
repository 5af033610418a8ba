"""env.sh, the file with which a terminal uses the stack of ``make run``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts import stack

from mlengine.testing.gcs import GcsServer


def test_env_sh_has_every_variable_of_the_storage_server(tmp_path: Path) -> None:
    process: Any = None
    server = GcsServer(process, "http://127.0.0.1:1", None)
    config = SimpleNamespace(home=tmp_path)
    env = {**server.env, "SECRET": "s", "AIRFLOW__MLENGINE__BUCKET": "gs://b"}
    airflow = SimpleNamespace(env=env, config=config, url="u", user="admin", password="p")
    running: Any = SimpleNamespace(airflow=airflow, server=server, data=tmp_path)
    script = f". {stack.write_shell(running)}; env"
    shown = subprocess.run(["env", "-i", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    assert server.env.items() <= found.items()
    assert found["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] == "false"
    assert found["AIRFLOW__MLENGINE__BUCKET"] == "gs://b"
    assert "SECRET" not in found
