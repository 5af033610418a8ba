"""Run uv so that neither a hang nor a crash leaves anything behind, and log its output as it comes."""

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

_WORDS = 6000  # characters of uv's output that an error carries


def run(
    *arguments: str, env: Mapping[str, str], lock: FileLock, seconds: float, say: Callable[[str], None] | None
) -> str:
    """Run uv, away from any project whose settings it would take for its own. Returns all it said.

    :param env: its environment, see :func:`environment`.
    :param lock: on what is built; uv holds it too. If this process dies, no other may build there while uv writes.
    :param say: told each line as it comes, but for the list of packages, which is in the environment's lock.
    :raises EnvironmentBuildError: it cannot be started, failed, or took longer than ``seconds``.
    """
    words: list[str] = []
    process = _start(arguments, env, lock)
    # A build backend that hangs says nothing: only a timer ends it, and all that it started.
    timer = threading.Timer(seconds, _kill_group, (process.pid,))
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
            _kill_group(process.pid)
            process.wait()
    if code == -signal.SIGKILL:
        words.append(f"it was killed, after {seconds:.0f} s at most (the setting local_build_timeout_seconds)")
    if code:
        raise EnvironmentBuildError(
            f"uv {' '.join(arguments[:2])} ended with code {code}:\n{''.join(words)[-_WORDS:].strip()}",
            hint="correct the trainer's dependencies or constraints.txt; the next submission builds again",
        )
    return "".join(words)


def environment(job_env: Mapping[str, str]) -> dict[str, str]:
    """What uv, and the builds that it starts, see of this process's environment.

    :param job_env: the job's own variables, of which those for pip count.
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


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
