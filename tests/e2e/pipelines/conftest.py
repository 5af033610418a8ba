"""Provides the stack that the tests of pipelines share. Its trainers use Python alone, and train in a second.

The tests are about datasets, runs, champions and events rather than training. The stack stops after the folder's last
test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import stack as stacks
from scripts.bootstrap import ROOT
from scripts.stack import Stack

from tests.support.airflow_setup import SETTINGS, copy_database

DAGS = ROOT / "tests" / "support" / "pipelines_project" / "dags"


@pytest.fixture(scope="package")
def pipelines(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> Iterator[Stack]:
    """A stack without dataset versions. All its DAGs are paused, so that none starts before a test needs it."""
    before = dict(os.environ)
    env = {"AIRFLOW__MLENGINE__POLL_INTERVAL_SECONDS": "1", "AIRFLOW__MLENGINE__LOCAL_MAX_CONCURRENT_JOBS": "2"}
    settings = {**SETTINGS, "core.dags_are_paused_at_creation": "True"}
    data = tmp_path_factory.mktemp("pipelines")
    copy_database(airflow_database, data / "airflow")
    try:
        with stacks.running(data, versions=[], dags=DAGS, env=env, settings=settings) as stack:
            yield stack
    finally:
        os.environ.clear()
        os.environ.update(before)
