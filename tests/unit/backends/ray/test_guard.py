"""The guard stops its command and all processes that the command started, in every way to stop it.

These tests use real processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlengine.backends.ray.guarded import Guarded
from tests.support.local_jobs import until

CHILD = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True); "


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Guarded]]:
    made: list[Guarded] = []

    def make(code: str, grace: float = 5.0) -> Guarded:
        made.append(Guarded([sys.executable, "-c", code], os.environ, tmp_path / "cwd", tmp_path / "log", grace=grace))
        return made[-1]

    yield make
    for one in made:
        one.close()


def first_line(one: Guarded) -> str:
    return str(until(lambda: one.log.exists() and one.log.read_text().partition("\n")[0], "output"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_output_and_exit_code_are_read(start: Callable[..., Guarded]) -> None:
    one = start("import sys; print('a'); sys.exit(7)")
    assert until(lambda: one.poll() is not None, "the end of the processes")
    assert (one.poll(), one.read(), one.read()) == (7, b"a\n", b"")


def test_a_command_that_cannot_run_exits_with_127(tmp_path: Path) -> None:
    one = Guarded(["/nowhere/python"], os.environ, tmp_path, tmp_path / "log", grace=1.0)
    assert until(lambda: one.poll() is not None, "the end of the processes")
    assert (one.poll(), b"/nowhere/python" in one.read()) == (127, True)
    one.close()


def test_children_end_with_the_command(start: Callable[..., Guarded]) -> None:
    one = start(CHILD)
    until(lambda: one.poll() is not None, "the end of the processes")
    assert (one.poll(), alive(int(first_line(one)))) == (0, False)


def test_a_command_can_save_its_work_on_sigterm(start: Callable[..., Guarded]) -> None:
    one = start(
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('up', flush=True); time.sleep(600)"
    )
    assert first_line(one) == "up"
    one.end()
    until(lambda: one.poll() is not None, "the end of the processes")
    assert one.poll() == 9


def test_a_command_that_ignores_sigterm_is_killed(start: Callable[..., Guarded]) -> None:
    one = start("import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)", 0.2)
    assert first_line(one) == "up"
    one.end()
    until(lambda: one.poll() is not None, "the end of the processes")
    assert one.poll() == -signal.SIGKILL


OWNER = """
import os, sys, time
from pathlib import Path
from mlengine.backends.ray.guarded import Guarded
one = Guarded([sys.executable, "-c", sys.argv[1]], os.environ, Path(sys.argv[2]), Path(sys.argv[2]) / "log", grace=0.5)
time.sleep(600)
"""


def test_no_process_is_left_when_the_owner_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, CHILD + "import os; print(os.getpid(), flush=True); import time; time.sleep(600)",
         str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    log = tmp_path / "log"
    pids = until(lambda: log.exists() and len(found := log.read_text().split()) == 2 and found, "two processes")
    assert all(alive(int(pid)) for pid in pids)
    owner.kill()
    owner.wait()
    begun = time.monotonic()
    until(lambda: not any(alive(int(pid)) for pid in pids), "the end of both")
    assert time.monotonic() - begun < 30
