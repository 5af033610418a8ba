"""The package stage: its inputs, its result and its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from mlengine.connections import forget_connections
from mlengine.core.errors import PackageError
from mlengine.operators.package import PackageTrainerOperator
from mlengine.storage.client import Storage
from tests.support.log_recorder import LogRecorder


@pytest.fixture(autouse=True)
def _no_client_of_another_test() -> Iterator[None]:
    forget_connections()
    yield
    forget_connections()


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    root = tmp_path / "project" / "trainer"
    root.mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "task.py").write_text("print('hello')\n")
    (root / ".env").write_text("TOKEN=hunter2\n")
    return root


def operator(**fields: Any) -> PackageTrainerOperator:
    return PackageTrainerOperator(task_id="package", gcp_conn_id=None, **fields)


@pytest.mark.integration
def test_the_operator_packages_and_logs_excluded_files(
    storage: Storage, bucket: str, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = LogRecorder()
    log = logging.Logger("test")
    log.addHandler(recorder)
    monkeypatch.setattr(PackageTrainerOperator, "log", log)

    first = operator(source=str(trainer), bucket=bucket, module="trainer.task").execute({})
    assert json.loads(json.dumps(first)) == {
        "package_uris": [f"{bucket}/packages/trainer/{first['digest']}/trainer-0.0.0.tar.gz"],
        "digest": first["digest"],
        "name": "trainer",
        "version": "0.0.0",
        "reused": False,
    }
    assert storage.exists(first["package_uris"][0])
    text = "\n".join(recorder.lines)
    assert "excluded: .env (looks like a secret)" in text
    assert "2 files" in text
    assert "hunter2" not in text

    again = operator(source=trainer, bucket=bucket.removeprefix("gs://"), module="").execute({})
    assert again == {**first, "reused": True}
    assert "unchanged, already in the bucket" in recorder.lines[-3]


@pytest.mark.integration
def test_a_relative_source_is_relative_to_the_dags_file(bucket: str, trainer: Path) -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        task = operator(source="../project/trainer", bucket=bucket)
    dag.fileloc = str(trainer.parent.parent / "dags" / "d.py")
    (trainer.parent.parent / "dags").mkdir()
    assert task.execute({})["name"] == "trainer"


def test_an_invalid_source_fails_the_task_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="give a package dir"):
        operator(source=str(tmp_path / "absent"), bucket="gs://bucket").execute({})


def test_creating_the_operator_checks_nothing() -> None:
    """Template fields are not rendered yet when the operator is created, so nothing may be checked."""
    task = operator(source="{{ params.source }}", bucket="{{ params.bucket }}", requirements=["{{ x }}"])
    assert task.source == "{{ params.source }}"
    assert {"source", "bucket", "module", "requirements", "gcp_conn_id"} <= set(task.template_fields)
