"""The project and the region in a replica's environment: which source is used, and when a variable is omitted."""

from __future__ import annotations

import pytest

from mlengine.backends import Submission
from mlengine.backends.cloud_variables import cloud_variables, located
from mlengine.core.spec import TrainingSpec

PROJECT, REGION = "CLOUD_ML_PROJECT_ID", "CLOUD_ML_REGION"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "AIRFLOW__MLENGINE__VERTEX_PROJECT", "AIRFLOW__MLENGINE__VERTEX_REGION"):
        monkeypatch.delenv(name, raising=False)


def job(spec: TrainingSpec | None = None, project: str = "", region: str = "") -> Submission:
    return Submission("k", "j", 1, "gs://b/m/j", spec or TrainingSpec("t"), project=project, region=region)


def test_unknown_values_are_omitted() -> None:
    assert cloud_variables(located(job())) == {}


def test_the_settings_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of-credentials")
    assert cloud_variables(located(job())) == {PROJECT: "of-credentials"}
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_PROJECT", "configured")
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_REGION", "europe-west1")
    assert cloud_variables(located(job())) == {PROJECT: "configured", REGION: "europe-west1"}


def test_the_connection_precedes_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_PROJECT", "configured")
    extra = {"project": "of-connection", "region": "europe-west2"}
    assert cloud_variables(located(job(), extra)) == {PROJECT: "of-connection", REGION: "europe-west2"}


def test_the_job_precedes_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_REGION", "europe-west1")
    spec = TrainingSpec("t", region="us-central1")
    assert cloud_variables(located(job(spec))) == {REGION: "us-central1"}
    assert cloud_variables(located(job(spec, "123", "asia-east1"))) == {PROJECT: "123", REGION: "asia-east1"}


def test_a_variable_of_the_job_file_is_kept() -> None:
    spec = TrainingSpec("t", env={PROJECT: "mine"})
    assert cloud_variables(located(job(spec, "123", "asia-east1"))) == {REGION: "asia-east1"}
