"""Tests the page in a real Airflow and a real browser: what a user sees, and what the buttons do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from scripts.chromium import drive, find_browser
from scripts.stack import ROOT, Stack

from mlengine.core.errors import StackError
from mlengine.core.job import JobKey, JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.jobs.submission import Intent, Submitter
from mlengine.packaging.publish import package_trainer
from mlengine.testing.airflow_api import AirflowApi
from tests.e2e.stack.conftest import Ended
from tests.support.sample_jobs import SampleJobs

pytestmark = pytest.mark.e2e

EVIL = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"


@pytest.fixture(scope="module")
def running(stack: Stack) -> Iterator[JobDir]:
    """A job that runs until it is cancelled."""
    storage = stack.storage
    package = package_trainer(ROOT / "examples" / "hello", storage=storage, staging=stack.bucket, module="hello.task")
    spec = TrainingSpec(
        "hello.task", tuple(package.uris), ("--max_steps", "100000"), (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 1))
    )
    key = JobKey("hello_trainer", "by_hand", "submit")
    intent = Intent(key, "hello", JobDir.of(stack.bucket, "hello", "hello_runs_on"), spec)
    submitted = Submitter(storage, stack.backend).submit(intent)
    deadline = time.monotonic() + 240
    while stack.backend.describe([submitted.handle])[0].state is not JobState.RUNNING:
        assert time.monotonic() < deadline, stack.backend.describe([submitted.handle])
        time.sleep(0.5)
    yield JobDir(submitted.handle.job_dir)
    stack.backend.cancel(submitted.handle)


@pytest.fixture(scope="module")
def seen(stack: Stack, hello: Ended, running: JobDir, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser saw during the whole visit."""
    try:
        browser = find_browser()
    except StackError as error:
        pytest.skip(str(error))
    lab = SampleJobs(stack.storage, stack.bucket)
    hostile = lab.job("hostile_1", dag_id=EVIL, run_id=EVIL, version=EVIL, args=(EVIL,), metric_value=0.97)
    lab.logs(hostile, "chief-0", f"{EVIL}\n".encode())
    out = tmp_path_factory.mktemp("page")
    out = Path(os.environ.get("MLENGINE_PAGE_PICTURES") or out)
    order = {
        "browser": browser,
        "url": stack.airflow.url,
        "user": stack.airflow.user,
        "password": stack.airflow.password,
        "dag": hello.run.dag_id,
        "run": hello.run.run_id,
        "job": hello.result("retrain.prepare")["job_id"],
        "model": "hello",
        "hostile": "mnist/hostile_1",
        "running": running.job_id,
        "out": str(out),
    }
    return drive("tests.support.page_browser", order, out)


def test_anonymous_users_are_redirected_to_the_login(seen: dict[str, Any], stack: Stack) -> None:
    assert "/auth/login" in seen["before_login"]
    for path in ("page", "page.js", "api/jobs", "api/models", "api/jobs/hello/x/logs"):
        answer = requests.get(f"{stack.airflow.url}/mlengine/{path}", timeout=30)
        assert answer.status_code == 401, path


def test_the_job_list_opens_from_airflows_navigation(seen: dict[str, Any], hello: Ended) -> None:
    assert hello.result("retrain.prepare")["job_id"] in seen["navigation"]
    assert "SUCCEEDED" in seen["navigation"]
    assert "RUNNING" in seen["navigation"]
    assert "admin" in seen["navigation"], "the user who triggered the run is not shown"


def test_a_job_page_shows_the_log_the_report_and_the_origin(seen: dict[str, Any], hello: Ended) -> None:
    for words in ("chief-0", "worker-0", "worker-1", "step 5"):
        assert words in seen["job"]["log"], words
    for words in ("fresh submit", "hello.task", "step 5 of 5", "mlengine jobs tensorboard hello/"):
        assert words in seen["job"]["head"], words
    # Another test may have published a model with the same name before.
    verdict_messages = {"first": "Accepted as the first", "accepted": "All 2 checks passed"}
    assert verdict_messages[hello.result("retrain.validate")["verdict"]] in seen["job"]["report"]


def test_the_page_uses_airflows_theme(seen: dict[str, Any]) -> None:
    assert "dark" in seen["dark"]["host"]
    assert seen["dark"]["page"] == "dark"


def test_a_run_has_a_tab_with_its_job(seen: dict[str, Any], hello: Ended) -> None:
    assert hello.result("retrain.prepare")["job_id"] in seen["run_tab"]
    assert "hello_runs_on" not in seen["run_tab"]


def test_html_in_names_and_logs_is_shown_as_text(seen: dict[str, Any]) -> None:
    assert seen["hostile"]["text"].count(EVIL) >= 3
    assert (seen["hostile"]["ran"], seen["hostile"]["made"]) == ("nothing", 0)


def test_the_page_works_in_a_narrow_window_and_with_the_keyboard(seen: dict[str, Any], hello: Ended) -> None:
    assert seen["narrow"]["too_wide"] <= 0
    assert hello.result("retrain.prepare")["job_id"] in seen["narrow"]["address"]


def test_a_model_page_shows_its_champion_and_history(seen: dict[str, Any], hello: Ended) -> None:
    assert hello.result("retrain.prepare")["job_id"] in seen["model"]["text"]
    assert "published" in seen["model"]["text"]


def test_the_cancel_button_cancels_a_job_and_records_user_and_reason(
    seen: dict[str, Any], stack: Stack, running: JobDir
) -> None:
    assert seen["cancelled"]["asked"] == 1
    record = JobRecord.from_bytes(stack.storage.read(running.claim))
    noted = record.history[-1]
    assert (noted["event"], noted["by"], noted["why"]) == ("cancelled_by_person", "admin", "the data are wrong")
    handle = record.handle(running.uri)
    assert handle is not None
    assert stack.backend.describe([handle])[0].state is JobState.CANCELLED


def test_the_page_loads_nothing_from_other_hosts_and_logs_no_errors(seen: dict[str, Any]) -> None:
    assert seen["elsewhere"] == []
    assert seen["errors"] == []


def test_a_task_links_to_its_job(hello: Ended, stack: Stack) -> None:
    """Airflow's API returns the links that the worker stored."""
    job_id = hello.result("retrain.prepare")["job_id"]
    for task, more in {
        "submit": [],
        "wait": ["TensorBoard"],
        "validate": ["Model directory", "Validation report"],
    }.items():
        links = stack.airflow.api.links(hello.run.dag_id, hello.run.run_id, f"retrain.{task}")
        assert links["Job"] == f"/mlengine/page?job=hello/{job_id}", links
        for name in more:
            assert job_id in (links[name] or ""), links


def test_a_run_note_shows_the_verdict_and_the_champion(hello: Ended, api: AirflowApi) -> None:
    run = api.call("GET", f"dags/{hello.run.dag_id}/dagRuns/{quote(hello.run.run_id, safe='')}")
    verdict, serial = hello.result("retrain.validate")["verdict"], hello.result("retrain.publish")["serial"]
    assert run["note"] == f"{verdict} · champion no. {serial}"


def test_the_plugin_is_loaded_without_import_errors(api: AirflowApi) -> None:
    assert api.call("GET", "plugins/importErrors")["total_entries"] == 0
