"""What the service remembers of a job, on disk: one JSON file a job, replaced whole."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from mlengine.backends import Submission
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import TrainingSpec

VERTEX, MLENGINE = "vertex", "mlengine"


@dataclass(frozen=True)
class Record:
    """A job as a client made it, and what became of it. Times are seconds since the epoch.

    :param face: whose API made it; ids of the two faces do not meet.
    :param region: empty for ML Engine, whose jobs are a project's.
    :param body: the resource as the client sent it, without what the service fills in.
    :param submission: what is handed to the backend.
    :param handle: what the backend gave for it; ``None`` until it has taken the job.
    :param error: ``google.rpc.Status``: code and message.
    :param notes: sentences that the service says in the job's log before anything else.
    :param stuck: a scripted fault: never handed to the backend.
    """

    face: str
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

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.face, self.project, self.region, self.id

    @property
    def labels(self) -> Mapping[str, str]:
        labels: Mapping[str, str] = self.body.get("labels", {})
        return labels

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "state": self.state.value, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        handle = data.get("handle")
        return cls(
            **{
                **data,
                "state": JobState(data["state"]),
                "handle": JobHandle.from_json(handle) if handle else None,
                "notes": tuple(data.get("notes", ())),
            }
        )


def pack(submission: Submission) -> dict[str, Any]:
    """A submission as JSON."""
    return {**asdict(submission), "spec": submission.spec.to_json(), "labels": dict(submission.labels)}


def unpack(data: Mapping[str, Any]) -> Submission:
    return Submission(**{**data, "spec": TrainingSpec.from_json(data["spec"])})


@dataclass
class Store:
    """All records, in memory and below ``folder``. A record is on disk before anybody is told of it."""

    folder: Path
    _records: dict[tuple[str, str, str, str], Record] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.folder.glob("*.json")):
            record = Record.from_json(json.loads(path.read_text("utf-8")))
            self._records[record.key] = record

    def get(self, key: tuple[str, str, str, str]) -> Record | None:
        with self._lock:
            return self._records.get(key)

    def all(self) -> list[Record]:
        with self._lock:
            return list(self._records.values())

    def put(self, record: Record) -> None:
        path = self.folder / ("-".join(part for part in record.key if part) + ".json")
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        with self._lock:
            aside.write_text(json.dumps(record.to_json()), "utf-8")
            os.replace(aside, path)  # noqa: PTH105 - the one call that says what it does
            self._records[record.key] = record
