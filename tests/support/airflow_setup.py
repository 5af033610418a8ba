"""What the tests' Airflows have in common, so that they use less CPU time: settings, and a migrated database to copy.

A migration takes five seconds of CPU time. The database is created once per test session, in the same way as
:mod:`mlengine.testing.airflow` creates every database.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from mlengine.testing.airflow import DATABASE_FILES, Airflow, migrate
from mlengine.testing.airflow_home import AirflowConfig, prepare

SETTINGS = {
    # The DAG files do not change; Airflow parses one immediately when a test touches it.
    "dag_processor.min_file_process_interval": "600",
}


def session_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home with the migrated database, which all worker processes of the session share."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "airflow-database"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = AirflowConfig(home=home, dags=home / "dags")
        airflow = Airflow(config, port=0, password=prepare(config, 0))
        airflow.log_file("any").parent.mkdir(exist_ok=True)
        migrate(airflow)
    return home


def copy_database(source: Path, home: Path) -> None:
    """Copy the database in the home ``source`` to ``home``, which has none yet."""
    home.mkdir(parents=True, mode=0o700)
    for name in DATABASE_FILES:
        shutil.copyfile(source / name, home / name)
