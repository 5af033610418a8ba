"""Tests the real stack of docker-compose.yaml: start, a champion by REST, restarts of every service, stop.

Services are restarted while a job runs. Not part of the usual suite: ``make test-compose``. Takes 15 to 30 minutes on
two cores and writes its measurements to ``.mlengine/test/compose.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scripts.mnist import VERSIONS

from mlengine.core.errors import AirflowError
from mlengine.testing.airflow_api import DagRun
from tests.support.compose_stack import ROOT, ComposeStack, compose_command

MONTH = "2026-06-01"
STEPS = 5_000  # enough for a job to outlast eight restarts
RUN_SECONDS = 1800.0
# In this order: first the services that only observe the job, last the service in which it runs.
RESTARTED = ("tensorboard", "dag-processor", "triggerer", "scheduler", "api-server", "postgres", "gcs", "trainer")
REPORT = ROOT / ".mlengine" / "test" / "compose.json"

COMMAND = compose_command()
pytestmark = [
    pytest.mark.skipif(COMMAND is None, reason="no Docker engine answers, or there is no Docker Compose"),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    assert COMMAND is not None
    started = ComposeStack(tmp_path_factory.mktemp("compose"), COMMAND)
    started.configure()
    started.down()  # remove what a killed test has left
    try:
        started.timed("build", lambda: started.compose("build", "init", seconds=1800))
        started.timed("up", started.bring_up)
        yield started
    finally:
        started.down()
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps({"seconds": started.figures}, indent=2) + "\n")


@pytest.fixture(scope="module")
def run(stack: ComposeStack) -> DagRun:
    """A run that trains for minutes, returned once its job has completed its first steps."""
    stack.api.wait_for_dag("mnist_retraining", 180)
    stack.api.set_paused("mnist_retraining", paused=False)
    conf = {"dataset_version": MONTH, "max_steps": STEPS, "min_accuracy": 0.9}
    begun = time.monotonic()
    triggered = stack.api.trigger("mnist_retraining", conf)
    wait_for_step(stack, triggered, 1)
    stack.figures["trigger to first step"] = round(time.monotonic() - begun, 1)
    return triggered


def submitted(stack: ComposeStack, run: DagRun) -> dict[str, Any]:
    value = stack.api.xcoms(run.dag_id, run.run_id, "retrain.submit").get("return_value")
    return value if isinstance(value, dict) else {}


def job(stack: ComposeStack, run: DagRun) -> dict[str, Any]:
    """The job's row on the page in Airflow (state, attempt, step); empty while a service it needs is down."""
    try:
        job_id = submitted(stack, run).get("job_id")
        row: dict[str, Any] = stack.page(f"jobs/mnist/{job_id}")["row"] if job_id else {}
    except (AirflowError, OSError):
        return {}
    return row


def wait_for_step(stack: ComposeStack, run: DagRun, step: int, seconds: float = 900) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while True:
        seen = job(stack, run)
        if seen.get("state") == "RUNNING" and (seen["step"] or 0) >= step:
            return seen
        assert seen.get("state") not in {"SUCCEEDED", "FAILED", "CANCELLED"}, f"ended before step {step}: {seen}"
        assert time.monotonic() < until, f"no step {step} after {seconds:.0f} s: {seen}"
        time.sleep(2)


def test_every_service_is_well(stack: ComposeStack) -> None:
    assert stack.unwell() == {}
    stack.figures |= {f"MB {name}": size for name, size in stack.image_sizes().items()}


def test_containers_have_the_rights_that_the_file_says(stack: ComposeStack) -> None:
    for name, container in stack.containers().items():
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert not host["Privileged"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["Memory"] > 0, name
        assert container["Config"]["User"] not in {"", "root", "0"} or name == "postgres"
        bindings = [one for port in (host["PortBindings"] or {}).values() for one in port]
        assert {one["HostIp"] for one in bindings} <= {"127.0.0.1"}, name


def test_what_jobs_run_in_knows_no_secret_and_reaches_no_database(stack: ComposeStack) -> None:
    env = "\n".join(stack.containers()["trainer"]["Config"]["Env"])
    secrets = [value for name, value in stack.values.items() if name.endswith(("_KEY", "_SECRET", "_PASSWORD"))]
    assert len(secrets) >= 5
    assert not [value for value in secrets if value in env]
    script = """
import socket
try:
    socket.create_connection(("postgres", 5432), 5)
except OSError as error:
    print("no:", error)
"""
    assert stack.run("trainer", "python3", "-c", script).startswith("no:")


def test_the_dataset_versions_are_loaded(stack: ComposeStack) -> None:
    listed = stack.run("scheduler", "mlengine", "datasets", "list", "mnist")
    assert all(version in listed for version in VERSIONS)


def test_every_service_is_restarted_under_a_running_job(stack: ComposeStack, run: DagRun) -> None:
    """Only one of eight restarts affects the job: that of its own container. It then resumes from its checkpoint."""
    step = 0
    for service in RESTARTED:
        before = wait_for_step(stack, run, step + 1)
        assert before["attempt"] == 1, service
        begun = time.monotonic()
        stack.restart(service)
        stack.wait_until_well(service)
        stack.figures[f"restart {service}"] = round(time.monotonic() - begun, 1)
        step = before["step"]
    stack.wait_until_well()
    begun = time.monotonic()
    while (after := job(stack, run)).get("attempt", 1) == 1 or after["state"] != "RUNNING":
        assert time.monotonic() - begun < 600, after
        time.sleep(2)
    stack.figures["trainer well to attempt 2 running"] = round(time.monotonic() - begun, 1)
    assert wait_for_step(stack, run, step)["attempt"] == 2


def test_the_run_ends_with_a_champion(stack: ComposeStack, run: DagRun) -> None:
    begun = time.monotonic()
    ended = stack.api.wait(run, RUN_SECONDS, every=3)
    stack.figures["last restart to champion"] = round(time.monotonic() - begun, 1)
    tasks = {task.task_id: task for task in stack.api.tasks(run.dag_id, run.run_id)}
    assert ended.state == "success", {name: task.state for name, task in tasks.items()}
    log = "\n".join(stack.api.log(run.dag_id, run.run_id, "retrain.wait", tasks["retrain.wait"].try_number))
    assert "restarted_from_checkpoint" in log
    for replica in ("chief-0", "worker-0", "ps-0"):
        assert f"{replica} |" in log
    history = json.loads(stack.run("scheduler", "mlengine", "models", "history", "mnist", "--json"))
    assert submitted(stack, run)["job_id"] in json.dumps(history)


def test_a_stopped_stack_keeps_what_it_knew(stack: ComposeStack, run: DagRun) -> None:
    stack.timed("stop", lambda: stack.compose("stop"))
    stack.timed("start", stack.bring_up)
    assert stack.api.run(run.dag_id, run.run_id).state == "success"
    assert "mnist" in stack.run("scheduler", "mlengine", "models", "list")


def test_celery_workers_do_the_same_without_knowing_the_database(stack: ComposeStack) -> None:
    stack.set(COMPOSE_PROFILES="local,celery", AIRFLOW_EXECUTOR="CeleryExecutor")
    stack.timed("to celery", stack.bring_up)
    worker = stack.containers()["worker"]
    assert stack.values["POSTGRES_PASSWORD"] not in "\n".join(worker["Config"]["Env"])
    stack.api.wait_for_dag("hello_trainer", 180)
    stack.api.set_paused("hello_trainer", paused=False)
    triggered = stack.api.trigger("hello_trainer")
    for service in ("redis", "worker"):
        stack.restart(service)
        stack.wait_until_well(service)
    ended = stack.api.wait(triggered, RUN_SECONDS, every=3)
    found = stack.api.call("GET", f"dags/hello_trainer/dagRuns/{triggered.run_id}/taskInstances")["task_instances"]
    assert ended.state == "success", {one["task_id"]: one["state"] for one in found}
    assert {one["hostname"] for one in found} - {""} == {worker["Config"]["Hostname"]}


def test_nothing_is_left(stack: ComposeStack) -> None:
    stack.timed("down", stack.down)
    assert stack.containers() == {}
