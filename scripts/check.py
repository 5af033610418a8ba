"""``make test``: every check, one after the other, and one summary. ``python -m scripts.check [NAME …] [-- ARGS]``.

A check that fails does not keep the others from running; the exit code says whether all passed. The tests come last, so
that pytest's closing lines stand just above the summary. ARGS go to pytest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.bootstrap import ROOT
from scripts.console import Stopwatch
from scripts.trainer_env import trainer_python

BIN = Path(sys.executable).parent
_SUITES = ("unit", "integration", "e2e")


@dataclass(frozen=True)
class Check:
    """One line of the summary; ``run`` says whether it passed."""

    name: str
    run: Callable[[], bool]


def main(argv: Sequence[str]) -> int:
    # Started in the background, a shell has this ignored, and children would inherit that: tests that interrupt
    # themselves would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names, arguments = _split(argv)
    known = ("lint", "types", "trainer-test", *_SUITES)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.stderr.write(f"check: no such check: {', '.join(unknown)}; there are {', '.join(known)}\n")
        return 2
    whole = Stopwatch()
    results = []
    for check in _checks(names or known, arguments):
        _say(f"\n── {check.name} " + "─" * max(3, 90 - len(check.name)))
        clock = Stopwatch()
        passed = check.run()
        results.append((check.name, passed, str(clock)))
    _say("\n── summary " + "─" * 83)
    for name, passed, took in results:
        _say(f"  {'ok    ' if passed else 'FAILED'}  {name:<28} {took:>14}")
    passed = all(passed for _, passed, _ in results)
    _say(f"  {'ALL PASSED' if passed else 'NOT ALL PASSED'} in {whole}")
    return 0 if passed else 1


def _checks(names: Sequence[str], arguments: Sequence[str]) -> list[Check]:
    checks = []
    if "lint" in names:
        checks.append(Check("ruff check", partial(_run, [str(BIN / "ruff"), "check", "."])))
        checks.append(Check("ruff format", partial(_run, [str(BIN / "ruff"), "format", "--check", "."])))
    if "types" in names:
        checks.append(Check("mypy", partial(_run, [str(BIN / "mypy")])))
    if "trainer-test" in names and (ROOT / "trainer" / "tests").is_dir():
        checks.append(Check("trainer tests", partial(_trainer, arguments)))
    suites = [name for name in _SUITES if name in names]
    if suites:
        command = [sys.executable, "-m", "pytest", *(f"tests/{name}" for name in suites), *arguments]
        checks.append(Check(f"{', '.join(suites)} tests", partial(_run, command)))
    return checks


def _trainer(arguments: Sequence[str]) -> bool:
    """In an environment as the trainer gets it when it trains, and pytest."""
    return _run([str(trainer_python()), "-m", "pytest", *arguments], ROOT / "trainer")


def _run(command: Sequence[str], folder: Path = ROOT) -> bool:
    return subprocess.run(command, cwd=folder, env=_environment(), check=False).returncode == 0


def _environment() -> dict[str, str]:
    """Of the caller, without what would make the checks depend on who calls."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLENGINE_"))}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # Airflow makes a home where it is imported; not in the one of whoever runs the tests.
    env["AIRFLOW_HOME"] = str(ROOT / ".mlengine" / "test" / "airflow")
    # Keras writes its settings into the home where it is imported.
    env["KERAS_HOME"] = str(ROOT / ".mlengine" / "test" / "keras")
    return env


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """``lint unit -- -k name`` → the names, and what goes to pytest."""
    if "--" in argv:
        at = list(argv).index("--")
        return list(argv[:at]), list(argv[at + 1 :])
    names = [item for item in argv if not item.startswith("-")]
    return names, [item for item in argv if item.startswith("-")]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
