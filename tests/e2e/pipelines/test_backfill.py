"""Tests a backfill over seven dataset versions, and every other way to start a run, with a real Airflow and real jobs.

The trainer learns real digits in a second with Python alone, so the tests exercise the pipeline rather than training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scripts import mnist
from scripts.chromium import drive, find_browser
from scripts.stack import Stack

from mlengine import cli
from mlengine.champions import history
from mlengine.core.errors import AirflowError, StackError
from mlengine.core.job import JobRecord
from mlengine.core.layout import JobDir, dataset_dir, join
from mlengine.storage.client import Storage
from mlengine.testing.airflow_api import AirflowApi, DagRun
from tests.support.live_airflow import persist

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

MONTHS = [f"2024-{month:02d}-01" for month in range(1, 8)]
FILE_LOST, MANIFEST_BROKEN = MONTHS[2], MONTHS[4]
FAILING = {FILE_LOST, MANIFEST_BROKEN}
AT_ONCE = 3
SECONDS = 1500.0  # two idle cores need a tenth of that, but the machine may be busy


@dataclass
class Lab:
    """The stack, with helpers for the tests."""

    stack: Stack
    kept: dict[str, bytes] = field(default_factory=dict)
    before: set[str] = field(default_factory=set)  # jobs before the backfill was repeated

    @property
    def api(self) -> AirflowApi:
        return self.stack.airflow.api

    @property
    def storage(self) -> Storage:
        return self.stack.storage

    def jobs(self) -> set[str]:
        """The names of all jobs that were ever submitted."""
        return {handle.name for handle in self.stack.backend.jobs()}

    def finish(self, *runs: DagRun) -> list[DagRun]:
        return [self.api.wait(run, SECONDS, check=self.stack.airflow.check, every=2.0) for run in runs]

    def new_runs(self, dag_id: str, before: list[DagRun], count: int) -> list[DagRun]:
        """Wait until there are ``count`` runs that are not in ``before``, and return the new ones."""
        known = {run.run_id for run in before}
        deadline = time.monotonic() + SECONDS
        while True:
            found = [run for run in self.api.runs(dag_id) if run.run_id not in known]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} runs of {dag_id}"
            self.stack.airflow.check()
            time.sleep(1.0)

    def backfill(self, dag_id: str, first: str, last: str, **more: Any) -> None:
        """Retries because Airflow allows one backfill per DAG and checks only every 30 s whether one is over."""
        deadline = time.monotonic() + 120
        while True:
            try:
                persist(self.api.backfill, dag_id, first, last, **more)
            except AirflowError as error:
                if error.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
            else:
                return

    def result(self, run: DagRun, task: str) -> dict[str, Any]:
        value = self.api.xcoms(run.dag_id, run.run_id, f"retrain.{task}")["return_value"]
        assert isinstance(value, dict)
        return value

    def states(self, run: DagRun) -> dict[str, str | None]:
        tasks = self.api.tasks(run.dag_id, run.run_id)
        return {task.task_id.removeprefix("retrain."): task.state for task in tasks}

    def log(self, run: DagRun, task: str) -> str:
        return "\n".join(self.api.log(run.dag_id, run.run_id, f"retrain.{task}"))

    def uri(self, version: str, name: str) -> str:
        return join(dataset_dir(self.stack.bucket, "digits", version), name)


@pytest.fixture(scope="module")
def lab(pipelines: Stack, digits: Path) -> Lab:
    lab = Lab(pipelines)
    for number, month in enumerate(MONTHS):
        mnist.register(
            lab.storage, pipelines.bucket, digits, month, train=400 + 40 * number, heldout=1000, name="digits"
        )
    for number, version in enumerate(["v9", "v10", "v11"]):
        mnist.register(
            lab.storage, pipelines.bucket, digits, version, train=300 + 40 * number, heldout=1000, name="named"
        )
    for uri in (lab.uri(FILE_LOST, "train-labels-idx1-ubyte.gz"), lab.uri(MANIFEST_BROKEN, "manifest.json")):
        lab.kept[uri] = lab.storage.read(uri)
    lab.storage.delete(lab.uri(FILE_LOST, "train-labels-idx1-ubyte.gz"))
    lab.storage.write(lab.uri(MANIFEST_BROKEN, "manifest.json"), b'{"format": 1, "name": "digits"')
    for dag_id in ("monthly", "on_new_version", "by_name", "register", "serve"):
        lab.api.wait_for_dag(dag_id)
        persist(lab.api.set_paused, dag_id, False)
    return lab


@dataclass(frozen=True)
class Backfilled:
    """What was observed of a backfill."""

    runs: dict[str, DagRun]
    most_at_once: int
    seconds: float


def watch(lab: Lab, count: int, before: list[DagRun]) -> Backfilled:
    known = {run.run_id for run in before}
    began, most = time.monotonic(), 0
    while True:
        runs = [run for run in lab.api.runs("monthly") if run.run_id not in known]
        most = max(most, sum(run.state == "running" for run in runs))
        if len(runs) == count and all(run.done for run in runs):
            return Backfilled({str(run.partition_key): run for run in runs}, most, time.monotonic() - began)
        assert time.monotonic() - began < SECONDS, {run.partition_key: run.state for run in runs}
        lab.stack.airflow.check()
        time.sleep(1.0)


@pytest.fixture(scope="module")
def first(lab: Lab) -> Backfilled:
    """The first backfill, started with Airflow's command line as a user would."""
    command = ["backfill", "create", "--dag-id", "monthly", "--from-date", MONTHS[0], "--to-date", MONTHS[-1]]
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *command, "--max-active-runs", str(AT_ONCE)],
        env=lab.stack.airflow.env,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = watch(lab, len(MONTHS), [])
    sys.stdout.write(f"{len(MONTHS)} versions in {found.seconds:.0f} s, {found.most_at_once} at once\n")
    return found


def test_a_failed_version_does_not_stop_the_others(lab: Lab, first: Backfilled) -> None:
    assert set(first.runs) == set(MONTHS)
    assert {month for month, run in first.runs.items() if run.state == "failed"} == FAILING
    for month in set(MONTHS) - FAILING:
        states = lab.states(first.runs[month])
        assert states.pop("publish") in {"success", "skipped"}  # an older version that finishes late is not published
        assert set(states.values()) == {"success"}, (month, states)
        assert lab.result(first.runs[month], "dataset")["version"] == month


def test_the_backfill_respects_max_active_runs(first: Backfilled) -> None:
    assert 2 <= first.most_at_once <= AT_ONCE


def test_failed_runs_report_the_cause(lab: Lab, first: Backfilled) -> None:
    trained, resolved = first.runs[FILE_LOST], first.runs[MANIFEST_BROKEN]
    assert lab.states(trained)["wait"] == "failed"
    log = lab.log(trained, "wait")
    assert "train-labels-idx1-ubyte.gz cannot be read: HTTP Error 404" in log, log[-2000:]
    assert "logs/" in log
    assert lab.states(resolved)["dataset"] == "failed"
    log = lab.log(resolved, "dataset")
    assert f"digits/{MANIFEST_BROKEN}/manifest.json" in log, log[-2000:]
    assert "What to do" in log


def test_the_newest_version_is_champion_whichever_run_finished_last(lab: Lab, first: Backfilled) -> None:
    assert first.runs
    champion = history.current(lab.storage, lab.stack.bucket, "digits")
    assert champion is not None
    assert champion.version == MONTHS[-1]
    versions = [entry.version for entry in history.history(lab.storage, lab.stack.bucket, "digits")]
    assert versions == sorted(versions, reverse=True), "an older version replaced a newer one"


def test_each_job_records_its_inputs_and_usage(lab: Lab, first: Backfilled) -> None:
    run = first.runs[MONTHS[0]]
    job_dir = JobDir(lab.result(run, "submit")["job_dir"])
    record = JobRecord.from_bytes(lab.storage.read(job_dir.claim))
    assert record.owner["run_id"] == run.run_id
    assert record.inputs["dataset"]["digest"] == lab.result(run, "dataset")["digest"]
    assert record.inputs["package"]["digest"] == lab.result(run, "package")["digest"]
    assert set(record.inputs["software"]) == {"airflow", "mlengine", "python"}
    assert lab.storage.read(record.inputs["environment"]["uri"]) == b"centroids==1.0.0\n"
    usage = json.loads(lab.storage.read(job_dir.report))["usage"]
    assert usage["attempts"] == 1
    assert usage["core_seconds"] == pytest.approx(usage["seconds"] * usage["cores"], abs=0.5)
    assert usage["seconds"] > 0


# This test and the next do not backfill "monthly": meanwhile Airflow, which checks every 30 s whether a backfill is
# over, can complete the first one.
def test_an_announced_version_starts_a_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version is announced with the CLI, and by a task of another DAG."""
    airflow = lab.stack.airflow
    for name, value in {
        "URL": airflow.url,
        "USER": airflow.user,
        "PASSWORD": airflow.password,
    }.items():
        monkeypatch.setenv(f"MLENGINE_AIRFLOW_{name}", value)
    assert cli.main(["datasets", "announce", "named", "v10", "--bucket", lab.stack.bucket]) == 0
    (one,) = lab.new_runs("on_new_version", [], 1)
    assert cli.main(["datasets", "announce", "named", "v12", "--bucket", lab.stack.bucket]) == 1, "v12 does not exist"
    (done,) = lab.finish(one)  # otherwise the older version might be published first
    persist(lab.api.trigger, "register", {"version": "v9"})
    (other,) = lab.new_runs("on_new_version", [one], 1)
    for run, version in zip((done, *lab.finish(other)), ("v10", "v9"), strict=True):
        assert (run.state, run.partition_key) == ("success", version)
        assert lab.result(run, "dataset")["version"] == version
    # The first model becomes champion, the second is older. The DAG that serves the model gets one event, for the
    # first.
    (serving,) = lab.finish(*lab.new_runs("serve", [], 1))
    assert (serving.state, serving.partition_key) == ("success", "v10")
    served = lab.api.xcoms("serve", serving.run_id, "served")["return_value"]
    assert (served["serial"], served["dataset_version"]) == (1, "v10")
    assert served["champion"] == lab.result(one, "validate")["model_uri"]


def test_a_backfill_in_the_ui_over_versions_whose_names_are_not_dates(lab: Lab, tmp_path: Path) -> None:
    """Uses Airflow's form as a user would, or REST if no browser is installed."""
    try:
        browser = find_browser()
    except StackError:
        lab.backfill("by_name", "2024-02-01", "2024-12-31", at_once=2)
    else:
        assert (
            backfill_in_ui(lab, browser, "by_name", "2024-02-01", "2024-12-31", tmp_path) == "2 runs will be triggered."
        )
    runs = lab.finish(*lab.new_runs("by_name", [], 2))
    assert {run.partition_key: run.state for run in runs} == {"v10": "success", "v11": "success"}
    assert {lab.result(run, "dataset")["version"] for run in runs} == {"v10", "v11"}


def backfill_in_ui(lab: Lab, browser: str, dag: str, first: str, last: str, scratch: Path) -> str:
    """Start a backfill in Airflow's own form. Returns the summary that the form shows before it is submitted."""
    airflow = lab.stack.airflow
    out = Path(os.environ.get("MLENGINE_PAGE_PICTURES") or scratch)
    who = {"user": airflow.user, "password": airflow.password}
    order = {"browser": browser, "url": airflow.url, "dag": dag, "first": first, "last": last, "out": str(out), **who}
    return str(drive("tests.support.backfill_browser", order, scratch)["summary"])


def test_a_job_is_rerun_from_its_record(
    lab: Lab, first: Backfilled, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(lab.stack.data / "local"))
    old = JobDir(lab.result(first.runs[MONTHS[0]], "submit")["job_dir"])
    assert cli.main(["jobs", "rerun", old.uri, "--as", "once_more", "--stream-logs"]) == 0, capsys.readouterr().out
    new = JobDir(join(old.uri.rsplit("/", 1)[0], "once_more"))
    assert lab.storage.read(new.model + "centroids.json") == lab.storage.read(old.model + "centroids.json")
    record = JobRecord.from_bytes(lab.storage.read(new.claim))
    assert record.inputs["rerun_of"] == old.uri
    assert json.loads(lab.storage.read(old.claim))["inputs"]["digest"] == record.inputs["digest"]


@pytest.fixture(scope="module")
def second(lab: Lab, first: Backfilled) -> Backfilled:
    """The backfill after its data were repaired: run again by REST over the whole range."""
    lab.before = lab.jobs()
    for uri, data in lab.kept.items():
        lab.storage.write(uri, data)
    before = lab.api.runs("monthly")
    lab.backfill("monthly", MONTHS[0], MONTHS[-1], at_once=AT_ONCE, again="failed")
    assert first.runs
    return watch(lab, len(FAILING), before)


def test_repeating_the_backfill_runs_only_the_failed_versions(lab: Lab, first: Backfilled, second: Backfilled) -> None:
    assert set(second.runs) == FAILING
    assert {run.state for run in second.runs.values()} == {"success"}
    assert {lab.result(run, "submit")["decision"] for run in second.runs.values()} == {"fresh_submit"}
    assert len(lab.jobs() - lab.before) == len(FAILING)
    for run in second.runs.values():
        assert lab.states(run)["publish"] == "skipped"
        assert "older_dataset" in lab.log(run, "publish")


def test_manually_triggered_runs_resolve_their_versions(lab: Lab, second: Backfilled) -> None:
    """Triggers runs with a partition key, with a version in the form, with neither, and with a forced retraining."""
    assert second.runs
    runs = lab.finish(
        persist(lab.api.trigger, "monthly", partition_key=MONTHS[3]),
        persist(lab.api.trigger, "monthly", {"dataset_version": MONTHS[5]}),
        persist(lab.api.trigger, "monthly"),
        persist(lab.api.trigger, "monthly", {"force_retrain": True}, partition_key=MONTHS[1]),
    )
    assert [run.state for run in runs] == ["success"] * 4
    versions = [lab.result(run, "dataset")["version"] for run in runs]
    assert versions == [MONTHS[3], MONTHS[5], MONTHS[-1], MONTHS[1]]
    decisions = [lab.result(run, "submit")["decision"] for run in runs]
    assert decisions == ["reused", "reused", "reused", "fresh_submit"]


def test_a_scheduled_run_uses_the_newest_version(lab: Lab, second: Backfilled) -> None:
    """The date of the run is not a version, so the run uses the newest version as of that date."""
    assert second.runs
    persist(lab.api.set_paused, "each_minute", False)
    run = lab.new_runs("each_minute", [], 1)[-1]
    lab.finish(run)  # runs of a paused DAG do not advance
    persist(lab.api.set_paused, "each_minute", True)
    _, begin, key, _ = run.run_id.split("__")
    assert run.partition_key == key == begin[:10]
    assert key > MONTHS[-1]
    assert lab.result(run, "dataset")["version"] == MONTHS[-1]
    assert lab.result(run, "submit")["decision"] == "reused"


def test_a_backfill_of_completed_runs_reuses_their_jobs(lab: Lab, second: Backfilled) -> None:
    """Jobs are reused for versions that are complete, even if the backfill reprocesses completed runs."""
    before, jobs = lab.api.runs("monthly"), lab.jobs()
    lab.backfill("monthly", MONTHS[5], MONTHS[6], at_once=AT_ONCE, again="completed")
    third = watch(lab, 2, before)
    assert {run.state for run in third.runs.values()} == {"success"}
    assert {lab.result(run, "submit")["decision"] for run in third.runs.values()} == {"reused"}
    assert lab.jobs() == jobs
    assert second.runs
    link = lab.result(third.runs[MONTHS[-1]], "submit")["job_dir"]
    assert link in lab.log(third.runs[MONTHS[-1]], "submit")
    champion = history.current(lab.storage, lab.stack.bucket, "digits")
    assert champion is not None
    assert champion.job_dir == link
