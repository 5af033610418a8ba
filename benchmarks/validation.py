"""Validation of a large held-out set: comparison of two models, scoring, the entire step, and memory."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.validation_parts import comparison, scoring, step, table

PARTS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "metrics": comparison.run,
    "scoring": scoring.run,
    "step": step.run,
    "memory": table.memory,
}


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 within all budgets, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="benchmarks validation", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=1000, help="of mlengine; scikit-learn's time is scaled to it")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement, of which the fastest counts")
    parser.add_argument("--small", type=int, default=20_000, help="rows for the comparison of the intervals")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--state", type=Path, help="folder that keeps the TensorFlow environment")
    args = parser.parse_args(argv)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")
    within = [part(args) for name, part in PARTS.items() if args.only in {None, name}]
    return 0 if all(within) else 1


if __name__ == "__main__":
    raise SystemExit(main())
