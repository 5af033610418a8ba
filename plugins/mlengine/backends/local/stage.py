"""The steps of a job that use the bucket, each in its own process: build the environment before the training; check
for outputs and upload the logs after it.

Google's library needs three times the memory of the launcher, which may wait for hours. A separate process also can
be ended at once when the job is cancelled.

``python -m mlengine.backends.local.stage prepare|outputs|upload JOB`` writes messages to the launcher's log and its
result to ``step.json``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlengine.backends.local import gpus, job_files
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.replica_env import own_variables
from mlengine.backends.outputs import wrote_nothing
from mlengine.core.errors import EnvironmentBuildError, MlengineError
from mlengine.core.layout import JobDir, join
from mlengine.runtime import data_cache
from mlengine.runtime.extras import ACCELERATOR_TYPE
from mlengine.runtime.json_files import write_json
from mlengine.runtime.state_dir import disk_is_full
from mlengine.runtime.venv import build_environment
from mlengine.storage.client import Storage

# Only the end of a long log is uploaded; the whole log stays on this machine.
_MOST_BYTES = 4 << 20
_PASSING = re.compile(
    r"error sending request|connection (?:refused|reset|closed)|timed out|dns error|temporary failure in name|"
    r"status (?:server error|code) \(?5\d\d|429 too many|no space left|os error 28",
    re.IGNORECASE,
)


def prepare(job: Job, stored: Stored, storage: Storage) -> dict[str, Any]:
    """Build the job's environments, for replicas with and without GPUs. Return the environments' digests by role.

    Before that, remove files of old jobs, and data of the trainers that is no longer used.
    """
    spec, built = stored.submission.spec, {}
    job_files.remove_old(job.state_dir, stored.settings.keep_job_files_days, say)
    data_cache.remove_unused(job.state_dir, stored.settings.keep_data_days, say)
    for pool in spec.pools:
        kind = gpus.accelerator(pool)
        if kind not in built:
            built[kind] = build_environment(
                spec.package_uris,
                storage,
                job.state_dir,
                python=stored.settings.python_path,
                env={ACCELERATOR_TYPE: kind, **own_variables(stored.submission)},
                seconds=stored.settings.build_timeout_seconds,
                keep_environments=stored.settings.keep_environments,
                say=say,
            )
    environment = built[gpus.accelerator(spec.pools[0])]
    # This is recorded before the job starts, so that the record exists however the job ends.
    text = "".join(f"{line}\n" for line in environment.lock)
    uri = JobDir(stored.submission.job_dir.rstrip("/")).environment
    try:
        storage.write(uri, text.encode(), "text/plain; charset=utf-8")
    except MlengineError as error:  # it is only a record: the job can run without it
        say(f"the list of installed packages could not be written to the bucket: {error.message}")
    return {"digests": {pool.role.value: built[gpus.accelerator(pool)].digest for pool in spec.pools}}


def outputs(job: Job, stored: Stored, storage: Storage) -> dict[str, Any]:  # noqa: ARG001 - one signature for all steps
    """Check whether the trainer wrote any output."""
    return {"empty": wrote_nothing(storage, stored.submission.job_dir)}


def upload(job: Job, stored: Stored, storage: Storage) -> dict[str, Any]:
    """Upload the logs of all replicas to the job dir; of a long log, only its end."""
    folder = JobDir(stored.submission.job_dir.rstrip("/")).logs
    logs = (job.launcher_log, *sorted(job.logs.glob("*.log")))
    for path in logs:
        uri = join(folder, f"attempt-{stored.submission.attempt}", path.name)
        storage.write(uri, _tail(path), "text/plain; charset=utf-8")
    if all(path.stat().st_size <= _MOST_BYTES for path in logs):
        job.uploaded_file.touch()
    return {}


def is_temporary(error: MlengineError) -> bool:
    """Whether a build that failed can succeed later, as after a full disk or a package index that does not respond.

    uv reports such errors only in the text of its messages.
    """
    if isinstance(error, EnvironmentBuildError):
        return _PASSING.search(error.message) is not None
    return error.retryable


def say(text: str) -> None:
    """Write one line to the launcher's log."""
    if text:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _MOST_BYTES))
        data = file.read()
    if size <= _MOST_BYTES:
        return data
    return f"[the first {size - _MOST_BYTES} bytes are only on the training machine]\n".encode() + data


_STEPS: dict[str, Callable[[Job, Stored, Storage], dict[str, Any]]] = {
    "prepare": prepare,
    "outputs": outputs,
    "upload": upload,
}


def main(argv: list[str]) -> int:
    verb, job = argv[0], Job(Path(argv[1]))
    stored = job.submission()
    if stored is None:
        return 2
    try:
        result = _STEPS[verb](job, stored, Storage())
    except MlengineError as error:
        say(str(error))
        result = {"error": type(error).__name__, "message": str(error), "retryable": is_temporary(error)}
    except OSError as error:
        say(f"the step {verb} failed: {error}")
        hint = "free disk space" if disk_is_full(error) else f"see {job.launcher_log}"
        message = f"the step {verb} failed on this machine: {error}\n  What to do: {hint}"
        result = {"error": type(error).__name__, "message": message, "retryable": True}
    if verb != "upload":  # its result is not read, and the job may be removed meanwhile
        write_json(job.step_file, result)
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
