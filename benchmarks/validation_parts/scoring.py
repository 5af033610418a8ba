"""Writing the held-out rows and scoring them, compared with reading the same Parquet file and calling the bare model.

The bare model has the rows in memory. Imports, loading and warm-up are excluded on both sides.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.validation_parts.environment import tensorflow, trainer_python
from benchmarks.validation_parts.figures import timed, verdict
from benchmarks.validation_parts.table import COLUMNS, Table, write, write_table

BUDGET = 1.2  # relative to reading the rows and calling the bare model


def run(args: argparse.Namespace) -> bool:
    with trainer_python(args.state) as (python, folder):
        within = [score(args, python, folder / f"width{width}", width) for width in (16, 256)]
    return all(within)


def score(args: argparse.Namespace, python: Path, folder: Path, width: int) -> bool:
    """Measure a network of 8 inputs and two hidden layers of ``width`` units."""
    from mlengine.validation.scored_model import ScoredModel
    from mlengine.validation.scoring_process import ScoringProcess
    from mlengine.validation.serving_signature import ServingSignature

    folder.mkdir()
    write_table(folder, args.rows, save=8)
    tensorflow(python, "make", folder, args.rows, width)
    model = ScoredModel.read(folder / "model", ServingSignature())

    def step() -> tuple[float, float]:
        """The seconds for writing the rows, and for scoring them."""
        with tempfile.TemporaryDirectory(dir=folder) as name:
            work, start = Path(name), time.perf_counter()
            heldout = write(folder, work, args.rows)
            written = time.perf_counter() - start
            with ScoringProcess(python, model, heldout.folder, work=work / "work") as process:
                measured = process.measure()
            assert measured.outputs is not None, measured.error
            return written, measured.figures["heldout_seconds"]

    steps, bare, reading = [], [], []
    table = Table(folder / f"{args.rows}.parquet", args.rows)
    for _ in range(args.rounds):
        reading.append(timed(lambda: sum(len(batch) for batch in table.batches(8192))).wall)
        steps.append(step())
        bare.append(tensorflow(python, "bare", folder, args.rows, width))
    written, scored = (min(found) for found in zip(*steps, strict=True))
    ours, theirs = written + scored, min(reading) + min(bare)
    print(f"{args.rows:,} rows, {COLUMNS} columns; 8 inputs, 2 x {width} units; minimum of {args.rounds}")
    print(f"{'writing the rows':48}{written:10.2f} s")
    print(f"{'scoring the rows':48}{scored:10.2f} s")
    print(f"{'reading the Parquet file':48}{min(reading):10.2f} s")
    print(f"{'the bare model, rows in memory':48}{min(bare):10.2f} s")
    print(
        f"ratio, writing and scoring to reading and bare model: {ours / theirs:.2f}; scoring to bare model:"
        f" {scored / min(bare):.2f}; writing and scoring to bare model: {ours / min(bare):.2f}"
    )
    within = ours <= BUDGET * theirs
    print(f"budget: {BUDGET} times reading and bare model: {verdict(within)}")
    return bool(within)
