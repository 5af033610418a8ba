"""Tests packaging, validation and publication tasks that are killed with SIGKILL and started again.

As in ``test_killed_job_tasks.py``, the task's process is killed just before its n-th side effect, and the task runs
again. For every n, the result must be that of a task that was not killed.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.champions import history
from mlengine.core.job import JobRecord
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from mlengine.validation.environment import local_environment
from mlengine.validation.job import load_job
from mlengine.validation.report import load_report
from mlengine.validation.rules import Rules, Scope
from mlengine.validation.validation import validate
from tests.support.task_process import NEVER, TaskProcess, process, report_of

pytestmark = pytest.mark.integration

DIGEST = "d" * 40
# The side effects of one undisturbed task, in order. The numbers are those in docs/architecture.md.
EFFECTS: Mapping[str, tuple[str, ...]] = {
    "package": ("create trainer-0.0.0.tar.gz",),  # 1
    "validate": ("write report.html", "write report.json", f"create {DIGEST}.json"),  # 11, 11, 12
    "publish": ("create 000001.json", "create champion.json"),  # 13, 14
}
CASES = [(mode, number) for mode, effects in EFFECTS.items() for number in range(1, len(effects) + 2)]


@dataclass(frozen=True)
class Seen:
    """What a killed and repeated task left behind.

    :param left: the objects in the bucket, without parts that differ from task to task.
    """

    exit_code: int | None
    effects: tuple[str, ...]
    result: Mapping[str, Any]
    left: tuple[str, ...]
    bucket: str


@pytest.fixture(scope="module")
def storage(gcs_server: gcs.GcsServer) -> Storage:
    before = dict(os.environ)
    os.environ.update(gcs_server.env)
    try:
        storage = Storage()
        storage.client  # noqa: B018 made while the environment names the server
        return storage
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def seen(
    storage: Storage, gcs_server: gcs.GcsServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], Seen]:
    """All cases, each in a separate bucket; a few run concurrently."""
    root = tmp_path_factory.mktemp("ends")
    (root / "trainer").mkdir()
    (root / "trainer" / "__init__.py").touch()
    (root / "trainer" / "task.py").write_text("print('hello')\n")
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda case: _kill_and_repeat(storage, gcs_server.env, root, *case), CASES)
        return dict(zip(CASES, found, strict=True))


def _kill_and_repeat(storage: Storage, env: Mapping[str, str], root: Path, mode: str, number: int) -> Seen:
    bucket = f"ends-{uuid.uuid4().hex[:12]}"
    storage.client.create_bucket(bucket)
    job = None if mode == "package" else _finished(storage, f"gs://{bucket}")
    if mode == "publish":
        validate(storage, load_job(storage, job), Rules(Scope.FILES), local_environment(storage, ()))
    task = TaskProcess(
        mode,
        bucket,
        f"gs://{bucket}",
        {},
        {},
        env,
        root / f"{bucket}.report",
        source=str(root / "trainer"),
        job=job,
        kill_before=NEVER if number > len(EFFECTS[mode]) else number,
    )
    exit_code = process(task)
    effects, _ = report_of(task)
    again = replace(task, kill_before=NEVER, try_number=2, report=task.report.with_suffix(".again"))
    assert process(again) == 0
    _, result = report_of(again)
    left = tuple(sorted(stat.uri.removeprefix(f"gs://{bucket}/") for stat in storage.ls(f"gs://{bucket}/")))
    return Seen(exit_code, effects, result, left, f"gs://{bucket}")


def _finished(storage: Storage, bucket: str) -> dict[str, Any]:
    """A job that has succeeded, created without actually running it."""
    job_dir = JobDir.of(bucket, "m", "j")
    record = JobRecord(
        key="k", job_id="j", model="m", backend="local", spec={"module": "m.task"}, inputs={"digest": DIGEST}
    )
    storage.write(job_dir.claim, record.to_bytes())
    storage.write(job_dir.model + "weights.json", b"{}")
    return {"backend": "local", "name": "k-1", "job_id": "j", "attempt": 1, "job_dir": job_dir.uri}


@pytest.mark.parametrize(("mode", "number"), CASES)
def test_a_task_killed_before_a_side_effect_is_completed_by_its_retry(
    seen: dict[tuple[str, int], Seen], mode: str, number: int
) -> None:
    case, undisturbed = seen[mode, number], seen[mode, len(EFFECTS[mode]) + 1]
    assert undisturbed.exit_code == 0
    assert undisturbed.effects == EFFECTS[mode], "docs/architecture.md and this test number the side effects"
    if case is not undisturbed:
        assert case.exit_code == -signal.SIGKILL
        assert case.effects == EFFECTS[mode][: number - 1]
    assert case.left == undisturbed.left


@pytest.mark.parametrize("number", [number for mode, number in CASES if mode == "validate"])
def test_a_killed_validation_reaches_its_verdict(
    seen: dict[tuple[str, int], Seen], storage: Storage, number: int
) -> None:
    case = seen["validate", number]
    assert case.result["verdict"] == "first"
    assert load_report(storage, JobDir.of(case.bucket, "m", "j")).verdict.decision.publishable


@pytest.mark.parametrize("number", [number for mode, number in CASES if mode == "publish"])
def test_a_killed_publication_takes_effect_once(
    seen: dict[tuple[str, int], Seen], storage: Storage, number: int
) -> None:
    case = seen["publish", number]
    assert case.result["published"]
    assert [(entry.serial, entry.job_id) for entry in history.history(storage, case.bucket, "m")] == [(1, "j")]
