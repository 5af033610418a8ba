"""The objects of a Ray job in its job dir, in the folder ``ray/<job name>/``.

::

    submission-<digest>.json   the submission and its settings; written before the job is submitted
    cluster.json               the address of the cluster that the job is submitted to; written once, before that
    state.json                 the driver's state of the job, replaced at each change
    log/<number>.jsonl         lines of all replicas, in order of arrival; written once
    cancel.json                exists if a cancellation was requested
    lost.json                  since when the job is lost; lost-checked.json is the time of the last check

The driver is the only writer of state and log. A job's name follows from key and attempt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlengine.backends import Submission
from mlengine.backends.ray.settings import RaySettings
from mlengine.core.errors import BackendError, JobFileError
from mlengine.core.job import JobHandle
from mlengine.core.layout import join
from mlengine.core.spec import TrainingSpec

FORMAT = 1
PREFIX = "mlengine-"
_PLAIN = re.compile(r"[A-Za-z0-9_]{1,64}")


def job_name(key: str, attempt: int) -> str:
    """Ray's ``submission_id``: Ray itself refuses a second job of that name."""
    return f"{PREFIX}{key_name(key)}-{attempt}"


def key_name(key: str) -> str:
    """The key in the form in which it is part of names."""
    return key if _PLAIN.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()[:40]


def folder(handle: JobHandle) -> str:
    """The job's folder in its job dir."""
    return join(handle.job_dir, "ray", handle.name)


def state_uri(own: str) -> str:
    """The URI of the driver's state.

    :param own: the job's folder, as :func:`folder` returns it.
    """
    return join(own, "state.json")


def cluster_uri(own: str) -> str:
    """The URI of the address of the cluster that the job is submitted to.

    :param own: the job's folder, as :func:`folder` returns it.
    """
    return join(own, "cluster.json")


def cancel_uri(own: str) -> str:
    """The URI of the object that marks a requested cancellation.

    :param own: the job's folder, as :func:`folder` returns it.
    """
    return join(own, "cancel.json")


def chunk_uri(own: str, number: int) -> str:
    """The URI of a chunk of the log.

    :param own: the job's folder, as :func:`folder` returns it.
    """
    return join(own, "log", f"{number:08d}.jsonl")


@dataclass(frozen=True)
class Stored:
    """A submission, with the settings with which it was made."""

    submission: Submission
    settings: RaySettings

    @property
    def name(self) -> str:
        return job_name(self.submission.key, self.submission.attempt)

    @property
    def handle(self) -> JobHandle:
        it = self.submission
        return JobHandle("ray", self.name, it.job_id, it.attempt, it.job_dir)

    @property
    def uri(self) -> str:
        """The URI at which the submission is stored.

        The name contains a digest of the content, because a claim may change before it is submitted.
        """
        digest = hashlib.sha256(self.to_bytes()).hexdigest()[:16]
        return join(folder(self.handle), f"submission-{digest}.json")

    def to_bytes(self) -> bytes:
        it = self.submission
        data = {
            "format": FORMAT,
            "key": it.key,
            "job_id": it.job_id,
            "attempt": it.attempt,
            "job_dir": it.job_dir,
            "labels": dict(it.labels),
            "project": it.project,
            "region": it.region,
            "spec": it.spec.to_json(),
            "settings": self.settings.to_json(),
        }
        return json.dumps(data, indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a stored submission.

        :raises BackendError: another version of this project has written it.
        """
        try:
            raw: Mapping[str, Any] = json.loads(data)
            submission = Submission(
                key=raw["key"],
                job_id=raw["job_id"],
                attempt=raw["attempt"],
                job_dir=raw["job_dir"],
                spec=TrainingSpec.from_json(raw["spec"]),
                labels=raw["labels"],
                project=raw.get("project", ""),
                region=raw.get("region", ""),
            )
            settings = RaySettings.from_json(raw["settings"])
        except (ValueError, KeyError, TypeError, JobFileError) as error:
            raise BackendError(f"not the record of a Ray job: {error}") from error
        return cls(submission, settings)
