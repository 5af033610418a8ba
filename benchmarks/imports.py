"""Import cost of mlengine in addition to ``airflow.sdk``, compared with the Google provider's Vertex operator.

The DAG processor, every task and the triggerer have this cost. CPU time and resident memory are measured in new
interpreters. The programs alternate, so that other load on the machine affects all of them equally.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
CPU_BUDGET = 0.15
MEMORY_BUDGET = 15.0

BASELINE = "from airflow.sdk import DAG, BaseOperator, BaseSensorOperator\n"
MLENGINE = """
import importlib, pkgutil
import mlengine, mlengine.task_groups
for package in ("operators", "sensors", "triggers", "links"):
    module = importlib.import_module("mlengine." + package)
    for found in pkgutil.walk_packages(module.__path__, module.__name__ + "."):
        importlib.import_module(found.name)
"""
PROVIDER = "from airflow.providers.google.cloud.operators.vertex_ai.custom_job import CreateCustomJobOperator\n"
PROGRAMS = {
    "airflow.sdk alone": BASELINE,
    "all of mlengine": BASELINE + MLENGINE,
    "the provider's Vertex operator": BASELINE + PROVIDER,
}
MEASURE = """
import json, sys, time
with open("/proc/self/statm") as statm:
    pages = int(statm.read().split()[1])
print("MEASURED " + json.dumps([time.process_time(), pages * 4096 / 2**20, len(sys.modules)]))
"""


@dataclass(frozen=True)
class Cost:
    """CPU time in seconds, resident memory in MiB, and the number of loaded modules."""

    cpu: float
    memory: float
    modules: int

    def over(self, other: Cost) -> Cost:
        return Cost(self.cpu - other.cpu, self.memory - other.memory, self.modules - other.modules)


def measure(program: str) -> Cost:
    """Measure one new interpreter."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}
    done = subprocess.run(
        [sys.executable, "-c", program + MEASURE], env=env, capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED "))
    return Cost(*json.loads(line.removeprefix("MEASURED ")))


def typical(costs: list[Cost]) -> Cost:
    """The minimum CPU time, because noise only adds to it, and the median memory."""
    return Cost(min(cost.cpu for cost in costs), median(cost.memory for cost in costs), costs[0].modules)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 within the budget, 1 above it."""
    parser = argparse.ArgumentParser(prog="benchmarks imports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    for program in PROGRAMS.values():
        measure(program)  # warm-up: writes the bytecode
    rounds = [{name: measure(program) for name, program in PROGRAMS.items()} for _ in range(args.rounds)]
    costs = {name: typical([found[name] for found in rounds]) for name in PROGRAMS}
    base, ours, theirs = costs.values()

    print(f"Import cost, {args.rounds} fresh interpreters each: least CPU, median resident memory")
    print(f"{'':32}{'CPU s':>8}{'MiB':>8}{'modules':>9}   over airflow.sdk")
    for name, cost in costs.items():
        extra = cost.over(base)
        over = "" if cost is base else f"   {extra.cpu:+.2f} s  {extra.memory:+.0f} MiB  {extra.modules:+} modules"
        print(f"{name:32}{cost.cpu:8.2f}{cost.memory:8.0f}{cost.modules:9}{over}")
    mine, other = ours.over(base), theirs.over(base)
    # mlengine's cost can be less than the difference between two runs of the same program. Then the ratio computed
    # with that difference is a lower limit.
    alone = [found["airflow.sdk alone"] for found in rounds]
    noise = Cost(
        median(cost.cpu for cost in alone) - base.cpu, max(abs(cost.memory - base.memory) for cost in alone), 0
    )
    cpu, memory = max(mine.cpu, noise.cpu, 0.01), max(mine.memory, noise.memory, 0.1)
    at_least = "at least " if cpu > mine.cpu or memory > mine.memory else ""
    print(f"ratio, provider to mlengine: {at_least}{other.cpu / cpu:.0f} x CPU, {other.memory / memory:.0f} x memory")
    within = mine.cpu <= CPU_BUDGET and mine.memory <= MEMORY_BUDGET
    verdict = "within" if within else "BEYOND"
    print(f"budget: at most {CPU_BUDGET} s and {MEMORY_BUDGET:.0f} MiB over airflow.sdk: {verdict}")
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
