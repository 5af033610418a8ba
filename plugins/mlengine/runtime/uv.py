"""Runs uv with a timeout, ends all processes that it starts, and logs its output as it appears."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping

from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime import env_allowlist
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.uv_env import uv_environment

_WORDS = 6000  # characters of uv's output in an error message


def run(
    *arguments: str,
    env: Mapping[str, str],
    lock: FileLock,
    seconds: float,
    say: Callable[[str], None] | None,
    timeout_setting: str,
) -> str:
    """Run uv and return its output.

    It runs in a directory outside of any project, as it would use a project's settings.

    :param env: uv's environment variables, see :func:`environment`.
    :param lock: the lock of the environment, which uv inherits: if this process dies, no other process may build there
        while uv still writes.
    :param say: called with each line of output, except the list of packages.
    :param timeout_setting: the name of the setting for ``seconds``, for the hint.
    :raises EnvironmentBuildError: uv cannot be started, failed, or took longer than ``seconds``.
    """
    words: list[str] = []
    process = _start(arguments, env, lock)
    # A build backend that hangs prints nothing: a timer ends it and its child processes.
    timer = threading.Timer(seconds, kill_group, (process.pid,))
    timer.start()
    try:
        for line in process.stdout or ():
            words.append(line)
            if say is not None and not line.startswith(" + "):
                say(line.rstrip())
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            kill_group(process.pid)
            process.wait()
    if code == -signal.SIGKILL:
        raise EnvironmentBuildError(
            f"uv {' '.join(arguments[:2])} was killed, after {seconds:.0f} s at most:\n{_end(words)}",
            hint=f"if that was the time limit, increase the setting {timeout_setting}; or check whether the machine "
            "ran out of memory",
        )
    if code:
        raise EnvironmentBuildError(
            f"uv {' '.join(arguments[:2])} ended with code {code}:\n{_end(words)}",
            hint="correct the trainer's dependencies or constraints.txt; the next submission builds again",
        )
    return "".join(words)


def environment(job_env: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv and its builds inherit from this process.

    :param job_env: the job's own variables; those for pip are used.
    """
    env = env_allowlist.for_launcher(os.environ) | {"NO_COLOR": "1"}
    if env_allowlist.MARK in os.environ:
        env[env_allowlist.MARK] = os.environ[env_allowlist.MARK]
    return uv_environment(env, job_env)


def _start(arguments: tuple[str, ...], env: Mapping[str, str], lock: FileLock) -> subprocess.Popen[str]:
    from uv import find_uv_bin

    try:
        return subprocess.Popen(
            [find_uv_bin(), "--no-progress", *arguments],
            cwd="/",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
    except OSError as error:
        raise EnvironmentBuildError(f"uv cannot be started: {error}", hint="install uv again") from error


def kill_group(pid: int) -> None:
    """Kill all processes of a process group. It is no error if there are none."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _end(output: list[str]) -> str:
    return "".join(output)[-_WORDS:].strip()
