"""Verifies assumptions about Vertex AI with five small jobs and the upload of a model.

It asserts what this project relies on, and records what is unknown about the service. On a real project it costs a few
cents and takes twenty minutes (``make system``). ``tests/integration/test_vertex_walk.py`` tests it on the emulator.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from scripts.bootstrap import ROOT

from mlengine.backends import Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.champions.history import Action, Champion
from mlengine.core.errors import BackendError
from mlengine.core.job import FailureCause, JobHandle, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.core.times import seconds
from mlengine.packaging.publish import package_trainer
from mlengine.promotion.registries.vertex import VertexRegistry
from mlengine.storage.client import Storage
from tests.support.local_jobs import put, sdist

PYTHON = "3.11"
# Any image in Artifact Registry: the uploaded model is not deployed.
IMAGE = "us-docker.pkg.dev/cloudrun/container/hello:latest"
ERROR_SECONDS = 180.0  # how long the walk polls for the error of an ended job; the backend waits for 90
# Allocates as many GiB as the job's argument says, and then waits until it is terminated; 0 only waits.
_MEMORY = """
    import sys, time

    limit, blocks = float(sys.argv[1]), []
    print("step 1: allocating", flush=True)
    while len(blocks) < limit * 16:
        blocks.append(bytearray(b"x") * 2**26)
    time.sleep(600)
"""


@dataclass
class Walk:
    """One pass through all steps.

    :param registry: the registry to which the first job's model is uploaded.
    :param patience: seconds that a job may take from submission to its end.
    :param timeout: the timeout, in seconds, of the job that is meant to exceed it.
    :param memory_gib: how much memory the out-of-memory job allocates: more than its machine has.
    :param findings: what was observed of the service, for readers and for docs/vertex-assumptions.md.
    """

    backend: VertexBackend
    registry: VertexRegistry
    storage: Storage
    bucket: str
    patience: float
    timeout: int = 120
    memory_gib: float = 64.0
    findings: dict[str, Any] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    handles: list[JobHandle] = field(default_factory=list)

    def go(self) -> dict[str, Any]:
        """Run all steps. If one fails, cancel the jobs that still run.

        :raises AssertionError: the service does not do what this project relies on.
        """
        packaged = package_trainer(ROOT / "examples" / "hello", storage=self.storage, staging=self.bucket)
        try:
            good = self._submission("good", packaged.uris, "--max_steps", "3")
            bad = self._submission("bad", packaged.uris, "--no_such_flag")
            long = self._submission("long", packaged.uris, "--max_steps", "100000", "--step_seconds", "0.2")
            slow = self._submission("slow", packaged.uris, "--max_steps", "100000", limit=self.timeout)
            hog = self._submission("memory", (self._memory_package(),), str(self.memory_gib), module="hog.task")
            for one in (good, bad, long, slow, hog):
                self._submit(one)
            self._same_again(good, self.handles[0])
            self._refused(packaged.uris)
            self._cancelled(self.handles[2])
            self._failed(self.handles[1])
            self._succeeded(self.handles[0])
            self._uploaded(self.handles[0])
            self._timed_out(self.handles[3])
            self._ran_out_of_memory(self.handles[4])
        finally:
            for handle in self.handles:
                self.backend.cancel(handle)
        return self.findings

    def _memory_package(self) -> str:
        return put(self.storage, self.bucket, sdist(_MEMORY, name="hog"), f"{self.mark}/hog-1.0.tar.gz")

    def _submission(
        self,
        name: str,
        uris: tuple[str, ...],
        *args: str,
        machine: str = "n1-standard-4",
        module: str = "hello.task",
        limit: int = 1800,
    ) -> Submission:
        spec = TrainingSpec(
            module=module,
            args=args,
            package_uris=uris,
            pools=(Pool(Role.CHIEF, 1, machine),),
            python_version=PYTHON,
            max_running_seconds=limit,
        )
        job_id = f"system_{name}_{self.mark}"
        return Submission(
            (self.mark + name).ljust(40, "0"), job_id, 1, JobDir.of(self.bucket, "system", job_id).uri, spec
        )

    def _submit(self, submission: Submission) -> None:
        handle = self.backend.submit(submission)
        self.handles.append(handle)
        begun = time.monotonic()
        self._until(lambda: handle in self.backend.find(submission.key), "a created job is in the list")
        self.findings.setdefault("seconds until a created job is listed by its label", []).append(_since(begun))

    def _same_again(self, submission: Submission, handle: JobHandle) -> None:
        assert self.backend.submit(submission) == handle
        assert self.backend.find(submission.key) == [handle]

    def _refused(self, uris: tuple[str, ...]) -> None:
        """Record the service's response to a machine type that does not exist; an emulator may accept it.

        The name belongs to no machine family in the table of machine types, because the backend checks known families
        itself.
        """
        nonsense = self._submission("nonsense", uris, machine="z9-standard-4")
        try:
            self.handles.append(self.backend.submit(nonsense))
            said = "none: it was taken"
        except BackendError as error:
            said = f"{error.message} (to be tried again: {error.retryable})"
        self.findings["refusal of a machine type that is none"] = said

    def _cancelled(self, handle: JobHandle) -> None:
        status = self._describe(handle)
        begun = time.monotonic()
        self.backend.cancel(handle)
        self.backend.cancel(handle)
        ended = self._ended(handle)
        assert ended.state is JobState.CANCELLED, ended
        assert ended.failure is not None
        assert ended.failure.cause is FailureCause.CANCELLED
        self.backend.cancel(handle)
        self.findings[f"seconds to cancel a job that is {status.state.value}"] = _since(begun)

    def _failed(self, handle: JobHandle) -> None:
        ended = self._ended(handle)
        assert ended.state is JobState.FAILED, ended
        assert ended.failure is not None
        self.findings["words of a trainer's failure"] = ended.failure.message
        found = (ended.failure.cause, ended.failure.replica, ended.failure.exit_code)
        assert found == (FailureCause.TRAINER, "chief-0", 2), ended.failure

    def _timed_out(self, handle: JobHandle) -> None:
        ended = self._ended(handle)
        assert ended.state is JobState.EXPIRED, ended
        assert ended.failure is not None
        assert ended.failure.cause is FailureCause.DEADLINE, ended.failure
        assert ended.started is not None
        assert ended.ended is not None
        self.findings[f"seconds that a job with a timeout of {self.timeout} s ran"] = round(
            ended.ended - ended.started, 1
        )

    def _ran_out_of_memory(self, handle: JobHandle) -> None:
        ended = self._ended(handle)
        assert ended.state is JobState.FAILED, ended
        assert ended.failure is not None
        assert ended.failure.cause is FailureCause.TRAINER, ended.failure
        assert "more memory" in ended.failure.advice(), ended.failure

    def _succeeded(self, handle: JobHandle) -> None:
        ended = self._ended(handle)
        assert ended.state is JobState.SUCCEEDED, ended
        assert ended.created is not None
        assert ended.started is not None
        assert ended.created <= ended.started
        self.findings["seconds from creation to RUNNING"] = round(ended.started - ended.created)
        begun = time.monotonic()
        self._until(lambda: any("step 3:" in text for text in self._chief(handle)), "its last line is in the log")
        self.findings["seconds until the last line is in the log"] = _since(begun)
        steps = [text for text in self._chief(handle) if text.startswith("step ")]
        assert len(steps) == len(set(steps)) == 3, steps
        assert self.storage.exists(f"{JobDir(handle.job_dir).model}result.json")
        self.findings["console"] = self.backend.console_url(handle)

    def _uploaded(self, handle: JobHandle) -> None:
        """Register the model twice: there must be only one version. It stays in the registry."""
        begun = time.monotonic()
        job_dir = JobDir(handle.job_dir)
        champion = Champion(
            model=f"mlengine-system-{self.mark}",
            serial=1,
            action=Action.PUBLISHED,
            job_id=handle.job_id,
            job_dir=job_dir.uri,
            model_uri=job_dir.model.rstrip("/"),
            verdict="first",
            metric="accuracy",
            metric_value=1.0,
            by="make system",
            why="The upload of a model is tried.",
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=self.mark,
        )
        first, again = self.registry.register(champion), self.registry.register(champion)
        assert (first.version, first.created) == ("1", True), first
        assert (again.version, again.created) == ("1", False), again
        self.findings["seconds to upload a model and to find it again"] = _since(begun)
        self.findings["the uploaded model, to be deleted by hand"] = first.name

    def _chief(self, handle: JobHandle) -> list[str]:
        lines: list[str] = []
        cursor: Any = {}
        while True:
            page = self.backend.logs(handle, cursor, limit=50)
            lines += [line.text for line in page.lines if line.replica == "chief-0"]
            cursor = page.cursor
            if not page.lines:
                return lines

    def _describe(self, handle: JobHandle) -> JobStatus:
        return self.backend.describe([handle])[0]

    def _ended(self, handle: JobHandle) -> JobStatus:
        self._until(lambda: "endTime" in self._raw(handle), f"{handle.job_id} ends")
        self._note_error(handle)
        self._until(lambda: self._describe(handle).state.terminal, f"the end of {handle.job_id} is known")
        return self._describe(handle)

    def _raw(self, handle: JobHandle) -> dict[str, Any]:
        found = self.backend._open().get(handle.name)
        assert found is not None, handle
        return found

    def _note_error(self, handle: JobHandle) -> None:
        """Record the service's own state and error of an ended job, and when the error appeared."""
        name = handle.job_id.split("_")[1]
        seen = time.time()
        job = self._raw(handle)
        while "error" not in job and job["state"] == "JOB_STATE_FAILED" and time.time() - seen < ERROR_SECONDS:
            time.sleep(min(2.0, self.patience / 300))
            job = self._raw(handle)
        found = {"state": job["state"], "error": job.get("error")}
        if "error" in job:
            found["seconds from endTime until the error was seen"] = round(time.time() - seconds(job["endTime"]), 1)
        self.findings[f"raw end of job {name}"] = found

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {self.patience:.0f} s: {what}")
            time.sleep(min(5.0, self.patience / 300))


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)
