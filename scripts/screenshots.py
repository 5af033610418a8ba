"""``make screenshots``: pictures of the real UI, in a real browser, into ``docs/img``.

Starts the stack (the kept one of ``make run``, unless that is up already), looks at the pages a person looks at, and
ends it. Needs Chromium on the machine (Debian: ``apt-get install chromium``); what drives it comes with uv for this one
run, and is in no lock file.

``--data DIR`` takes another stack's folder; ``--small`` trains a few steps only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import stack as stacks
from scripts.console import Console
from scripts.stack import Stack

from mlengine.core.errors import MlengineError, StackError
from mlengine.testing.airflow_api import AirflowApi, DagRun, TaskRun

DAG = "mnist_retraining"
DRIVER = "playwright==1.65.2"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_LOOK_SECONDS = 600.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=stacks.DATA)
    parser.add_argument("--out", type=Path, default=stacks.ROOT / "docs" / "img")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(argv)
    console = Console()
    try:
        browser = find_browser()
        with stacks.running(args.data) as stack:
            return _look(stack, browser, args.out, console, steps=300 if args.small else 1000)
    except MlengineError as error:
        console.say(f"screenshots: {error}")
        return 1


def find_browser() -> str:
    """:raises StackError: there is no Chromium on this machine."""
    for name in _BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    raise StackError("no Chromium on this machine", remedy="apt-get install chromium")


def _look(stack: Stack, browser: str, out: Path, console: Console, *, steps: int) -> int:
    api = stack.airflow.api
    api.wait_for_dag(DAG)
    run = api.trigger(DAG, {"max_steps": steps, "min_accuracy": 0.9, "min_class_accuracy": 0.7})
    console.say(f"run {run.run_id}: waiting for its training, and then for its end")
    try:
        api.wait(run, _LOOK_SECONDS, lambda run, tasks: _until_it_trains(api, run, tasks))
    except _ItTrainsError:
        _shoot(stack, browser, out, run, "while")
    run = api.wait(run, _LOOK_SECONDS)
    code = _shoot(stack, browser, out, run, "after")
    console.say(f"{run.state}; pictures in {out}")
    return code


class _ItTrainsError(Exception):
    """The moment for a picture of the log."""


def _until_it_trains(api: AirflowApi, run: DagRun, tasks: list[TaskRun]) -> None:
    for task in tasks:
        if task.task_id.endswith("wait") and task.state == "deferred":
            lines = api.log(run.dag_id, run.run_id, task.task_id, task.try_number)
            if any("progress | step" in line for line in lines):
                raise _ItTrainsError


def _shoot(stack: Stack, browser: str, out: Path, run: DagRun, when: str) -> int:
    out.mkdir(parents=True, exist_ok=True)
    order: Mapping[str, Any] = {
        "browser": browser,
        "url": stack.airflow.url,
        "user": stack.airflow.user,
        "password": stack.airflow.password,
        "dag": run.dag_id,
        "run": run.run_id,
        "when": when,
        "clone": str(stacks.ROOT),
        "out": str(out),
    }
    uv = str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "order.json"
        path.write_text(json.dumps(order), encoding="utf-8")
        command = [uv, "run", "--quiet", "--no-project", "--with", DRIVER, "python"]
        script = Path(__file__).with_name("browser.py")
        # The browser's profile goes where the scratch goes.
        env = {**os.environ, "HOME": scratch}
        env.pop("VIRTUAL_ENV", None)
        return subprocess.run([*command, str(script), str(path)], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
