"""An Airflow home for tests that call ``dag.test()``: a SQLite database, and the DAGs of the project.

The pytest plugin :mod:`mlengine.testing.emulator` uses this module if ``AIRFLOW_HOME`` is not set. An Airflow that the
user has configured is not changed, and Airflow's components are not started, as ``dag.test()`` does not need them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from mlengine.core.errors import MlengineError

MIGRATE_SECONDS = 300
_DATABASE = "mlengine-migrated"  # its content is the version of Airflow that the database has
_home = pytest.StashKey[Path]()


def prepare(config: pytest.Config) -> None:
    """Set Airflow's environment variables for the session, before tests import Airflow.

    Nothing is done if ``AIRFLOW_HOME`` is set, or if Airflow has been imported and no longer reads the variables.
    """
    if os.environ.get("AIRFLOW_HOME") or "airflow" in sys.modules:
        return
    home = _directory(config)
    variables = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    dags = config.rootpath / "dags"
    if dags.is_dir():
        variables["AIRFLOW__CORE__DAGS_FOLDER"] = str(dags)
    for name, value in variables.items():
        if name not in os.environ:
            os.environ[name] = value
            config.add_cleanup(partial(os.environ.__delitem__, name))
    config.stash[_home] = home


def migrate(config: pytest.Config) -> None:
    """Create or upgrade the database of the home that :func:`prepare` created, if there is one.

    :raises MlengineError: ``airflow db migrate`` failed.
    """
    home = config.stash.get(_home, None)
    if home is None:
        return
    from airflow import __version__

    done = home / _DATABASE
    if done.exists() and done.read_text("utf-8") == __version__:
        return
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=MIGRATE_SECONDS, check=False)
    if process.returncode:
        raise MlengineError(
            f"airflow db migrate failed in {home}:\n{process.stderr[-3000:].strip()}",
            hint="remove that directory, or set AIRFLOW_HOME to an Airflow of your own",
        )
    done.write_text(__version__, "utf-8")


def _directory(config: pytest.Config) -> Path:
    """A directory in pytest's cache, one for each worker of pytest-xdist; a temporary one if the cache is disabled."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:
        folder = tempfile.TemporaryDirectory(prefix="mlengine-airflow-")
        config.add_cleanup(folder.cleanup)
        return Path(folder.name)
    return cache.mkdir(f"mlengine-airflow-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")
