"""A walk through Vertex AI with three small jobs: what this project relies on is asserted, what is unknown is noted.

On a real project it costs some cents and a quarter of an hour (``make system``); on the training service, nothing:
``tests/integration/test_vertex_walk.py`` sees that the walk itself is right.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from scripts.bootstrap import ROOT

from mlengine.backends import Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.errors import BackendError
from mlengine.core.job import FailureCause, JobHandle, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.packaging.publish import package_trainer
from mlengine.storage.client import Storage

PYTHON = "3.11"


@dataclass
class Walk:
    """
    :param patience: seconds that one job may take from submission to its end.
    :param findings: what was seen of the service, for people and for docs/vertex.md.
    """

    backend: VertexBackend
    storage: Storage
    bucket: str
    patience: float
    findings: dict[str, Any] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    handles: list[JobHandle] = field(default_factory=list)

    def go(self) -> dict[str, Any]:
        """All steps; jobs that are left when one fails are cancelled.

        :raises AssertionError: the service does not do what this project relies on.
        """
        packaged = package_trainer(ROOT / "examples" / "hello", storage=self.storage, staging=self.bucket)
        try:
            good = self._submission("good", packaged.uris, "--max_steps", "3")
            bad = self._submission("bad", packaged.uris, "--no_such_flag")
            long = self._submission("long", packaged.uris, "--max_steps", "100000", "--step_seconds", "0.2")
            for one in (good, bad, long):
                self._submit(one)
            self._same_again(good, self.handles[0])
            self._refused(packaged.uris)
            self._cancelled(self.handles[2])
            self._failed(self.handles[1])
            self._succeeded(self.handles[0])
        finally:
            for handle in self.handles:
                self.backend.cancel(handle)
        return self.findings

    def _submission(self, name: str, uris: tuple[str, ...], *args: str, machine: str = "n1-standard-4") -> Submission:
        spec = TrainingSpec(
            module="hello.task",
            args=args,
            package_uris=uris,
            pools=(Pool(Role.CHIEF, 1, machine),),
            python_version=PYTHON,
            max_running_seconds=1800,
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
        """What the service says to a machine type that does not exist; an emulator may take it.

        Its family is none that the table of machine types knows, or the job would not be sent.
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
        self._until(lambda: self._describe(handle).state.terminal, f"{handle.job_id} ends")
        return self._describe(handle)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {self.patience:.0f} s: {what}")
            time.sleep(min(5.0, self.patience / 300))


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)
