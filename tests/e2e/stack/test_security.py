"""Tests that a running stack discloses no secret, and nothing at all to other machines."""

from __future__ import annotations

import gzip
import json
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import pytest
from scripts.stack import Stack

from mlengine.testing.airflow_api import AirflowApi
from tests.e2e.stack.conftest import SECRET, Ended

pytestmark = pytest.mark.e2e


def secrets_of(stack: Stack) -> list[str]:
    """The secrets of the stack: a value in the environment of its processes, and its generated keys."""
    kept: dict[str, str] = json.loads((stack.data / "airflow" / "secrets.json").read_text())
    assert len(kept) >= 4
    return [SECRET, *kept.values()]


def found_in(data: bytes, secrets: list[str]) -> list[str]:
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return [secret[:4] + "…" for secret in secrets if secret.encode() in data]


def test_nothing_in_the_bucket_holds_a_secret(hello: Ended, stack: Stack) -> None:
    """Covers everything that users and programs read there: packages, claims, replicas' logs, reports, champions."""
    job_dir = hello.result("retrain.prepare")["job_dir"]
    stats = [*stack.storage.ls(f"{job_dir}/"), *stack.storage.ls(f"{stack.bucket}/packages/")]
    stats += stack.storage.ls(f"{stack.bucket}/hello/champions/")
    names = {one.uri.rsplit("/", 1)[1] for one in stats}
    assert {"job.json", "report.json", "report.html", "chief-0.log"} <= names, names
    secrets = secrets_of(stack)
    leaks = {one.uri: found for one in stats if (found := found_in(stack.storage.read(one.uri), secrets))}
    assert not leaks


def test_no_xcom_and_no_log_of_a_task_holds_a_secret(hello: Ended, stack: Stack) -> None:
    secrets = secrets_of(stack)
    for task_id in hello.tasks:
        output = f"{hello.xcoms(task_id)}\n{hello.log(task_id)}".encode()
        assert len(output) > 100, task_id
        assert not found_in(output, secrets), task_id


def test_rendered_fields_hold_no_secret(hello: Ended, api: AirflowApi, stack: Stack) -> None:
    """Airflow's UI shows these fields, and the labels of a job are derived from them."""
    run = quote(hello.run.run_id, safe="")
    tasks: Any = api.call("GET", f"dags/{hello.run.dag_id}/dagRuns/{run}/taskInstances")
    assert len(tasks["task_instances"]) == len(hello.tasks)
    assert not found_in(str(tasks).encode(), secrets_of(stack))


def test_every_process_listens_only_on_loopback(hello: Ended, stack: Stack) -> None:
    parts = [stack.server.process, *stack.airflow.processes.values()]
    processes = [psutil.Process(part.pid) for part in parts]
    for process in list(processes):
        processes += process.children(recursive=True)
    listening: dict[Any, int] = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found = [one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            listening |= dict.fromkeys(found, process.pid)
    ports = {address.port for address in listening}
    assert ports >= {urlsplit(url).port for url in (stack.airflow.url, stack.server.url)}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}, listening


def test_files_of_the_stack_are_readable_only_by_their_owner(hello: Ended, stack: Stack) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    home = stack.data / "airflow"
    for folder in (home, *(stack.data / "local").glob("jobs/*")):
        assert not mode(folder) & 0o077, folder
    for file in (home / "airflow.cfg", home / "secrets.json", home / "passwords.json", stack.data / "env.sh"):
        assert mode(file) == 0o600, file
