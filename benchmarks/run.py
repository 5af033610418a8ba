"""From the trigger to the champion, compared with another build and with the bare trainer in one process.

``python -m benchmarks run [--baseline CHECKOUT] [--later N]``. Clones both builds into a temporary folder and runs
``make run ARGS=--once`` in each: the first run builds the trainer's environment; the later ones, which alternate, train
again with other seeds. Then the trainer of this build runs without mlengine in one process, with the same arguments,
environment and digits. All of them use separate ports.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.make_run.clone import ROOT, Clone, clone, folder, warm_caches
from benchmarks.make_run.process_tree import ProcessTree

FIRST_BUDGET, LATER_BUDGET, BARE_BUDGET = 0.6, 0.65, 1.2
MIN_ACCURACY = 0.97
VERSION = "2026-11-01"  # the newest one, which a run without arguments trains on


@dataclass(frozen=True)
class Run:
    """The measurements of a run.

    These are seconds and CPU seconds, the last held-out accuracy, the peak memory of all processes in MiB, and the
    seconds of the steps with their evaluations.
    """

    wall: float
    cpu: float
    accuracy: float
    memory: float
    training: float

    @property
    def rest(self) -> float:
        """The seconds outside of steps and evaluations."""
        return self.wall - self.training

    def __str__(self) -> str:
        figures = f"{self.wall:.1f} s ({self.training:.1f} s of them steps and evaluations), {self.cpu:.1f} s of CPU"
        return f"{figures}, accuracy {self.accuracy:.4f}, {self.memory:.0f} MiB"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 if a ratio is above its budget, or an accuracy below the threshold."""
    parser = argparse.ArgumentParser(prog="benchmarks run", description=__doc__)
    parser.add_argument("--baseline", type=Path, metavar="CHECKOUT", help="a checkout that is measured too")
    parser.add_argument("--later", type=int, default=3, help="runs of each build after the first, with own seeds")
    parser.add_argument("--steps", type=int, default=1000, help="fewer than 1,000 only try the benchmark out")
    args = parser.parse_args(argv)
    checkouts = {**({"baseline": args.baseline.resolve()} if args.baseline else {}), "this": ROOT}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with folder() as parent:
        clones = [clone(name, checkout, parent) for name, checkout in checkouts.items()]
        warm_caches(clones, parent, trainer=True)
        first = {one.name: _report(one.name, "first run", dag_run(one, 0, args.steps)) for one in clones}
        later: dict[str, list[Run]] = {name: [] for name in checkouts}
        for seed in range(1, args.later + 1):
            for one in clones:
                later[one.name].append(_report(one.name, f"later run, seed {seed}", dag_run(one, seed, args.steps)))
        bare = [_report("this", f"one process, seed {seed}", bare_run(clones[-1], seed, args.steps)) for seed in (1, 2)]
    return _judge(first, later, bare)


def dag_run(one: Clone, seed: int, steps: int) -> Run:
    """Run ``make run --once``, and measure from the trigger to the end of the run.

    :raises RuntimeError: the run did not succeed; the message has the output.
    """
    arguments = ["--once", "--conf", "force_retrain=true", "--conf", f"seed={seed}", "--conf", f"max_steps={steps}"]
    output, began, cpu, result = [], 0.0, 0.0, None
    with ProcessTree(one.make(*arguments), one.path, one.env) as tree:
        for line in tree.lines():
            output.append(line)
            if re.match(r"\S+, run ", line):
                began, cpu = time.monotonic(), tree.cpu()
            elif began and line.startswith("  success after"):
                result = time.monotonic() - began, tree.cpu() - cpu
    if result is None:
        raise RuntimeError("make run did not succeed:\n" + "\n".join(output[-30:]))
    newest = max(one.bucket.glob("mnist/*/train/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    return Run(*result, _accuracy(newest), tree.peak_mib, _training(newest))


def bare_run(one: Clone, seed: int, steps: int) -> Run:
    """Run only the trainer, without ``TF_CONFIG``, in the environment that the runs used.

    :raises RuntimeError: the trainer failed.
    """
    job = one.path.parent / f"bare-{seed}"
    arguments = {"dataset": one.bucket / "datasets" / "mnist" / VERSION, "job-dir": job, "max_steps": steps}
    options = {**arguments, "batch_size": 100, "seed": seed}
    command = [str(one.trainer_python), "-m", "trainer.task", *(f"--{name}={value}" for name, value in options.items())]
    began = time.monotonic()
    with ProcessTree(command, one.path.parent, one.env) as tree:
        output = list(tree.lines())
        code, wall, cpu = tree.process.wait(), time.monotonic() - began, tree.cpu()
    if code:
        raise RuntimeError(f"the trainer ended with code {code}:\n" + "\n".join(output[-30:]))
    metrics = job / "train" / "metrics.jsonl"
    return Run(wall, cpu, _accuracy(metrics), tree.peak_mib, _training(metrics))


def _accuracy(metrics: Path) -> float:
    return float(_rows(metrics)[-1]["test_accuracy"])


def _training(metrics: Path) -> float:
    """The seconds of all steps and evaluations, extrapolated from those between the first and the last evaluation."""
    rows = _rows(metrics)
    first, last = rows[0], rows[-1]
    pace = (last["wall_time"] - first["wall_time"]) / max(1, last["step"] - first["step"])
    return float(pace * last["step"])


def _rows(metrics: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def _report(build: str, what: str, run: Run) -> Run:
    print(f"  {build}, {what}: {run}; load {os.getloadavg()[0]:.1f}", flush=True)
    return run


def _judge(first: dict[str, Run], later: dict[str, list[Run]], bare: list[Run]) -> int:
    mine = [first["this"], *later["this"]]
    failed = min(run.accuracy for run in mine) < MIN_ACCURACY
    for name, runs in later.items():
        accuracies = [run.accuracy for run in (first[name], *runs)]
        print(f"{name}: mean accuracy {mean(accuracies):.4f}, of {', '.join(f'{value:.4f}' for value in accuracies)}")
    if "baseline" in first:
        theirs = [first["baseline"], *later["baseline"]]
        failed |= _ratio("first run to the baseline's", mine[:1], theirs[:1], FIRST_BUDGET)
        if later["this"]:
            failed |= _ratio("later runs to the baseline's", mine[1:], theirs[1:], LATER_BUDGET)
        print(f"peak memory to the baseline's: {max(r.memory for r in mine) / max(r.memory for r in theirs):.2f} x")
    what = "later runs" if later["this"] else "first run"
    failed |= _ratio(f"{what} to one process", later["this"] or mine, bare, BARE_BUDGET)
    return int(failed)


def _ratio(what: str, mine: list[Run], theirs: list[Run], budget: float) -> bool:
    wall = median(run.wall for run in mine) / median(run.wall for run in theirs)
    cpu = median(run.cpu for run in mine) / median(run.cpu for run in theirs)
    rest = median(run.rest for run in mine) / median(run.rest for run in theirs)
    print(f"{what}: {wall:.2f} x, CPU {cpu:.2f} x; budget {budget} x: {'met' if wall <= budget else 'NOT MET'}")
    print(f"  without steps and evaluations: {rest:.2f} x")
    return wall > budget


if __name__ == "__main__":
    raise SystemExit(main())
