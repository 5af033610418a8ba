"""Stores the emulator's job records. Each is one JSON file, which is replaced atomically."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from mlengine.backends import Submission
from mlengine.core.errors import EmulatorError, MlengineError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import TrainingSpec
from mlengine.emulator.job_faults import JobFaults

VERTEX, MLENGINE = "vertex", "mlengine"
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Record:
    """A job as a client created it, and its state. Times are seconds since the epoch.

    :param api: the API that created the job. Each API has its own ids.
    :param region: the region; empty for ML Engine, whose jobs belong to a project.
    :param body: the resource as the client sent it, without output-only fields.
    :param submission: the submission for the backend.
    :param handle: the backend's handle; ``None`` until the job is submitted.
    :param error: the job's error as ``google.rpc.Status``, with code and message.
    :param notes: the first messages of the job's log.
    :param stuck: whether a scripted fault prevents the job's submission.
    :param deleted: whether the job is hidden. Its id cannot be used again.
    :param faults: the state of the job's scripted faults.
    """

    api: str
    project: str
    region: str
    id: str
    body: Mapping[str, Any]
    submission: Mapping[str, Any]
    created: float
    updated: float
    state: JobState = JobState.QUEUED
    started: float | None = None
    ended: float | None = None
    handle: JobHandle | None = None
    error: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    stuck: bool = False
    deleted: bool = False
    faults: JobFaults = field(default_factory=JobFaults)

    @property
    def key(self) -> Key:
        """The identity of the job: API, project, region and id."""
        return self.api, self.project, self.region, self.id

    @property
    def labels(self) -> Mapping[str, str]:
        """The job's labels."""
        labels: Mapping[str, str] = self.body.get("labels", {})
        return labels

    @property
    def shown_error(self) -> Mapping[str, Any] | None:
        """The error that clients see now. The service may show the error of a failed job some time after its end."""
        late = self.state is JobState.FAILED and time.time() < (self.ended or 0.0) + self.faults.error_delay
        return None if late else self.error

    @property
    def waited_too_long(self) -> bool:
        """Whether the job has never run and has reached the service's time limit for waiting for machines."""
        most = self.submission["spec"].get("max_wait_seconds")
        return self.started is None and most is not None and time.time() - self.created >= most

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {**asdict(self), "state": self.state.value, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The record that :meth:`to_json` wrote."""
        handle = data.get("handle")
        return cls(
            **{
                **data,
                "state": JobState(data["state"]),
                "handle": JobHandle.from_json(handle) if handle else None,
                "notes": tuple(data.get("notes", ())),
                "faults": JobFaults(**data.get("faults", {})),
            }
        )


def file_name(key: Key) -> str:
    """The base name of a job's files in the state directory."""
    return "-".join(part for part in key if part)


def pack(submission: Submission) -> dict[str, Any]:
    """A submission as JSON."""
    return {**asdict(submission), "spec": submission.spec.to_json(), "labels": dict(submission.labels)}


def unpack(data: Mapping[str, Any]) -> Submission:
    """The submission that :func:`pack` wrote."""
    return Submission(**{**data, "spec": TrainingSpec.from_json(data["spec"])})


@dataclass
class Store:
    """All records, in memory and in ``folder``. A method returns a record after writing it to disk. Thread-safe.

    :raises EmulatorError: a file is not a record.
    """

    folder: Path
    _records: dict[Key, Record] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = Record.from_json(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError, KeyError, AttributeError, MlengineError) as error:
                raise EmulatorError(
                    f"cannot read the job record {path}: {error!r}",
                    hint="check its permissions, and whether another version wrote it; or choose another --state-dir",
                ) from error
            self._records[record.key] = record

    def get(self, key: Key) -> Record | None:
        """The record of a job."""
        with self._lock:
            return self._records.get(key)

    def all(self) -> list[Record]:
        """All records, including those of deleted jobs."""
        with self._lock:
            return list(self._records.values())

    def put(self, record: Record) -> None:
        """Create or replace a record."""
        path = self.folder / f"{file_name(record.key)}.json"
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        with self._lock:
            partial.write_text(json.dumps(record.to_json()), "utf-8")
            os.replace(partial, path)  # noqa: PTH105 - os.replace is explicit about overwriting
            self._records[record.key] = record
