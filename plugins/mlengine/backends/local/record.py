"""The files of a job in the state directory.

::

    jobs/<key>-<attempt>/
        submission.json    the commit point of a submission: linked into place once, never changed
        state.json         the job's state, replaced atomically by the holder of the file lock
        lease              a lock file (prose: ok); the launcher holds the lock while it runs
        cancel             marker: the job is to be cancelled
        orphans            marker: the launcher has died, and its processes are being ended
        uploaded           marker: all logs have been uploaded completely
        launcher.log       the launcher's log
        logs/<role>-<index>.log
        logs/<role>-<index>.stderr.log   if the job keeps stderr apart
        work/<role>-<index>/   scratch that survives restarts of the replica

A file is complete or absent: written to a temporary file, flushed to the disk, renamed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlengine.backends import Submission
from mlengine.backends.local.settings import Settings
from mlengine.core.errors import BackendError, MlengineError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import TrainingSpec
from mlengine.runtime.json_files import read_json

FORMAT = 1
STDERR = ".stderr"
_PLAIN = re.compile(r"^[A-Za-z0-9_]{1,64}$")


def job_name(key: str, attempt: int) -> str:
    """The job's name. It depends only on key and attempt, so a repeated submission names the same job."""
    return f"{key_name(key)}-{attempt}"


def key_name(key: str) -> str:
    return key if _PLAIN.match(key) else hashlib.sha256(key.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Job:
    """The paths of one job's files, and the methods that read them."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def state_dir(self) -> Path:
        return self.root.parent.parent

    @property
    def submission_file(self) -> Path:
        return self.root / "submission.json"

    @property
    def state_file(self) -> Path:
        return self.root / "state.json"

    @property
    def lock_file(self) -> Path:
        """The file that the launcher keeps locked while it runs."""
        return self.root / "lease"  # prose: ok - the name is in existing state directories

    @property
    def cancel_file(self) -> Path:
        return self.root / "cancel"

    @property
    def orphans_file(self) -> Path:
        """The marker that the shutdown of orphan processes has started."""
        return self.root / "orphans"

    @property
    def step_file(self) -> Path:
        """The file with the result of the last ``stage`` process."""
        return self.root / "step.json"

    @property
    def uploaded_file(self) -> Path:
        """The marker that all logs have been uploaded completely."""
        return self.root / "uploaded"

    @property
    def launcher_log(self) -> Path:
        return self.root / "launcher.log"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def work(self) -> Path:
        """The directory of the replicas' scratch directories."""
        return self.root / "work"

    def scratch(self, replica: str) -> Path:
        return self.work / replica

    def log(self, replica: str) -> Path:
        """The log file of a replica. ``replica`` is ``role-index``, or ``launcher``."""
        return self.launcher_log if replica == "launcher" else self.logs / f"{replica}.log"

    def stderr_log(self, replica: str) -> Path:
        """The log file of a replica's stderr, if the job keeps it apart."""
        return self.logs / f"{replica}{STDERR}.log"

    def submission(self) -> Stored | None:
        """The submission; ``None`` if there is none, as when its submitter died before writing it."""
        data = read_json(self.submission_file)
        return None if data is None else Stored.from_json(data)

    def state(self) -> dict[str, Any] | None:
        """The state that the launcher wrote last; ``None`` if it has written none.

        An unreadable file counts as an unknown state: the launcher replaces it, or the job is reconciled as lost.
        """
        try:
            return read_json(self.state_file)
        except BackendError as error:
            return {"state": JobState.UNKNOWN.value, "detail": error.message}

    def terminal(self) -> bool:
        state = self.state()
        return state is not None and JobState(state["state"]).terminal


@dataclass(frozen=True)
class Stored:
    """A submission on disk, with the settings with which it was made.

    :param host: the host on which it was submitted (:mod:`mlengine.backends.local.host`).
    :param separate_stderr: whether the stderr of each replica has its own log.
    """

    submission: Submission
    settings: Settings
    created: float
    host: str = ""
    separate_stderr: bool = False

    @property
    def name(self) -> str:
        return job_name(self.submission.key, self.submission.attempt)

    @property
    def handle(self) -> JobHandle:
        it = self.submission
        return JobHandle(
            "local", f"{self.host}:{self.name}" if self.host else self.name, it.job_id, it.attempt, it.job_dir
        )

    def to_json(self) -> dict[str, Any]:
        it = self.submission
        return {
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
            "created": self.created,
            "host": self.host,
            "separate_stderr": self.separate_stderr,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Stored:
        """Read the content of ``submission.json``.

        :raises BackendError: the file was written by another version of this project, or by another program.
        """
        try:
            submission = Submission(
                key=data["key"],
                job_id=data["job_id"],
                attempt=data["attempt"],
                job_dir=data["job_dir"],
                spec=TrainingSpec.from_json(data["spec"]),
                labels=data["labels"],
                project=data.get("project", ""),
                region=data.get("region", ""),
            )
            settings = Settings.from_json(data["settings"])
            separate = data.get("separate_stderr", False)
            return cls(submission, settings, data["created"], data.get("host", ""), separate)
        except (KeyError, TypeError, ValueError, AttributeError, MlengineError) as error:
            raise BackendError(
                f"job {data.get('job_id', '(unknown)')}: its submission.json cannot be read: {error!r}",
                hint="if another version of mlengine wrote it, use that version; otherwise submit the job again",
            ) from error
