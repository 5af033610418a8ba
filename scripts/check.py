"""``make test``: every check, and one summary. ``python -m scripts.check [NAME …] [-- ARGS]``.

The output of the suites under tests/ is shown live. They spend much of their time waiting for processes, so the other
checks run at the same time, one after the other; their output is shown at the end if they failed. All checks run even
if one fails; the exit code is 0 if all passed. ARGS are passed to pytest. The summary names each skipped test and its
reason.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from scripts.bootstrap import ROOT
from scripts.console import Stopwatch
from scripts.skips import FILE as SKIPS_FILE
from scripts.trainer_env import trainer_python

BIN = Path(sys.executable).parent
_SUITES = ("unit", "integration", "e2e")
# Three processes on any machine, because many tests wait for processes, and each may run an Airflow.
# The tests define the groups and their order: tests/support/distribution.py. For one process: ARGS="-n 0".
_PARALLEL = ("-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder")


@dataclass(frozen=True)
class Check:
    """One line of the summary. ``run`` gets the file for its output, and returns whether the check passed."""

    name: str
    run: Callable[[IO[bytes] | None], bool]
    live: bool = False


@dataclass(frozen=True)
class Result:
    name: str
    passed: bool
    duration: str
    output: str = ""


def main(argv: Sequence[str]) -> int:
    # A shell's background job ignores SIGINT. Child processes would inherit that, and tests that interrupt themselves
    # would never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names, arguments = _split(argv)
    known = ("lint", "types", "docs", "trainer-test", *_SUITES)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.stderr.write(f"check: no such check: {', '.join(unknown)}; there are {', '.join(known)}\n")
        return 2
    with tempfile.NamedTemporaryFile("r", prefix="skips-", encoding="utf-8") as skips:
        os.environ[SKIPS_FILE] = skips.name
        passed = _check(_checks(names or known, arguments), skips)
    return 0 if passed else 1


def _check(checks: Sequence[Check], skips: IO[str]) -> bool:
    """Run the checks, and print the summary."""
    whole = Stopwatch()
    alone = len({check.live for check in checks}) == 1
    with ThreadPoolExecutor(1) as pool:
        parallel = [pool.submit(_run_captured, check) for check in checks if not check.live and not alone]
        try:
            results = [_run_live(check) for check in checks if check.live or alone]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        results = [*(future.result() for future in parallel), *results]
    for result in results:
        if result.output and not result.passed:
            _say(f"\n{_rule(result.name)}\n{result.output}")
    _say(f"\n{_rule('summary')}")
    for result in results:
        last = result.output.rstrip().rpartition("\n")[2].strip("= ") if result.passed else ""
        _say(f"  {'ok    ' if result.passed else 'FAILED'}  {result.name:<28} {result.duration:>14}  {last}".rstrip())
    for line in sorted(skips.read().splitlines()):
        _say(f"  skipped {line}")
    passed = all(result.passed for result in results)
    _say(f"  {'ALL PASSED' if passed else 'NOT ALL PASSED'} in {whole}")
    return passed


def _run_live(check: Check) -> Result:
    _say(f"\n{_rule(check.name)}")
    clock = Stopwatch()
    return Result(check.name, check.run(None), str(clock))


def _run_captured(check: Check) -> Result:
    clock = Stopwatch()
    with tempfile.TemporaryFile() as sink:
        passed = check.run(sink)
        sink.seek(0)
        return Result(check.name, passed, str(clock), sink.read().decode(errors="replace"))


def _rule(name: str) -> str:
    return f"── {name} " + "─" * max(3, 90 - len(name))


def _checks(names: Sequence[str], arguments: Sequence[str]) -> list[Check]:
    checks = []
    if "lint" in names:
        checks.append(Check("ruff check", partial(_run, [str(BIN / "ruff"), "check", "."])))
        checks.append(Check("imports", partial(_run, [str(BIN / "lint-imports"), "--no-logo"])))
        checks.append(Check("words", partial(_run, [sys.executable, "-m", "scripts.prose"])))
        checks.append(Check("ruff format", partial(_run, [str(BIN / "ruff"), "format", "--check", "."])))
    if "types" in names:
        checks.append(Check("mypy", partial(_run, [str(BIN / "mypy")])))
    if "docs" in names:
        checks.append(Check("manual", partial(_run, [sys.executable, "-m", "scripts.docs"])))
    if "trainer-test" in names and (ROOT / "trainer" / "tests").is_dir():
        checks.append(Check("trainer tests", partial(_trainer, _without_xdist(arguments))))
    suites = [name for name in _SUITES if name in names]
    if suites:
        command = [sys.executable, "-m", "pytest", *(f"tests/{name}" for name in suites), *_PARALLEL, *arguments]
        checks.append(Check(f"{', '.join(suites)} tests", partial(_run, command), live=True))
    return checks


def _trainer(arguments: Sequence[str], sink: IO[bytes] | None) -> bool:
    """Run the trainer's tests, in an environment like that of a job but with pytest.

    The check passes if ``-k`` or ``-m`` selects none of the trainer's tests, unless it is the only check.
    """
    command = [str(trainer_python()), "-m", "pytest", *arguments]
    return _run(command, sink, ROOT / "trainer", passed=(0, 5) if arguments and sink else (0,))


def _without_xdist(arguments: Sequence[str]) -> list[str]:
    """Remove the options of pytest-xdist, which is not in the trainer's environment."""
    xdist = argparse.ArgumentParser("check", add_help=False, allow_abbrev=False)
    xdist.add_argument("-n", "--numprocesses")
    for option in ("--dist", "--maxprocesses", "--maxschedchunk", "--max-worker-restart", "--tx"):
        xdist.add_argument(option)
    xdist.add_argument("-d", "--loadscope-reorder", "--no-loadscope-reorder", action="store_true")
    return xdist.parse_known_args(arguments)[1]


def _run(command: Sequence[str], sink: IO[bytes] | None, folder: Path = ROOT, passed: Sequence[int] = (0,)) -> bool:
    process = subprocess.Popen(
        command, cwd=folder, env=_environment(), stdout=sink, stderr=subprocess.STDOUT if sink else None
    )
    try:
        return process.wait() in passed
    except KeyboardInterrupt:
        # The child has received Ctrl-C too. Unlike subprocess.run(), do not kill it, so that it can stop its processes.
        _say("interrupted; waiting for the tests to stop their processes")
        process.wait()
        raise


def _environment() -> dict[str, str]:
    """The caller's environment, without variables that would influence the checks."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLENGINE_"))}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # Airflow creates its home when it is imported. It must not be that of the user.
    env["AIRFLOW_HOME"] = str(ROOT / ".mlengine" / "test" / "airflow")
    # Keras also writes its settings into its home when it is imported.
    env["KERAS_HOME"] = str(ROOT / ".mlengine" / "test" / "keras")
    return env


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split ``lint unit -- -k name`` into the names and pytest's arguments."""
    if "--" in argv:
        at = list(argv).index("--")
        return list(argv[:at]), list(argv[at + 1 :])
    names = [item for item in argv if not item.startswith("-")]
    return names, [item for item in argv if item.startswith("-")]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
