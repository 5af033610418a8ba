"""A triggerer that stops uploads the logs of the triggers that still run, if remote logging is enabled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlengine.storage.client import Storage
from mlengine.testing.airflow_home import emulator_connection

pytestmark = pytest.mark.integration

# A triggerer's main process, without its triggers. The connection of the remote logs is in the database.
_SCRIPT = """
import os, sys
sys.argv = ["airflow", "triggerer"]
from airflow import settings
from airflow.jobs.job import Job
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.connection import Connection
from airflow.utils.session import create_session

import_all_models()
Base.metadata.create_all(settings.engine)
with create_session(scoped=False) as session:
    session.add(Connection(conn_id="logs", conn_type="google_cloud_platform", extra=os.environ["EXTRA"]))
job = Job()
for name in ("ended", "running", "quiet"):
    factory = TriggerLoggingFactory(log_path=f"{name}/attempt=1.log.trigger.7.log", ti=None)
    if name != "quiet":
        logger = factory([lambda logger, name, event: event["event"].encode()])
        logger.info("one")
        logger.info("two")
    if name == "ended":  # Airflow has uploaded its log then
        factory.close()
job.complete_execution()
"""


def test_the_logs_of_running_triggers_are_uploaded(storage: Storage, bucket: str, tmp_path: Path) -> None:
    extra = json.loads(emulator_connection()["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"])["extra"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    root = Path(__file__).parents[2]
    env |= {
        "PYTHONPATH": f"{root}:{root / 'plugins'}",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{tmp_path}/logs",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tests.support.emulator_remote_logs.LOGGING_CONFIG",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"{bucket}/logs",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "logs",
        "EXTRA": json.dumps(extra),
    }
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=env, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr
    name = "attempt=1.log.trigger.7.log"
    found = [blob.name for blob in storage.client.list_blobs(bucket.removeprefix("gs://"))]
    assert found == [f"logs/running/{name}"], done.stdout
    assert storage.read(f"{bucket}/{found[0]}") == b"one\ntwo\n"
