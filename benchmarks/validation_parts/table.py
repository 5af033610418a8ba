"""A table of 20 columns on which a model is validated, as Parquet and as the files of the scoring process."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.validation_parts.figures import verdict

ROOT = Path(__file__).parents[2]
COLUMNS = 20
MEMORY_BUDGET = 512.0  # MiB more than after the imports


@dataclass(frozen=True)
class Table:
    """A table that acts as the held-out split of a dataset version."""

    path: Path
    rows: int

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
        import pyarrow.parquet as pq

        yield from pq.ParquetFile(self.path).iter_batches(rows, columns=columns)


def write_table(folder: Path, rows: int, save: int = 0) -> None:
    """Write a Parquet file with 20 float columns and a target, and the first ``save`` columns also as ``.npy``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(0)
    table = {f"x{at}": generator.random(rows, np.float32) for at in range(COLUMNS)}
    for name in list(table)[:save]:
        np.save(folder / f"{name}.npy", table[name])
    pq.write_table(pa.table({**table, "late": generator.integers(0, 2, rows)}), folder / f"{rows}.parquet")


def write(folder: Path, out: Path, rows: int) -> Any:
    """Write the held-out rows as the scoring process reads them."""
    from mlengine.core.dataset import Column, Schema
    from mlengine.validation.heldout import write_heldout

    columns = (*(Column(f"x{at}", "float32") for at in range(COLUMNS)), Column("late", "int64"))
    schema = Schema(columns, target="late", classes=(0, 1))
    target = out / "rows"
    target.mkdir()
    return write_heldout(Table(folder / f"{rows}.parquet", rows), schema, "binary", target, digest="")  # type: ignore[arg-type]


def memory(args: argparse.Namespace) -> bool:
    """Measure the peak memory of a new process that writes the held-out rows, relative to that after its imports."""
    with tempfile.TemporaryDirectory() as name:
        write_table(Path(name), args.rows)
        program = (
            "import sys; from pathlib import Path; from benchmarks.validation_parts import figures, table\n"
            "import pyarrow.parquet, pyarrow.compute, mlengine.validation.heldout\n"
            "before, folder = figures.peak(), Path(sys.argv[1])\n"
            "table.write(folder, folder, int(sys.argv[2])); print(figures.peak() - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, name, str(args.rows)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    used = float(done.stdout.split()[-1])
    print(f"writing {args.rows:,} rows x {COLUMNS} columns: {used:.0f} MiB over the import")
    print(f"budget: {MEMORY_BUDGET:.0f} MiB: {verdict(used <= MEMORY_BUDGET)}")
    return used <= MEMORY_BUDGET
