"""Provides the Airflow that the tests of waits and jobs in this folder share. It stops after the folder's last test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlengine.testing import gcs
from tests.support.airflow_setup import copy_database
from tests.support.live_airflow import LiveAirflow, running


@pytest.fixture(scope="package")
def live_airflow(
    tmp_path_factory: pytest.TempPathFactory, gcs_server: gcs.GcsServer, airflow_database: Path
) -> Iterator[LiveAirflow]:
    """An Airflow whose jobs are controlled by the test."""
    root = tmp_path_factory.mktemp("waits")
    copy_database(airflow_database, root / "airflow")
    with running(root, gcs_server) as started:
        yield started
