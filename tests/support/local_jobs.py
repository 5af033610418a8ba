"""Helpers for tests of local jobs: small trainers, their packages, and waiting for a job."""

from __future__ import annotations

import gzip
import io
import tarfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlengine.backends import LogLine, Submission
from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime import processes
from mlengine.storage.client import Storage

WAIT = 60.0

_PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "{version}"
dependencies = {dependencies}
[tool.setuptools]
packages = ["{name}"]
"""


def sdist(
    source: str,
    *,
    name: str = "tiny",
    version: str = "1.0",
    dependencies: str = "[]",
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """A source distribution of a trainer whose module ``<name>.task`` is ``source``."""
    files = {
        "pyproject.toml": _PROJECT.format(name=name, version=version, dependencies=dependencies),
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}/__init__.py": "",
        f"{name}/task.py": textwrap.dedent(source),
        **(extra or {}),
    }
    buffer = io.BytesIO()
    # Equal sources must give equal bytes, so that jobs share an environment.
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def wheel(source: str) -> bytes:
    """The same trainer as a wheel, which does not need to be built."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny/__init__.py": "",
        "tiny/task.py": textwrap.dedent(source),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def thing_wheel(folder: Path) -> Path:
    """A wheel in ``folder`` with one module, ``thing``, which prints where it is installed."""
    path = folder / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing.py", "import sys; print('thing in', sys.prefix)")
        archive.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        archive.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.dist-info/RECORD", "thing.py,,\n")
    return path


# One trainer for most tests, so that its environment is built only once. Each role does what its `--do` argument says.
ACTOR = """
import argparse, json, os, signal, socket, subprocess, sys, time
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
for role in ("chief", "worker", "ps", "evaluator"):
    parser.add_argument(f"--{role}", default="")
parser.add_argument("--job-dir")
args = parser.parse_args()
config = json.loads(os.environ.get("TF_CONFIG") or "{}")
task = config.get("task", {"type": "chief", "index": 0})
me = f"{task['type']}-{task['index']}"
scratch = Path(os.environ["MLENGINE_SCRATCH"])
restarts = len(list(scratch.glob("restart-*")))
(scratch / f"restart-{restarts}").touch()

def say(*words):
    print(*words, flush=True)

def until(path):
    while not Path(path).exists():
        time.sleep(0.02)

say(f"{me} restart {restarts}")
exec(getattr(args, task["type"].replace("master", "chief")) or "")
"""


def put(storage: Storage, bucket: str, data: bytes, name: str = "tiny-1.0.tar.gz") -> str:
    uri = f"{bucket}/packages/{name}"
    storage.write(uri, data)
    return uri


def spec(
    uri: str, *, worker: int = 0, ps: int = 0, evaluator: int = 0, module: str = "tiny.task", **more: Any
) -> TrainingSpec:
    counts = {Role.CHIEF: 1, Role.WORKER: worker, Role.PS: ps, Role.EVALUATOR: evaluator}
    pools = tuple(Pool(role, count) for role, count in counts.items() if count)
    return TrainingSpec(module=module, package_uris=(uri,), pools=pools, **more)


def acts(**acts: str) -> tuple[str, ...]:
    """The arguments that tell each role of :data:`ACTOR` what to do."""
    return tuple(word for role, act in acts.items() for word in (f"--{role}", textwrap.dedent(act)))


def submission(bucket: str, job_spec: TrainingSpec, *, key: str = "k" * 40, attempt: int = 1) -> Submission:
    return Submission(key, f"job_{key[:8]}", attempt, f"{bucket}/m/job_{key[:8]}", job_spec)


def describe(backend: LocalBackend, handle: JobHandle) -> JobStatus:
    return backend.describe([handle])[0]


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT, *, pause: float = 0.03) -> Any:
    """Wait until ``condition`` returns a true value, and return that value.

    :param pause: the seconds between two calls; longer for a call that takes much CPU time.
    :raises AssertionError: it did not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise AssertionError(f"not within {seconds} s: {what}")


def until_state(backend: LocalBackend, handle: JobHandle, *states: JobState) -> JobStatus:
    deadline = time.monotonic() + WAIT
    while True:
        status = describe(backend, handle)
        if status.state in states:
            return status
        if status.state.terminal or time.monotonic() > deadline:
            raise AssertionError(f"{status}\n" + "\n".join(texts(backend, handle)))
        time.sleep(0.03)


def until_ended(backend: LocalBackend, handle: JobHandle) -> JobStatus:
    return until_state(backend, handle, *(state for state in JobState if state.terminal))


def lines(backend: LocalBackend, handle: JobHandle, limit: int = 1000) -> Iterator[LogLine]:
    cursor: Mapping[str, Any] = {}
    while True:
        page = backend.logs(handle, cursor, limit)
        yield from page.lines
        cursor = page.cursor
        if not page.more:
            return


def run(
    backend: LocalBackend, bucket: str, job_spec: TrainingSpec, *, key: str = "k" * 40
) -> tuple[JobHandle, JobStatus]:
    """Submit a job and wait for its end."""
    handle = backend.submit(submission(bucket, job_spec, key=key))
    return handle, until_ended(backend, handle)


def texts(backend: LocalBackend, handle: JobHandle) -> list[str]:
    return [f"{line.replica}: {line.text}" for line in lines(backend, handle)]


def alive(backend: LocalBackend, handle: JobHandle) -> list[processes.Process]:
    return processes.of_job(backend._job(handle.name).root)


def launcher_pid(backend: LocalBackend, handle: JobHandle) -> int:
    """The PID of the process whose command line is that of the job's launcher."""
    root = str(backend._job(handle.name).root)
    for process in Path("/proc").glob("[1-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "mlengine.backends.local.launcher" in command and root in command:
            return int(process.name)
    return 0


def end_everything(backend: LocalBackend) -> None:
    """Cancel all jobs that still run, and check that no launcher or replica is left."""
    for handle in backend.jobs():
        backend.cancel(handle)
    for handle in backend.jobs():
        until_ended(backend, handle)
        until(partial(_launcher_gone, backend, handle), "the launcher ends")
        assert not alive(backend, handle)


def _launcher_gone(backend: LocalBackend, handle: JobHandle) -> bool:
    return not launcher_pid(backend, handle)
