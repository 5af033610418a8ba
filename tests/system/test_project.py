"""Runs five small jobs and the upload of a model on a real project; skipped if none is configured.

``make system PROJECT=… REGION=… BUCKET=gs://…`` runs it.

Uses the application default credentials, or those of the Airflow connection that ``MLENGINE_SYSTEM_CONNECTION`` names.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import yaml

from mlengine.backends.vertex.backend import VertexBackend
from mlengine.promotion.registries.vertex import VertexRegistry
from mlengine.storage.client import Storage
from tests.support.vertex_walk import IMAGE, Walk

PROJECT, REGION, BUCKET = (os.environ.get(f"MLENGINE_SYSTEM_{name}") for name in ("PROJECT", "REGION", "BUCKET"))
CAP_USD = 0.5  # for each of the five jobs


@pytest.mark.timeout(5400)
@pytest.mark.skipif(not (PROJECT and BUCKET), reason="no project: make system PROJECT=… BUCKET=gs://…")
def test_a_real_project(capsys: pytest.CaptureFixture[str]) -> None:
    connection = os.environ.get("MLENGINE_SYSTEM_CONNECTION")
    backend = VertexBackend(
        project=PROJECT,
        region=REGION or "us-central1",
        gcp_conn_id=connection,
        cost_cap_usd=CAP_USD,
        prices={"z9-standard-4": 0.25},  # a machine type that does not exist: the service must reject it
    )
    registry = VertexRegistry(image_uri=IMAGE, project=PROJECT, region=REGION or "us-central1", gcp_conn_id=connection)
    findings: dict[str, Any] = {}
    try:
        storage = Storage.from_connection(connection)
        Walk(backend, registry, storage, str(BUCKET).rstrip("/"), 1800.0, findings=findings).go()
    finally:
        with capsys.disabled():
            print(f"\nseen of the service:\n{yaml.safe_dump(findings, sort_keys=False)}")
