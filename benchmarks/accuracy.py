"""Held-out accuracy of the example trainer by steps and seconds, for one process and for a cluster.

``python -m benchmarks accuracy [--digits N] [--steps N] [--runs N] [--plot FILE.png]``. Seconds count from the first
step, including evaluations. The runs of a configuration differ in their seeds, to separate the effect of the seed from
that of the order of updates in an asynchronous cluster.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scripts.trainer_env import trainer_python

from benchmarks.training import Replicas, make_dataset, print_machine

# variant of bench.replica, workers, parameter servers
SHAPES = {"one process": ("ours", 0, 0), "1 chief + 2 workers + 1 ps": ("ours", 2, 1)}
TOLERANCE = 0.01  # the mean accuracy of the cluster may be this much lower than that of one process
RUN_SECONDS = 400.0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 if the cluster's accuracy is too far below that of one process after as many examples."""
    parser = argparse.ArgumentParser("accuracy", description="what the example trainer learns, and how fast")
    parser.add_argument("--digits", type=int, default=60_000, help="examples to train on")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100, help="steps from one evaluation to the next")
    parser.add_argument("--runs", type=int, default=1, help="of each shape, with seeds of their own")
    parser.add_argument("--plot", type=Path, help="draw the first run of each into this PNG file")
    args = parser.parse_args(argv)
    python = str(trainer_python())
    print_machine(python)
    print(f"{args.digits} digits, {args.steps} steps of 100; held-out 10,000")
    curves: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in SHAPES}
    with tempfile.TemporaryDirectory(prefix="bench-accuracy-") as scratch:
        data = str(make_dataset(python, Path(scratch), args.digits))
        for seed in range(args.runs):
            for name, shape in SHAPES.items():
                settings = {"max_steps": args.steps, "checkpoint": args.every, "seed": seed}
                arguments = [f"--{key}={value}" for key, value in settings.items()]
                curves[name].append(_curve(python, data, shape, arguments))
                _print_curve(f"{name}, seed {seed}", curves[name][-1])
    if args.plot:
        first = {name: runs[0] for name, runs in curves.items()}
        command = [python, "-m", "bench.plot", str(args.plot.resolve())]
        subprocess.run(
            command, input=json.dumps(first), text=True, check=True, cwd=Path(__file__).parent.parent / "trainer"
        )
    last = {name: mean(run[-1]["test_accuracy"] for run in runs) for name, runs in curves.items()}
    print("mean of the last accuracies: " + ", ".join(f"{name} {value:.4f}" for name, value in last.items()))
    one, cluster = last.values()
    return int(cluster < one - TOLERANCE)


def _curve(python: str, data: str, shape: tuple[str, int, int], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, each with the seconds since the first step."""
    with Replicas(python, data, shape, arguments) as job:
        began = time.time()
        job.wait(RUN_SECONDS)
        first = job.milestones("chief/0", {"training": "training from step"})["training"]
        lines = (job.job / "train" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{**row, "seconds": row["wall_time"] - began - first} for row in rows]


def _print_curve(name: str, rows: Sequence[dict[str, Any]]) -> None:
    last = rows[-1]
    print(f"  {name}: {last['test_accuracy']:.4f} at step {last['step']}, {last['seconds']:.0f} s; ", end="")
    print(f"worst class {min(last['per_class']):.4f}")
    print("    " + ", ".join(f"{row['step']}: {row['seconds']:.1f} s {row['test_accuracy']:.4f}" for row in rows))
