"""Cost of a backfill: the overhead of a run compared with a chain of empty tasks, and the time for N versions.

It uses one real Airflow on this machine. Our runs and those of the chains alternate, so that other load on the machine
affects both; the ratio is the result. A second chain, whose tasks have a template and use the result of the previous
task, shows which part of the difference is due to Airflow.

The scheduler sleeps between two iterations, so durations are quantised by its sleep: a task that ends a little later
may cost nothing, or a full interval. ``--idle-sleep`` shortens the interval; CPU time is not affected.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from scripts import mnist
from scripts import stack as stacks
from scripts.stack import Stack

from mlengine.testing.airflow_api import AirflowApi, DagRun

BUDGET = 1.2
MONTHS = [f"2024-{month:02d}-01" for month in range(1, 13)]
DAGS = Path(__file__).with_name("backfill_dags")
SECONDS = 900.0
_PAUSE_SECONDS = 0.5  # a task may write its last log lines after its run has ended
CHAIN, HANDING = "seven tasks that do nothing", "seven that hand on a result"
OURS, REUSED = "our seven, training left out", "our seven, reused"


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 within the budget, 1 above it."""
    parser = argparse.ArgumentParser(prog="benchmarks backfill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="runs of each kind (8, at most 11)")
    parser.add_argument(
        "--versions", type=int, nargs="*", default=[3, 6, 12], help="lengths of backfills, at most four (3 6 12)"
    )
    parser.add_argument("--capacity", type=int, nargs="*", default=[1, 2], help="jobs at once on this machine (1 2)")
    parser.add_argument(
        "--idle-sleep",
        default="0.1",
        help="the scheduler's, in seconds, for the runs without jobs (0.1; Airflow's own: 1)",
    )
    args = parser.parse_args(argv)
    with started(1, {"scheduler.scheduler_idle_sleep_time": args.idle_sleep}) as stack:
        ratio = overhead(stack, args.rounds)
    for number, capacity in enumerate(args.capacity):
        with started(capacity) as stack:
            backfills(stack, capacity, args.versions, heading=not number)
    print(f"budget: at most {BUDGET} x a chain of as many tasks: {'within' if ratio <= BUDGET else 'BEYOND'}")
    return 0 if ratio <= BUDGET else 1


def overhead(stack: Stack, rounds: int) -> float:
    """The ratio of the time of our run, without the training, to that of the chain."""
    api = stack.airflow.api
    kinds: dict[str, Callable[[str], DagRun]] = {
        CHAIN: lambda _: api.trigger("nothing"),
        HANDING: lambda _: api.trigger("handing"),
        OURS: lambda version: api.trigger("instant", {"dataset_version": version}),
        REUSED: lambda version: api.trigger("instant", {"dataset_version": version}),
    }
    elapsed: dict[str, list[float]] = {name: [] for name in kinds}
    burnt: dict[str, list[float]] = {name: [] for name in kinds}
    tasks: dict[str, list[float]] = {}
    for number, version in enumerate(MONTHS[: rounds + 1]):
        for name, start in kinds.items():
            before = cpu(stack)
            run = api.wait(start(version), SECONDS, every=0.3)
            time.sleep(_PAUSE_SECONDS)
            if run.state != "success":
                raise SystemExit(f"{name}: {run.run_id} is {run.state}; see {stack.data}")
            if number:  # the first run of each kind is a warm-up
                burnt[name].append(cpu(stack) - before)
                elapsed[name].append(seconds(api, run))
                for task in api.tasks(run.dag_id, run.run_id) if name != REUSED else ():
                    stage = task.task_id.removeprefix("retrain.") if run.dag_id == "instant" else f"one of {name}"
                    tasks.setdefault(stage, []).append(task.duration or 0.0)
    base = elapsed[CHAIN]
    print(f"A run, {rounds} of each kind in turns: median, least and most, in seconds from its start to its end;")
    print("then the least CPU time of Airflow and its tasks")
    for name, found in elapsed.items():
        ratios = f"{median(found) / median(base):5.2f} x of medians, {min(found) / min(base):.2f} x of the least"
        spent = f"CPU {min(burnt[name]):.2f}, {min(burnt[name]) / min(burnt[CHAIN]):.2f} x"
        print(f"{name:32}{median(found):7.2f}{min(found):7.2f}{max(found):7.2f}   {ratios}   {spent}")
    print("A task, median seconds: " + ", ".join(f"{name} {median(found):.2f}" for name, found in tasks.items()))
    # Other load on the machine can only make a run slower, so comparing the minima is fairer.
    return min(elapsed[OURS]) / min(base)


def backfills(stack: Stack, capacity: int, lengths: Sequence[int], *, heading: bool) -> None:
    """Measure total time against the number of versions, with real jobs of about two seconds of CPU each."""
    if heading:
        print(
            "A backfill with real jobs: jobs at once, versions, seconds in all, seconds a version, most memory in MiB"
        )
    api = stack.airflow.api
    for number, length in enumerate(lengths):
        dag_id = f"jobs_{number}"
        began, most = time.monotonic(), 0.0
        api.backfill(dag_id, MONTHS[0], MONTHS[length - 1], at_once=2 * capacity)
        while True:
            runs = api.runs(dag_id)
            most = max(most, memory(stack))
            if len(runs) >= length and all(run.done for run in runs):
                break
            if time.monotonic() - began > SECONDS:
                raise SystemExit(f"a backfill of {length} does not end")
            time.sleep(1.0)
        elapsed = time.monotonic() - began
        failed = sum(run.state != "success" for run in runs)
        print(
            f"{capacity:5}{length:7}{elapsed:10.1f}{elapsed / length:10.1f}{most:10.0f}"
            + (f"  {failed} FAILED" * bool(failed)),
            flush=True,
        )


@contextmanager
def started(capacity: int, settings: dict[str, str] | None = None) -> Iterator[Stack]:
    before = dict(os.environ)
    env = {
        "AIRFLOW__MLENGINE__POLL_INTERVAL_SECONDS": "1",
        "AIRFLOW__MLENGINE__LOCAL_MAX_CONCURRENT_JOBS": str(capacity),
    }
    with (
        tempfile.TemporaryDirectory(prefix="mlengine-backfill-") as data,
        stacks.running(Path(data), versions=[], dags=DAGS, env=env, settings=settings) as stack,
    ):
        digits = mnist.files()
        for number, month in enumerate(MONTHS):
            rows = 400 + 40 * number
            mnist.register(stack.storage, stack.bucket, digits, month, train=rows, heldout=1000, name="digits")
        for dag_id in ("nothing", "handing", "instant", "jobs_0"):
            stack.airflow.api.wait_for_dag(dag_id)
        yield stack
    os.environ.clear()
    os.environ.update(before)


def seconds(api: AirflowApi, run: DagRun) -> float:
    found: dict[str, Any] = api.call("GET", f"dags/{run.dag_id}/dagRuns/{run.run_id.replace('+', '%2B')}")
    begin, end = (datetime.fromisoformat(found[name]) for name in ("start_date", "end_date"))
    return (end - begin).total_seconds()


def memory(stack: Stack) -> float:
    """The proportional memory (PSS) of Airflow, its tasks and the jobs, in MiB."""
    total = 0
    for process in {*of_airflow(stack), *of_jobs(stack)}:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20


def cpu(stack: Stack) -> float:
    """The CPU seconds of Airflow and its tasks so far. The times of parents include those of exited processes."""
    total = 0.0
    for process in of_airflow(stack):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def of_airflow(stack: Stack) -> list[psutil.Process]:
    """The processes of Airflow, found as descendants of its components.

    Their environment does not identify them: processes that set their title, such as the executor's workers, overwrite
    it.
    """
    found = []
    for component in stack.airflow.processes.values():
        with suppress(psutil.Error):
            parent = psutil.Process(component.pid)
            found += [parent, *parent.children(recursive=True)]
    return found


def of_jobs(stack: Stack) -> list[psutil.Process]:
    """The processes of jobs, found by their environment, because launchers are not children of the submitter."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("AIRFLOW__MLENGINE__LOCAL_STATE_DIR") == str(stack.data / "local"):
                found.append(process)
    return found
