"""Provides the Airflow that the tests of waits and jobs in this folder share. It stops after the folder's last test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlengine.testing import gcs
from tests.support.live_airflow import LiveAirflow, running


@pytest.fixture(scope="package")
def live_airflow(tmp_path_factory: pytest.TempPathFactory, gcs_server: gcs.GcsServer) -> Iterator[LiveAirflow]:
    """An Airflow whose jobs are controlled by the test."""
    with running(tmp_path_factory.mktemp("waits"), gcs_server) as started:
        yield started
