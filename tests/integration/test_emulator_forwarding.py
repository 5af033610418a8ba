"""Tests that ML Engine jobs are forwarded to Vertex AI; a second emulator takes the place of Vertex AI."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.emulator.log_entries import all_entries
from mlengine.testing.emulator import running

pytestmark = pytest.mark.integration


def test_an_ml_engine_job_runs_on_vertex_ai(
    make_backend: Callable[..., LocalBackend], tmp_path: Path, actor: str, bucket: str
) -> None:
    with (
        running(tmp_path / "cloud", backend=make_backend()) as cloud,
        running(tmp_path / "old", backend=VertexBackend(project="test-project", endpoint=cloud.url)) as old,
    ):

        def call(verb: str, path: str, body: Any = None) -> dict[str, Any]:
            answer = requests.request(verb, f"{old.url}/v1/projects/test-project/{path}", json=body, timeout=30)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        fields = {"region": "europe-west1", "pythonModule": "tiny.task", "packageUris": [actor]}
        with_dir = {**fields, "jobDir": f"{bucket}/out", "args": ["--chief", "say('dir', args.job_dir)"]}
        call("POST", "jobs", {"jobId": "with_dir", "trainingInput": with_dir})
        without = {**fields, "args": ["--chief", "say('dir', args.job_dir)"]}
        call("POST", "jobs", {"jobId": "without_dir", "trainingInput": without})
        until = time.monotonic() + 60
        for name in ("with_dir", "without_dir"):
            while "endTime" not in (job := call("GET", f"jobs/{name}")):
                assert time.monotonic() < until, job
                time.sleep(0.2)
            assert job["state"] == "SUCCEEDED", job
        assert cloud.calls.count("CreateCustomJob") == 2
        records = {record.id: record for record in old.server.engine.store.all()}
        output = {
            name: [e["jsonPayload"]["message"] for e in all_entries(old.server.engine.journal, records[name])]
            for name in records
        }
        assert f"dir {bucket}/out" in output["with_dir"]
        assert "dir None" in output["without_dir"]
        assert all(record.handle and "/locations/europe-west1/" in record.handle.name for record in records.values())
