"""``make run`` in a fresh clone with warm download caches, until Airflow is up, compared with another build.

``python -m benchmarks start [--baseline CHECKOUT] [--rounds N]``. Each round clones both builds and measures one after
the other: setup, start, and the CPU seconds and memory (PSS) of all processes. Everything runs in a temporary folder
on separate ports.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.make_run.clone import ROOT, Clone, clone, folder, warm_caches
from benchmarks.make_run.process_tree import ProcessTree

BUDGET = 0.5  # of the baseline's time until "up"


@dataclass(frozen=True)
class Start:
    """Seconds until the end of the setup and until Airflow was up, CPU seconds until then, and peak memory in MiB."""

    set_up: float
    up: float
    cpu: float
    memory: float


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 if the ratio to the baseline is above its budget."""
    parser = argparse.ArgumentParser(prog="benchmarks start", description=__doc__)
    parser.add_argument("--baseline", type=Path, metavar="CHECKOUT", help="a checkout that is measured too")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args(argv)
    checkouts = {**({"baseline": args.baseline.resolve()} if args.baseline else {}), "this": ROOT}
    found: dict[str, list[Start]] = defaultdict(list)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for number in range(args.rounds):
        with folder() as parent:
            clones = [clone(name, checkout, parent) for name, checkout in checkouts.items()]
            if not number:
                warm_caches(clones, parent, trainer=False)
            for one in clones:
                found[one.name].append(measure(one))
                print(f"  {one.name}: {_text(found[one.name][-1])}; load {os.getloadavg()[0]:.1f}", flush=True)
    return _compare(found) if args.baseline else 0


def measure(one: Clone) -> Start:
    """Run ``make run`` until Airflow is up, and stop it.

    :raises RuntimeError: the command exited before that; the message has its output.
    """
    began, set_up, output = time.monotonic(), 0.0, []
    with ProcessTree(one.make("--no-train"), one.path, one.env) as tree:
        for line in tree.lines():
            output.append(line)
            if line.startswith("Set up in"):
                set_up = time.monotonic() - began
            if line.startswith("  up in"):
                return Start(set_up, time.monotonic() - began, tree.cpu(), tree.peak_mib)
    raise RuntimeError("make run ended early:\n" + "\n".join(output[-20:]))


def _compare(found: dict[str, list[Start]]) -> int:
    rounds = list(zip(found["this"], found["baseline"], strict=True))
    wall = median(mine.up / theirs.up for mine, theirs in rounds)
    cpu = median(mine.cpu / theirs.cpu for mine, theirs in rounds)
    memory = median(mine.memory / theirs.memory for mine, theirs in rounds)
    print(f"this to baseline, median of {len(rounds)}: until up {wall:.2f} x, CPU {cpu:.2f} x, memory {memory:.2f} x")
    print(f"budget: at most {BUDGET} x until up: {'met' if wall <= BUDGET else 'NOT MET'}")
    return int(wall > BUDGET)


def _text(start: Start) -> str:
    return (
        f"set up after {start.set_up:.1f} s, up after {start.up:.1f} s; {start.cpu:.1f} s of CPU, "
        f"{start.memory:.0f} MiB at most"
    )


if __name__ == "__main__":
    raise SystemExit(main())
