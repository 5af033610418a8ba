"""Runs the scoring process with time and memory limits and a minimal environment.

The process ends by itself, or is killed when

* it has run for ``seconds``, counted from the loading of the model
* it uses more than ``memory_bytes``. The kernel enforces this limit for each process; this process adds up the
  resident memory of all processes that it started
* it has started more than ``processes`` processes
* this process ends: its stdin is a pipe from here

It runs in its own session. The whole process group is killed, and so are processes that have left the group,
which are found by a variable in their environment.

It gets no credentials, no ``TF_CONFIG``, no proxy and no accelerator. A failure of the model is reported in
:class:`Measured`; a failure of the environment is raised.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import EnvironmentBuildError, MlengineError
from mlengine.runtime import processes
from mlengine.runtime.env_allowlist import MARK
from mlengine.validation.heldout import Heldout
from mlengine.validation.scored_model import ScoredModel

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float64]]

PROCESS = Path(__file__).parent / "scoring" / "process.py"
POLL = 0.05
_GROUP_POLL_SECONDS = 0.5  # interval of the check of all processes, which is more expensive
# In these stages the model has not been loaded: a failure is not caused by the model.
_BEFORE_MODEL = frozenset({"", "import", "held-out data"})
_START_SECONDS = 600.0  # time limit of these stages
_MAX_ERROR_LENGTH = 300  # characters of the error that the model raised
_INHERITED = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Limits:
    """Limits of the scoring process.

    :param seconds: time from the loading of the model to the end. The import of TensorFlow does not count.
    :param memory_bytes: private memory; ``None`` for no limit. TensorFlow alone uses about 0.6 GB.
    :param processes: maximum number of processes at a time, including descendants.
    :param batch: number of held-out rows per call; by default 500, and up to 8192 for tables.
    """

    seconds: float = 600.0
    memory_bytes: int | None = 4 * 1024**3
    processes: int = 64
    batch: int | None = None


@dataclass(frozen=True)
class Measured:
    """The measurements of the scoring process.

    :param figures: the model's measurements; empty if it failed.
    :param baseline: the champion's measurements; empty if there is no champion, and ``error`` if it failed.
    :param error: why the model failed, as a message; empty if it did not.
    :param outputs: the model's outputs for the held-out rows, float64 (rows, values); ``None`` if it failed.
    :param baseline_outputs: the champion's.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    outputs: Matrix | None = None
    baseline_outputs: Matrix | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def run_model(
    python: Path,
    model: ScoredModel,
    heldout: Heldout,
    *,
    work: Path,
    baseline: ScoredModel | None = None,
    limits: Limits = Limits(),
    only: Sequence[int] | None = None,
) -> Measured:
    """Run ``model`` on the held-out rows with the interpreter ``python``.

    :param work: an empty folder for the output of the process; also its home and its working directory.
    :param baseline: the champion, which is measured in the same process.
    :param only: rows to predict; then nothing else is measured.
    :raises EnvironmentBuildError: the environment lacks the model's framework or NumPy.
    :raises MlengineError: the process failed before it loaded the model.
    """
    out = work / "out"
    out.mkdir(parents=True)
    config = {
        "out": str(out),
        "rows": str(heldout.folder),
        "model": model.to_json(),
        "baseline": baseline.to_json() if baseline else None,
        "batch": limits.batch,
        "memory_bytes": limits.memory_bytes,
        "only": None if only is None else list(only),
    }
    (work / "scoring.json").write_text(json.dumps(config))
    started = time.monotonic()
    code, kill_reason = _run(python, work, limits)
    return _read(work, model, code, kill_reason, time.monotonic() - started)


def _run(python: Path, work: Path, limits: Limits) -> tuple[int, str]:
    """The exit code, and why the probe was killed (``""`` if it ended by itself)."""
    with (work / "scoring.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-I", str(PROCESS), str(work / "scoring.json")],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=work,
            env=_environment(work),
            start_new_session=True,
        )
    kill_reason, deadline, model_started = "", time.monotonic() + _START_SECONDS, False
    next_group_check = 0.0
    try:
        while not kill_reason:
            try:
                process.wait(POLL)
                break
            except subprocess.TimeoutExpired:
                if not model_started and _text(work / "out" / "stage") not in _BEFORE_MODEL:
                    deadline, model_started = time.monotonic() + limits.seconds, True
                kill_reason = _limit_exceeded(process.pid, deadline, limits, model_started=model_started)
                if not kill_reason and time.monotonic() > next_group_check:
                    kill_reason, next_group_check = (
                        _group_limit_exceeded(work, limits),
                        time.monotonic() + _GROUP_POLL_SECONDS,
                    )
    finally:
        _kill(process, work)
    return process.returncode, kill_reason


def _limit_exceeded(pid: int, deadline: float, limits: Limits, *, model_started: bool) -> str:
    """Which limit the probe exceeds; ``""`` if none."""
    if time.monotonic() > deadline:
        return f"was killed after {limits.seconds if model_started else _START_SECONDS:.0f} s"
    if limits.memory_bytes and _resident(pid) > limits.memory_bytes:
        return f"was killed for using more than {_gib(limits.memory_bytes)} of memory"
    return ""


def _group_limit_exceeded(work: Path, limits: Limits) -> str:
    """Which limit the probe and its descendants exceed together; ``""`` if none."""
    group = processes.of_job(work)
    if len(group) > limits.processes:
        return f"was killed for starting more than {limits.processes} processes"
    if limits.memory_bytes and sum(_resident(process.pid) for process in group) > limits.memory_bytes:
        return f"was killed for using more than {_gib(limits.memory_bytes)} of memory in {len(group)} processes"
    return ""


def _kill(process: subprocess.Popen[bytes], work: Path) -> None:
    """Kill the process group, and the processes that have left it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    processes.end_all(lambda: processes.of_job(work), 0.0)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _environment(work: Path) -> dict[str, str]:
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    env |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "1"}
    return {**env, **quiet, "HOME": str(work), "TMPDIR": str(work), MARK: str(work)}


def _resident(pid: int) -> int:
    """Bytes of private resident memory; 0 if unknown."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _read(work: Path, model: ScoredModel, code: int, kill_reason: str, seconds: float) -> Measured:
    out = work / "out"
    stage = _text(out / "stage")
    written = _json(out / "model.json", {})
    error = written.get("error") if isinstance(written, dict) else {"stage": stage, "message": "no measurements"}
    complete = (out / "model.json").exists() and not error
    if code == 4 and error:
        raise EnvironmentBuildError(
            f"the trainer's environment cannot load the model ({model.kind}): {error['message']}",
            hint="add the model's framework and numpy to the trainer's dependencies, or use validation_level='files'",
        )
    if not complete and not error and stage in _BEFORE_MODEL:
        raise MlengineError(
            f"the scoring process {kill_reason or f'exited with code {code}'} at {stage or 'its start'}, before it"
            f" loaded the model:\n{_tail(work / 'scoring.log')}",
            hint="see its last lines above; time_limit_seconds and memory_limit_gib set its limits",
        )
    reason = ""
    if error:
        reason = f"The model failed at {error['stage']}: {' '.join(error['message'].split())[:_MAX_ERROR_LENGTH]}"
    elif not complete:
        reason = f"The model {kill_reason or _exit_reason(code)} at {stage}."
    baseline = _json(out / "baseline.json", {})
    if complete and (kill_reason or code) and not baseline:
        baseline = {"error": {"stage": stage, "message": f"the champion {kill_reason or _exit_reason(code)}"}}
    return Measured(
        figures=written if complete else {},
        baseline=baseline,
        error=reason,
        outputs=_matrix(out / "model.npy") if complete else None,
        baseline_outputs=_matrix(out / "baseline.npy"),
        environment=_json(out / "environment.json", {}),
        seconds=seconds,
    )


def _exit_reason(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = ", possibly because it reached the memory limit" if name in {"SIGABRT", "SIGKILL", "SIGSEGV"} else ""
        return f"crashed its process ({name}{hint})"
    return f"exited with code {code}"


def _matrix(path: Path) -> Matrix | None:
    import numpy as np

    return np.load(path) if path.exists() else None


def _json(path: Path, default: Any) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else default


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
