"""The inputs and outputs of each task, in cases that the integration test does not cover."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.openlineage.extractors import OperatorLineage
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.utils.state import TaskInstanceState

from mlengine.champions.history import Action, Champion
from mlengine.core.job import Decision as Submission
from mlengine.core.job import JobHandle, JobRecord
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Decision, Verdict
from mlengine.operators.lineage import tasks
from mlengine.promotion.outcome import Outcome, PublishDecision
from mlengine.promotion.registries import Registered
from mlengine.promotion.registries.follow import Registration
from mlengine.validation.report import Report
from tests.support import operators

BUCKET = "gs://bkt/prefix"
JOB_DIR = f"{BUCKET}/m/j1"
HANDLE = JobHandle("local", "host:j1-1", "j1", 1, JOB_DIR)
CHAMPION = Champion(
    model="m",
    serial=7,
    action=Action.PUBLISHED,
    job_id="j1",
    job_dir=JOB_DIR,
    model_uri=f"{JOB_DIR}/model",
    verdict="accepted",
    metric="roc_auc",
    metric_value=0.9,
    by="dag",
    why="better",
    at="2026-11-01T10:00:00+00:00",
    previous=6,
)
REPORT = Report(
    model="m",
    job_id="j1",
    job_dir=JOB_DIR,
    model_uri=f"{JOB_DIR}/model",
    verdict=Verdict(Decision.ACCEPTED, ("fine",)),
    thresholds=Thresholds(),
    checks="files",
    created="2026-11-01T10:00:00+00:00",
)


def names(datasets: list[Any]) -> list[str]:
    assert {dataset.namespace for dataset in datasets} <= {"gs://bkt"}
    return [dataset.name for dataset in datasets]


def run_facet(lineage: OperatorLineage[Any, Any], name: str) -> Any:
    return lineage.run_facets[name]


def test_packages_of_a_job_file_are_inputs() -> None:
    record = JobRecord("k", "j1", "m", "local", spec={"package_uris": ["gs://bkt/p/t.tar.gz"]})
    lineage = tasks.trained(HANDLE, record)
    assert names(lineage.inputs) == ["p/t.tar.gz"]
    assert "version" not in lineage.inputs[0].facets
    assert names(lineage.outputs) == ["prefix/m/j1/model"]


def test_a_submission_without_inputs_has_no_inputs_in_its_lineage() -> None:
    lineage = tasks.submitted(HANDLE, Submission.REATTACHED, {}, ())
    assert (lineage.inputs, lineage.outputs) == ([], [])
    assert run_facet(lineage, "mlengine_job").decision == "reattached"
    assert run_facet(lineage, "externalQuery").externalQueryId == "host:j1-1"


def test_a_model_that_was_not_run_has_no_metrics() -> None:
    lineage = tasks.validated(REPORT)
    assert names(lineage.inputs) == ["prefix/m/j1/model"]
    facet = run_facet(lineage, "mlengine_validation")
    assert (facet.verdict, facet.metrics, facet.mainMetric) == ("accepted", {}, None)


def test_the_champion_that_a_model_was_compared_with_is_an_input() -> None:
    lineage = tasks.validated(replace(REPORT, champion={"job_id": "j0", "model_uri": f"{BUCKET}/m/j0/model"}))
    assert names(lineage.inputs) == ["prefix/m/j1/model", "prefix/m/j0/model"]
    assert run_facet(lineage, "mlengine_validation").championJobId == "j0"


def test_a_new_champion_replaces_the_old_one() -> None:
    lineage = tasks.published(BUCKET, REPORT, Outcome(PublishDecision.PUBLISHED, "better", CHAMPION, swapped=True))
    (champion,) = lineage.outputs
    assert champion.name == "prefix/m/champion.json"
    assert champion.facets["version"].datasetVersion == "7"
    assert champion.facets["lifecycleStateChange"].lifecycleStateChange.value == "OVERWRITE"


@pytest.mark.parametrize("decision", [PublishDecision.REJECTED, PublishDecision.WORSE, PublishDecision.OLDER_DATASET])
def test_a_model_that_is_not_published_writes_no_champion(decision: PublishDecision) -> None:
    lineage = tasks.published(BUCKET, REPORT, Outcome(decision, "why", CHAMPION))
    assert lineage.outputs == []
    facet = run_facet(lineage, "mlengine_publication")
    assert (facet.published, facet.decision, facet.championSerial) == (False, decision.value, 7)


def test_registered_versions_are_in_the_run_facet() -> None:
    lineage = tasks.registered(BUCKET, Registration(CHAMPION, (Registered("mlflow", "m", "3", created=True),)))
    assert names(lineage.inputs) == ["prefix/m/champion.json"]
    assert run_facet(lineage, "mlengine_registration").versions[0]["version"] == "3"


@pytest.mark.parametrize("state", [TaskInstanceState.RUNNING, TaskInstanceState.FAILED, TaskInstanceState.SKIPPED])
@pytest.mark.parametrize("stage", list(operators.NEEDED))
def test_a_task_that_did_nothing_has_no_lineage(stage: str, state: TaskInstanceState) -> None:
    """The provider also asks operators that failed before they read anything."""
    run: Any = type("Run", (), {"run_id": "r"})
    lineage = ExtractorManager().extract_metadata(run, operators.make(stage), state, None)
    assert (lineage.inputs, lineage.outputs, lineage.run_facets) == ([], [], {})
