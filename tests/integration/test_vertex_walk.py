"""Tests the walk that ``make system`` runs on a real project, with the emulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.promotion.registries.vertex import VertexRegistry
from mlengine.storage.client import Storage
from mlengine.testing.emulator import running
from tests.support.vertex_walk import IMAGE, Walk

pytestmark = pytest.mark.integration


def test_the_walk_succeeds_on_the_emulator(
    make_backend: Callable[..., LocalBackend], storage: Storage, bucket: str, tmp_path: Path
) -> None:
    with running(tmp_path / "emulator", backend=make_backend(max_concurrent_jobs=5, max_chief_restarts=0)) as service:
        service.script("CreateCustomJob", "out-of-memory", skip=4)
        service.script("CreateCustomJob", "late-error", skip=1)
        backend = VertexBackend(**service.settings)
        registry = VertexRegistry(**service.settings, image_uri=IMAGE)
        findings = Walk(backend, registry, storage, bucket, 120.0, timeout=2, memory_gib=0.0).go()
    assert len(findings["seconds until a created job is listed by its label"]) == 5
    assert findings["raw end of job slow"]["state"] == "JOB_STATE_CANCELLED"
    assert findings["raw end of job memory"]["error"]["code"] == 8
    assert findings["raw end of job bad"]["error"]["code"] == 3
    assert "non-zero status of 2" in findings["words of a trainer's failure"]
    assert findings["console"] is None
    assert "/models/mlengine-system-" in findings["the uploaded model, to be deleted by hand"]
