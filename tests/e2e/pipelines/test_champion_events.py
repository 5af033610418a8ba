"""Tests champions in a real Airflow: asset events for models named by templates and mapped tasks, one per change.

Also tests that a backfill of an older run does not replace the champion of a newer run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from scripts.stack import Stack

from mlengine.champions.history import current
from mlengine.core.errors import AirflowError
from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import AirflowApi, DagRun
from mlengine.validation.environment import local_environment
from mlengine.validation.job import load_job
from mlengine.validation.rules import Rules, Scope
from mlengine.validation.validation import validate
from tests.support.live_airflow import persist

pytestmark = pytest.mark.e2e

SECONDS = 1500.0


@dataclass
class Lab:
    """The stack, with helpers for the tests."""

    stack: Stack

    @property
    def api(self) -> AirflowApi:
        return self.stack.airflow.api

    def finish(self, run: DagRun) -> DagRun:
        return self.api.wait(run, SECONDS, check=self.stack.airflow.check, every=2.0)

    def validated(self, model: str, job_id: str) -> str:
        """The dir of a job whose model was accepted by validation."""
        storage, job_dir = self.stack.storage, JobDir.of(self.stack.bucket, model, job_id)
        storage.write(job_dir.model + "weights.json", job_id.encode())
        rules = Rules(scope=Scope.FILES, require_comparison=False)
        validate(storage, load_job(storage, job_dir.uri), rules, local_environment(storage, ()))
        return job_dir.uri

    def events(self, asset: str) -> list[dict[str, Any]]:
        """The extras of an asset's events, oldest first."""
        found = self.api.call("GET", f"assets?name_pattern={asset}&only_active=false&limit=100")["assets"]
        events = [event for item in found if item["name"] == asset for event in self._events_of(item["id"])]
        return [event["extra"] for event in sorted(events, key=lambda event: int(event["id"]))]

    def _events_of(self, asset_id: int) -> list[dict[str, Any]]:
        """Retries because Airflow 3.3.2 responds with 500 while a run that an event started is queued."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                answer = self.api.call("GET", f"assets/events?asset_id={asset_id}&limit=100")
            except AirflowError as error:
                if error.status != 500 or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
            else:
                return list(answer["asset_events"])


@pytest.fixture(scope="module")
def lab(pipelines: Stack) -> Lab:
    lab = Lab(pipelines)
    for dag_id in ("country_churn", "serve_de", "killed", "again", "mapped", "by_partition", "by_date"):
        lab.api.wait_for_dag(dag_id)
        persist(lab.api.set_paused, dag_id, False)
    return lab


def test_a_champion_event_of_a_model_with_a_templated_name_starts_dags(lab: Lab) -> None:
    """Publishes two models; the second without a comparison, because the DAG turns the comparison off."""
    for serial in (1, 2):
        run = lab.finish(persist(lab.api.trigger, "country_churn", {"country": "de"}))
        assert run.state == "success"
        published = lab.api.xcoms(run.dag_id, run.run_id, "retrain.publish")["return_value"]
        assert (published["decision"], published["serial"]) == ("published", serial)
        assert lab.events("champion_de_churn")[serial - 1 :] == [published]
        deadline = time.monotonic() + SECONDS
        while len(lab.api.runs("serve_de")) < serial:
            assert time.monotonic() < deadline, "the DAG that follows the champion was not started"
            time.sleep(1.0)
        serving = lab.finish(lab.api.runs("serve_de")[0])
        assert lab.api.xcoms("serve_de", serving.run_id, "served")["return_value"] == published
    other = lab.finish(persist(lab.api.trigger, "country_churn", {"country": "us"}))
    assert other.state == "success"
    assert [extra["model"] for extra in lab.events("champion_us_churn")] == ["us_churn"]
    assert len(lab.events("champion_de_churn")) == 2
    assert len(lab.api.runs("serve_de")) == 2


def test_each_mapped_publication_is_announced_under_its_models_name(lab: Lab) -> None:
    jobs = [lab.validated(f"model_{number}", "a") for number in range(3)]
    assert lab.finish(persist(lab.api.trigger, "mapped", {"jobs": jobs})).state == "success"
    for number, job in enumerate(jobs):
        assert [extra["job_dir"] for extra in lab.events(f"champion_model_{number}")] == [job]


def test_a_publication_killed_before_its_event_is_announced_once(lab: Lab) -> None:
    job = lab.validated("lost", "a")
    before = len(lab.events("own_champion"))
    run = lab.finish(persist(lab.api.trigger, "killed", {"job": job}))
    (publish,) = lab.api.tasks(run.dag_id, run.run_id)
    assert (publish.state, publish.try_number) == ("success", 2)
    decision = lab.api.xcoms(run.dag_id, run.run_id, "publish")["return_value"]["decision"]
    assert decision == "already_champion", "the first try did not publish the champion"
    assert [extra["job_dir"] for extra in lab.events("champion_lost")] == [job]
    assert len(lab.events("own_champion")) == before + 1
    # Neither clearing the task nor another run adds an event.
    persist(lab.api.clear, run, "publish")
    assert lab.finish(run).state == "success"
    again = lab.finish(persist(lab.api.trigger, "again", {"job": job}))
    assert again.state == "success"
    assert lab.api.xcoms("again", again.run_id, "publish")["return_value"]["decision"] == "already_champion"
    assert len(lab.events("champion_lost")) == 1
    assert len(lab.events("own_champion")) == before + 1
    champion = current(lab.stack.storage, lab.stack.bucket, "lost")
    assert champion is not None
    assert champion.publisher["run_id"] == run.run_id


@pytest.mark.parametrize("dag_id", ["by_partition", "by_date"])
def test_a_backfill_of_an_older_run_is_not_published(lab: Lab, dag_id: str) -> None:
    """Without a dataset, only the runs determine which model is newer."""
    key = "2026-11-01" if dag_id == "by_partition" else None
    newer = lab.finish(persist(lab.api.trigger, dag_id, partition_key=key))
    assert lab.api.xcoms(dag_id, newer.run_id, "retrain.publish")["return_value"]["decision"] == "published"
    persist(lab.api.backfill, dag_id, "2026-06-01", "2026-06-01")
    deadline = time.monotonic() + SECONDS
    while not (older := [run for run in lab.api.runs(dag_id) if run.run_id.startswith("backfill__")]):
        assert time.monotonic() < deadline, "the backfill did not create a run"
        time.sleep(1.0)
    (run,) = older
    assert lab.finish(run).state == "success"
    result = lab.api.xcoms(dag_id, run.run_id, "retrain.publish")["return_value"]
    assert (result["published"], result["decision"]) == (False, "older_run")
    assert "belongs to the run of 2026-06-01" in result["reason"]
    # Airflow may also have started the current month's run on schedule, so the champion may not be the newer run's.
    champion = current(lab.stack.storage, lab.stack.bucket, dag_id)
    assert champion is not None
    assert champion.publisher["run_id"] != run.run_id
