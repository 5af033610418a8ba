"""``make screenshots``: take pictures of the UI in a browser, and save them to ``docs/img``.

It starts the stack of ``make run``, trains, visits the pages, and stops the stack. For the requirements see
:mod:`scripts.chromium`.

``--data DIR`` uses the folder of another stack; ``--small`` trains only a few steps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import stack as stacks
from scripts.chromium import drive, find_browser
from scripts.console import Console
from scripts.stack import Stack

from mlengine.core.errors import MlengineError
from mlengine.testing.airflow_api import AirflowApi, DagRun, TaskRun

DAG = "mnist_retraining"
_TIMEOUT_SECONDS = 600.0


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
            return _take_pictures(stack, browser, args.out, console, steps=300 if args.small else 1000)
    except MlengineError as error:
        console.say(f"screenshots: {error}")
        return 1


def _take_pictures(stack: Stack, browser: str, out: Path, console: Console, *, steps: int) -> int:
    api = stack.airflow.api
    api.wait_for_dag(DAG)
    # A run that reuses an earlier job does not train.
    conf = {"max_steps": steps, "min_accuracy": 0.9, "min_class_accuracy": 0.7, "force_retrain": True}
    run = api.trigger(DAG, conf)
    console.say(f"run {run.run_id}: waiting for its training, and then for its end")
    try:
        api.wait(run, _TIMEOUT_SECONDS, lambda run, tasks: _until_it_trains(api, run, tasks))
    except _ItTrainsError:
        _shoot(stack, browser, out, run, "while")
    run = api.wait(run, _TIMEOUT_SECONDS)
    _shoot(stack, browser, out, run, "after")
    console.say(f"{run.state}; pictures in {out}")
    return 0


class _ItTrainsError(Exception):
    """Raised when the job trains, which is the time for the first pictures."""


def _until_it_trains(api: AirflowApi, run: DagRun, tasks: list[TaskRun]) -> None:
    for task in tasks:
        if task.task_id.endswith("wait") and task.state == "deferred":
            lines = api.log(run.dag_id, run.run_id, task.task_id, task.try_number)
            if any("progress | step" in line for line in lines):
                raise _ItTrainsError


def _shoot(stack: Stack, browser: str, out: Path, run: DagRun, when: str) -> None:
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
    with tempfile.TemporaryDirectory() as scratch:
        drive("scripts.browser", order, Path(scratch))


if __name__ == "__main__":
    sys.exit(main())
