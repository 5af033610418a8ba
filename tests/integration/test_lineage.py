"""Tests the OpenLineage events of retraining runs, as the provider's listener writes them with its file transport."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.datasets.register import add
from mlengine.storage.client import Storage
from tests.support.airflow_setup import copy_database

pytestmark = pytest.mark.integration
DAGS = Path(__file__).parents[1] / "support" / "lineage_dags"
# For three runs that train and validate.
SECONDS = 1500
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Runs:
    """The last event of each task, by run in order: a good model, a bad one, and the good one again."""

    tasks: list[dict[str, Event]]


def people(folder: Path) -> Path:
    """A dataset version with two splits. People above 48 have left."""
    for split, first, rows in (("train", 0, 400), ("heldout", 400, 200)):
        lines = [f"p{row},{18 + row * 7 % 60},{int(18 + row * 7 % 60 > 48)}" for row in range(first, first + rows)]
        (folder / split).mkdir(parents=True)
        (folder / split / "rows.csv").write_text("\n".join(["id,age,left", *lines]) + "\n")
    return folder


@pytest.fixture
def runs(
    storage: Storage, bucket: str, make_backend: Any, gcs_server: Any, tmp_path: Path, airflow_database: Path
) -> Runs:
    backend: LocalBackend = make_backend()
    add(
        storage,
        bucket,
        "people",
        "2026-11-01",
        people(tmp_path / "people"),
        target="left",
        key="id",
        task="binary",
        license="CC0-1.0",
        source="made for this test",
        allow=("duplicates",),
        reason="ages are integers",
    )
    events = tmp_path / "events.jsonl"
    env = {
        **os.environ,
        **gcs_server.env,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__MLENGINE__BACKEND": "local",
        "AIRFLOW__MLENGINE__BUCKET": bucket,
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(
            {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}
        ),
        "AIRFLOW__MLENGINE__LOCAL_STATE_DIR": str(backend.state_dir),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(events), "append": True}),
    }
    copy_database(airflow_database, tmp_path / "airflow")
    script = [sys.executable, str(DAGS / "census_dag.py"), "no", "yes", "no"]
    done = subprocess.run(script, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-5000:]
    return Runs(_by_run([json.loads(line) for line in events.read_text().splitlines()]))


def _by_run(events: list[Event]) -> list[dict[str, Event]]:
    runs: dict[str, dict[str, Event]] = {}
    for event in events:
        task = event["job"]["name"].removeprefix("census.retrain.")
        if event["eventType"] in {"COMPLETE", "FAIL"} and task != "census":
            runs.setdefault(event["run"]["facets"]["parent"]["run"]["runId"], {})[task] = event
    return list(runs.values())


def named(datasets: list[Mapping[str, Any]]) -> list[str]:
    return [f"{dataset['namespace']}/{dataset['name']}" for dataset in datasets]


def test_runs_emit_their_lineage(runs: Runs, bucket: str) -> None:
    first, rejected, again = runs.tasks
    _good_model(first, bucket)
    _bad_model(rejected, first, bucket)
    _same_inputs(again, first, bucket)


def _good_model(tasks: dict[str, Event], bucket: str) -> None:
    version = f"{bucket}/datasets/people/2026-11-01"
    (dataset,) = tasks["dataset"]["inputs"]
    assert named([dataset]) == [version]
    columns = [
        (field["name"], field["type"], field.get("description")) for field in dataset["facets"]["schema"]["fields"]
    ]
    assert columns == [("id", "string", "key"), ("age", "int64", None), ("left", "int64", "target")]
    assert dataset["facets"]["version"]["datasetVersion"] == "2026-11-01"
    metrics = dataset["inputFacets"]["dataQualityMetrics"]
    assert metrics["rowCount"] == 400
    assert (metrics["columnMetrics"]["age"]["min"], metrics["columnMetrics"]["age"]["max"]) == (18, 77)
    checks = dataset["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert len(checks) > 1
    failed = [(check["assertion"], check["severity"]) for check in checks if not check["success"]]
    assert failed == [("duplicates", "warn")]

    packages = named(tasks["package"]["outputs"])
    assert [package.startswith(f"{bucket}/packages/census/") for package in packages] == [True]
    assert named(tasks["submit"]["inputs"]) == named(tasks["wait"]["inputs"]) == [version, *packages]
    assert tasks["submit"]["run"]["facets"]["mlengine_job"]["decision"] == "fresh_submit"

    (model,) = named(tasks["wait"]["outputs"])
    assert model.startswith(f"{bucket}/census/census_2026_11_01_")
    assert model.endswith("/model")
    assert named(tasks["validate"]["inputs"]) == [model, version]
    validation = tasks["validate"]["run"]["facets"]["mlengine_validation"]
    assert (validation["verdict"], validation["mainMetric"]) == ("first", "roc_auc")
    assert validation["metrics"]["roc_auc"] == 1
    assert tasks["validate"]["inputs"][0]["facets"]["mlengine_validation"]["verdict"] == "first"

    (champion,) = tasks["publish"]["outputs"]
    assert named([champion]) == [f"{bucket}/census/champion.json"]
    assert champion["facets"]["version"]["datasetVersion"] == "1"
    assert champion["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    assert f"{champion['facets']['mlengine_champion']['modelUri']}".rstrip("/") == model
    assert named(tasks["publish"]["inputs"]) == [model, *named(tasks["validate"]["outputs"])]


def _bad_model(tasks: dict[str, Event], first: dict[str, Event], bucket: str) -> None:
    validation = tasks["validate"]["run"]["facets"]["mlengine_validation"]
    assert validation["verdict"] == "rejected"
    assert validation["reasons"]
    assert validation["metrics"]["roc_auc"] == 0
    model, _, champion = tasks["validate"]["inputs"]
    assert named([model]) == named(tasks["wait"]["outputs"])
    assert named([champion]) == named(first["wait"]["outputs"])
    failed = [check for check in model["inputFacets"]["dataQualityAssertions"]["assertions"] if not check["success"]]
    assert "roc_auc" in {check["assertion"] for check in failed}
    assert tasks.get("publish", {}).get("outputs", []) == []


def _same_inputs(tasks: dict[str, Event], first: dict[str, Event], bucket: str) -> None:
    assert tasks["wait"]["run"]["facets"]["mlengine_job"]["decision"] == "reused"
    assert tasks["wait"]["outputs"] == []
    assert named(tasks["wait"]["inputs"]) == named(first["wait"]["outputs"])
    assert tasks["publish"]["run"]["facets"]["mlengine_publication"]["decision"] == "already_champion"
    assert named(tasks["publish"]["outputs"]) == [f"{bucket}/census/champion.json"]
