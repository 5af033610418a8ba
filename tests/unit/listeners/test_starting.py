"""What the listeners do when one of Airflow's components starts. Airflow's own ``Job`` calls them, as there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_START = """
import json, os, sys
sys.argv = ["airflow", sys.argv[1]]
from airflow.jobs.job import Job
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory
from airflow.listeners.listener import get_listener_manager
from airflow.sdk.execution_time.task_runner import TaskRunnerMarker
from mlengine.listeners import cleanup_process

spawned = []
cleanup_process._spawn = lambda folder: spawned.append(folder)
cleanup_process.start([cleanup_process.CancelRequest("k" * 40)])
spawned.clear()


def log_lines(path):
    for deferral in ("first", "second"):
        factory = TriggerLoggingFactory(log_path=path, ti=None)
        logger = factory([lambda logger, name, event: event["event"].encode()])
        for line in (1, 2):
            logger.info(f"{deferral} {line}")
        assert factory([]) is logger
        factory.close()
    with open(os.path.join(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"], path)) as file:
        return file.read().splitlines()


before = "google.cloud.storage" in sys.modules
get_listener_manager().hook.on_starting(component=TaskRunnerMarker())
assert not spawned, "a task that was forked from the component must not count as its start"
os.environ["AIRFLOW__LOGGING__REMOTE_LOGGING"] = "True"
Job()
remote = log_lines("remote/attempt=1.log.trigger.2.log")
os.environ["AIRFLOW__LOGGING__REMOTE_LOGGING"] = "False"
Job()
print()
print(json.dumps({
    "preloaded": [before, "google.cloud.storage" in sys.modules],
    "spawned": len(spawned),
    "remote": remote,
    "log": log_lines("local/attempt=1.log.trigger.2.log"),
}))
"""

FIRST, SECOND = ["first 1", "first 2"], ["second 1", "second 2"]


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ("scheduler", {"preloaded": [False, True], "spawned": 2, "remote": SECOND, "log": SECOND}),
        # With remote logging, Airflow appends each file to the remote log.
        ("triggerer", {"preloaded": [False, False], "spawned": 0, "remote": SECOND, "log": [*FIRST, *SECOND]}),
    ],
)
def test_each_component_does_its_own_work(component: str, expected: dict[str, Any], tmp_path: Path) -> None:
    """The scheduler preloads modules and handles requests; the triggerer keeps the logs of earlier deferrals."""
    done = subprocess.run(
        [sys.executable, "-c", _START, component],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[3] / "plugins"),
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{tmp_path}/logs",
        },
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
