"""Runs the scoring process with time and memory limits and a minimal environment.

The process ends by itself, or is killed when

* it has run for ``seconds``, counted from the loading of the model
* it uses more than ``memory_bytes``. The kernel enforces this limit for each process; this process adds up the
  resident memory of all processes that it started
* it has started more than ``processes`` processes
* this process ends: the stdin of the scoring process is a pipe from this process

The scoring process runs in its own session. The whole process group is killed, and so are processes that have left the
group, which are found by a variable in their environment.

The scoring process gets no credentials, no ``TF_CONFIG``, no proxy and no accelerator. A failure of the model is
reported in :class:`Measured`; a failure of the environment is raised as an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlengine.runtime import processes
from mlengine.runtime.env_allowlist import MARK
from mlengine.validation.measured import BEFORE_MODEL, Measured, read_measured, read_text
from mlengine.validation.scored_model import ScoredModel

PROCESS = Path(__file__).parent / "scoring" / "process.py"
POLL = 0.05
_GROUP_POLL_SECONDS = 0.5  # interval of the check of all processes, which is more expensive
_START_SECONDS = 600.0  # the time limit from the writing of the rows to the loading of the model
_INHERITED = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Limits:
    """Limits of the scoring process.

    :param seconds: the time from the loading of the model to the end. The import of its framework does not count.
    :param memory_bytes: the private memory; ``None`` for no limit. TensorFlow alone uses about 0.6 GB.
    :param processes: the maximum number of processes at a time, including descendants.
    :param batch: the number of held-out rows per call; by default 500, and up to 8192 for tables.
    """

    seconds: float = 600.0
    memory_bytes: int | None = 4 * 1024**3
    processes: int = 64
    batch: int | None = None


class ScoringProcess:
    """A run of the scoring process, as a context manager that kills the process at the end of its block.

    The process imports the model's framework while the held-out rows are being written; :meth:`measure` signals that
    they are complete. The limits of the process are checked in a thread.

    :param python: the interpreter of the trainer's environment.
    :param rows: the folder of the held-out rows; its files may be written later.
    :param work: an empty folder for the output of the process; also its home and its working directory.
    :param baseline: the champion, which is measured in the same process.
    :param only: numbers of the rows to predict; then nothing else is measured. Rows that do not exist are ignored.
    """

    def __init__(
        self,
        python: Path,
        model: ScoredModel,
        rows: Path,
        *,
        work: Path,
        baseline: ScoredModel | None = None,
        limits: Limits = Limits(),
        only: Sequence[int] | None = None,
    ) -> None:
        self._python, self._model, self._work, self._limits = python, model, work, limits
        self._config = {
            "out": str(work / "out"),
            "rows": str(rows),
            "model": model.to_json(),
            "baseline": baseline.to_json() if baseline else None,
            "batch": limits.batch,
            "memory_bytes": limits.memory_bytes,
            "only": None if only is None else list(only),
        }
        self._rows_written, self._cancelled = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        work = self._work
        (work / "out").mkdir(parents=True)
        (work / "scoring.json").write_text(json.dumps(self._config))
        with (work / "scoring.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-I", str(PROCESS), str(work / "scoring.json")],
                stdin=subprocess.PIPE,
                bufsize=0,  # a buffer that the process did not read would be written again when the pipe is closed
                stdout=log,
                stderr=log,
                cwd=work,
                env=_environment(work),
                start_new_session=True,
            )
        self._pool = ThreadPoolExecutor(1, "scoring-process")
        self._ended = self._pool.submit(self._supervise)
        return self

    def __exit__(self, *_: object) -> None:
        self._cancelled.set()
        self._pool.shutdown()
        if self._process.stdin:
            self._process.stdin.close()

    def measure(self) -> Measured:
        """Let the process score the rows, which must be complete, and wait for its end.

        :raises EnvironmentBuildError: the environment lacks the model's framework or NumPy.
        :raises MlengineError: the process failed before it loaded the model.
        """
        self._rows_written.set()
        stdin = self._process.stdin
        with contextlib.suppress(OSError):  # the process has ended
            if stdin:
                stdin.write(b"rows\n")
        code, kill_reason = self._ended.result()
        return read_measured(self._work, self._model.kind, code, kill_reason)

    def _supervise(self) -> tuple[int, str]:
        """The exit code, and the reason why the process was killed (``""`` if it ended by itself)."""
        kill_reason, next_group_check = "", 0.0
        clock = _Clock(self._limits.seconds)
        try:
            while not kill_reason and not self._cancelled.is_set():
                try:
                    self._process.wait(POLL)
                    break
                except subprocess.TimeoutExpired:
                    if self._rows_written.is_set():
                        clock.see(read_text(self._work / "out" / "stage"))
                    kill_reason = clock.exceeded() or _memory_exceeded(self._process.pid, self._limits)
                    if not kill_reason and time.monotonic() > next_group_check:
                        kill_reason, next_group_check = (
                            _group_limit_exceeded(self._work, self._limits),
                            time.monotonic() + _GROUP_POLL_SECONDS,
                        )
        finally:
            _kill(self._process, self._work)
        return self._process.returncode, kill_reason


class _Clock:
    """The time limits: one from the writing of the rows to the loading of the model, and one from then to the end.

    :param seconds: the time limit from the loading of the model to the end.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loading = seconds, False
        self._deadline: float | None = None

    def see(self, stage: str) -> None:
        """Record that the process is at ``stage``, and the rows are written."""
        if self._deadline is None:
            self._deadline = time.monotonic() + _START_SECONDS
        if not self._loading and stage not in BEFORE_MODEL:
            self._deadline, self._loading = time.monotonic() + self._seconds, True

    def exceeded(self) -> str:
        if self._deadline is None or time.monotonic() <= self._deadline:
            return ""
        return f"was killed after {self._seconds if self._loading else _START_SECONDS:.0f} s"


def _memory_exceeded(pid: int, limits: Limits) -> str:
    """A message that the process uses too much memory; ``""`` if it does not."""
    if limits.memory_bytes and _resident(pid) > limits.memory_bytes:
        return f"was killed for using more than {_gib(limits.memory_bytes)} of memory"
    return ""


def _group_limit_exceeded(work: Path, limits: Limits) -> str:
    """A message about the limit that the process and its descendants exceed together; ``""`` if there is none."""
    group = processes.of_job(work)
    if len(group) > limits.processes:
        return f"was killed for starting more than {limits.processes} processes"
    if limits.memory_bytes and sum(_resident(process.pid) for process in group) > limits.memory_bytes:
        together = f" in {len(group)} processes" if len(group) > 1 else ""
        return f"was killed for using more than {_gib(limits.memory_bytes)} of memory{together}"
    return ""


def _kill(process: subprocess.Popen[bytes], work: Path) -> None:
    """Kill the process group, and the processes that have left it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    processes.end_all(lambda: processes.of_job(work), 0.0)
    process.wait()


def _environment(work: Path) -> dict[str, str]:
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    env |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "1"}
    return {**env, **quiet, "HOME": str(work), "TMPDIR": str(work), MARK: str(work)}


def _resident(pid: int) -> int:
    """The private resident memory of a process in bytes; 0 if unknown."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
