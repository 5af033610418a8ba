"""The stack of ``make run``: env.sh for use in a terminal, and an interrupted start."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_during_the_start_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    stopped: list[str] = []

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def stop_airflow() -> None:
        os.kill(os.getpid(), number)
        stopped.append("airflow")

    server = SimpleNamespace(env={}, url="u", stop=lambda: stopped.append("server"), process=SimpleNamespace(pid=0))
    airflow = SimpleNamespace(stop=stop_airflow, url="u", processes={})
    monkeypatch.setattr("mlengine.testing.gcs.start", lambda *_, **__: server)
    monkeypatch.setattr("mlengine.testing.airflow.start", lambda *_, **__: airflow)
    monkeypatch.setattr("mlengine.testing.airflow.wait_until_healthy", interrupt)
    for name in ("write_shell", "_load"):
        monkeypatch.setattr(stack, name, lambda *_: None)
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            stack.start(tmp_path)
        assert signal.getsignal(number) is interrupt, "the signal must be ignored only during the clean-up"
    finally:
        signal.signal(number, before)
    assert stopped == ["airflow", "server"]
