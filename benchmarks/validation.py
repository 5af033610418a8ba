"""Validation of a large held-out set: comparison of two models, scoring, and memory.

1. The paired bootstrap of five metrics, compared with scikit-learn's functions in a loop over resampled rows. mlengine
   makes all resamples; a few of scikit-learn's are timed and scaled. At a smaller size both make all resamples, and
   their intervals are compared.
2. Writing the held-out rows and scoring them with a SavedModel, compared with reading the same Parquet file and the
   bare model on the same rows in memory. Imports, loading and warm-up are excluded on both sides.
3. Peak memory while the held-out rows are written.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlengine.validation.metrics import bootstrap
from mlengine.validation.metrics.outcomes import Outcomes

ROOT = Path(__file__).parents[1]
METRICS = ("roc_auc", "average_precision", "log_loss", "accuracy", "f1")
CONFIDENCE = 0.95
SPEED_BUDGET = 50.0  # times scikit-learn's speed
SPEED_MEMORY_BUDGET = 1024.0  # MiB over the import
SCORING_BUDGET = 1.2  # times reading the rows and the bare model
MEMORY_BUDGET = 512.0  # MiB over the import
# The interval's ends are quantiles of few resamples; this many standard errors apart is no coincidence.
STANDARD_ERRORS = 4.0


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 within all budgets, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="benchmarks validation", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=1000, help="of mlengine; scikit-learn's time is scaled to it")
    parser.add_argument("--rounds", type=int, default=3, help="resamples of scikit-learn that are timed")
    parser.add_argument("--small", type=int, default=20_000, help="rows for the comparison of the intervals")
    parser.add_argument("--only", choices=("metrics", "scoring", "memory"))
    parser.add_argument("--state", type=Path, help="folder that keeps the TensorFlow environment")
    args = parser.parse_args(argv)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")
    parts: dict[str, Callable[[argparse.Namespace], bool]] = {"metrics": metrics, "scoring": scoring, "memory": memory}
    within = [part(args) for name, part in parts.items() if args.only in {None, name}]
    return 0 if all(within) else 1


def metrics(args: argparse.Namespace) -> bool:
    """Speed, memory and result of the comparison of two models."""
    before = peak()
    challenger, champion = models(args.rows)
    given = sum(
        part.nbytes for one in (challenger, champion) for part in (one.values, one.predicted) if part is not None
    )
    # All resamples and the sorting: with a part of them and a subtraction, a busy machine decides the result.
    ours = timed(lambda: bootstrap.paired(challenger, champion, METRICS, resamples=args.resamples))
    used = peak() - before
    generator = np.random.default_rng(0)
    reference(challenger, champion, generator)  # imports scikit-learn
    theirs = [timed(lambda: reference(challenger, champion, generator)) for _ in range(args.rounds)]
    wall, cpu = (min(getattr(one, name) for one in theirs) * args.resamples for name in ("wall", "cpu"))
    ratio, cpu_ratio = wall / ours.wall, cpu / ours.cpu
    print(f"{args.rows:,} rows, {len(METRICS)} metrics, two models, {args.resamples} resamples")
    print(f"{'mlengine':48}{ours.wall:10.1f} s  {ours.cpu:8.1f} CPU-s")
    scaled = f"scikit-learn, scaled from the fastest of {args.rounds}"
    print(f"{scaled:48}{wall:10.1f} s  {cpu:8.1f} CPU-s")
    print(f"{'memory over the import':48}{used:10.0f} MiB  (predictions: {given / 2**20:.0f} MiB)")
    print(f"ratio, scikit-learn to mlengine: {ratio:.0f}; of CPU: {cpu_ratio:.0f}")
    within = ratio >= SPEED_BUDGET and used <= SPEED_MEMORY_BUDGET
    print(f"budget: {SPEED_BUDGET:.0f} times as fast, {SPEED_MEMORY_BUDGET:.0f} MiB: {verdict(within)}")
    return same_intervals(args.small) and within


def same_intervals(rows: int, resamples: int = 400) -> bool:
    """Compare the ends of the intervals with those of scikit-learn's functions on resampled rows."""
    challenger, champion = models(rows)
    ours = bootstrap.paired(challenger, champion, METRICS, resamples=resamples, confidence=CONFIDENCE)
    generator = np.random.default_rng(1)
    gains = np.array([reference(challenger, champion, generator) for _ in range(resamples)])
    same = True
    print(f"{rows:,} rows, {resamples} resamples: interval of the gain, mlengine and scikit-learn")
    for name, values in zip(METRICS, gains.T, strict=True):
        low, high = np.quantile(values, [1 - CONFIDENCE, CONFIDENCE])
        # The standard error of the difference of two 5 % quantiles of a normal distribution.
        error = float(np.sqrt(2 * CONFIDENCE * (1 - CONFIDENCE) / resamples) / 0.1031 * values.std())
        apart = max(abs(ours[name].low - low), abs(ours[name].high - high)) / error
        same &= apart <= STANDARD_ERRORS
        print(
            f"  {name:20}{ours[name].low:+.5f} to {ours[name].high:+.5f}   {low:+.5f} to {high:+.5f}"
            f"   {apart:.1f} standard errors apart"
        )
    print(f"same intervals, up to {STANDARD_ERRORS:.0f} standard errors: {verdict(same)}")
    return same


def models(rows: int) -> tuple[Outcomes, Outcomes]:
    """Two models of a binary target, 20 % positive, with correlated errors."""
    generator = np.random.default_rng(0)
    target = (generator.random(rows) < 0.2).astype(np.int64)
    common = generator.normal(size=rows)

    def model(noise: float) -> Outcomes:
        logit = 1.5 * target - 2 + 0.8 * common + noise * generator.normal(size=rows)
        values = 1 / (1 + np.exp(-logit))
        return Outcomes("binary", target, values, (values >= 0.5).astype(np.int64), None, 2)

    return model(0.6), model(0.65)


def reference(challenger: Outcomes, champion: Outcomes, generator: np.random.Generator) -> list[float]:
    """One stratified resample by scikit-learn: the gain in each metric."""
    from sklearn import metrics as sklearn

    classes = [np.flatnonzero(challenger.target == one) for one in (0, 1)]
    rows = np.concatenate([generator.choice(one, len(one)) for one in classes])

    def scores(model: Outcomes) -> list[float]:
        assert model.values is not None and model.predicted is not None  # noqa: PT018
        target, values, predicted = model.target[rows], model.values[rows], model.predicted[rows]
        return [
            sklearn.roc_auc_score(target, values),
            sklearn.average_precision_score(target, values),
            -sklearn.log_loss(target, values),
            sklearn.accuracy_score(target, predicted),
            sklearn.f1_score(target, predicted),
        ]

    return [mine - theirs for mine, theirs in zip(scores(challenger), scores(champion), strict=True)]


COLUMNS = 20
# Run in the trainer's environment. ``make``: writes the model. ``bare``: seconds of the model over the rows.
TENSORFLOW = """
import json, sys, time
from pathlib import Path
import numpy as np
import tensorflow as tf

task, folder, rows, batch, width = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
names = [f"x{at}" for at in range(8)]
if task == "make":
    module, generator = tf.Module(), np.random.default_rng(0)
    sizes = [len(names), width, width, 1]
    module.weights = [tf.Variable(generator.normal(size=pair).astype("float32") / pair[0] ** 0.5)
                      for pair in zip(sizes, sizes[1:])]
    def forward(**inputs):
        values = tf.stack([inputs[name] for name in names], axis=1)
        for weights in module.weights[:-1]:
            values = tf.nn.relu(values @ weights)
        return {"probability": tf.sigmoid(values @ module.weights[-1])}
    call = tf.function(forward).get_concrete_function(**{name: tf.TensorSpec([None], "float32") for name in names})
    tf.saved_model.save(module, str(folder / "model"), signatures=call)
else:
    call = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    table = {name: np.load(folder / f"{name}.npy") for name in names}
    def run(stop):
        start, parts = time.perf_counter(), []
        for at in range(0, stop, batch):
            feed = {name: tf.constant(values[at:min(at + batch, stop)]) for name, values in table.items()}
            parts.append(call(**feed)["probability"].numpy())
        np.concatenate(parts)
        return time.perf_counter() - start
    for _ in range(3):
        run(64)  # warm-up, as the scoring process has had
    print("MEASURED " + json.dumps(run(rows)))
"""


@dataclass(frozen=True)
class Table:
    """A table in place of a dataset version's held-out split."""

    path: Path
    rows: int

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
        import pyarrow.parquet as pq

        yield from pq.ParquetFile(self.path).iter_batches(rows, columns=columns)


def scoring(args: argparse.Namespace) -> bool:
    """The scoring step, compared with the bare model."""
    from tests.support import validation_env

    from mlengine.storage.client import Storage
    from mlengine.testing import gcs
    from mlengine.validation.environment import local_environment

    with gcs.running() as server, tempfile.TemporaryDirectory() as name:
        os.environ.update(server.env)
        folder, storage = Path(name), Storage()
        storage.client.create_bucket(validation_env.SHARED.removeprefix("gs://"))
        storage.write(validation_env.PACKAGE, validation_env.wheel())
        state = args.state or folder / "state"
        with local_environment(storage, [validation_env.PACKAGE], state).python() as python:
            within = [score(args, python, folder / f"width{width}", width) for width in (16, 256)]
    return all(within)


def score(args: argparse.Namespace, python: Path, folder: Path, width: int) -> bool:
    """Measure a network of 8 inputs and two hidden layers of ``width`` units."""
    from mlengine.validation.runner import Limits, run_model

    from mlengine.validation.scored_model import ScoredModel
    from mlengine.validation.serving_signature import ServingSignature

    folder.mkdir()
    write_table(folder, args.rows, save=8)
    tensorflow(python, "make", folder, args.rows, width)
    model = ScoredModel.read(folder / "model", ServingSignature())

    def step() -> tuple[float, float]:
        """Seconds for writing the rows, and for scoring them."""
        with tempfile.TemporaryDirectory(dir=folder) as name:
            work, start = Path(name), time.perf_counter()
            heldout = write(folder, work, args.rows)
            written = time.perf_counter() - start
            measured = run_model(python, model, heldout, work=work / "work", limits=Limits())
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
    within = ours <= SCORING_BUDGET * theirs
    print(f"budget: {SCORING_BUDGET} times reading and bare model: {verdict(within)}")
    return bool(within)


def tensorflow(python: Path, task: str, folder: Path, rows: int, width: int) -> float:
    """Run :data:`TENSORFLOW` with the trainer's Python."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [str(python), "-c", TENSORFLOW, task, str(folder), str(rows), "8192", str(width)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    return float(found[0].removeprefix("MEASURED ")) if found else 0.0


def write_table(folder: Path, rows: int, save: int = 0) -> None:
    """A Parquet file of 20 float columns and a target; the first ``save`` columns also as ``.npy``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(0)
    table = {f"x{at}": generator.random(rows, np.float32) for at in range(COLUMNS)}
    for name in list(table)[:save]:
        np.save(folder / f"{name}.npy", table[name])
    pq.write_table(pa.table({**table, "late": generator.integers(0, 2, rows)}), folder / f"{rows}.parquet")


def write(folder: Path, out: Path, rows: int) -> Any:
    """The held-out rows as the scoring process reads them."""
    from mlengine.core.dataset import Column, Schema
    from mlengine.validation.heldout import write_heldout

    columns = (*(Column(f"x{at}", "float32") for at in range(COLUMNS)), Column("late", "int64"))
    schema = Schema(columns, target="late", classes=(0, 1))
    target = out / "rows"
    target.mkdir()
    return write_heldout(Table(folder / f"{rows}.parquet", rows), schema, "binary", target, digest="")  # type: ignore[arg-type]


def memory(args: argparse.Namespace) -> bool:
    """Peak memory of a new process that writes the held-out rows, over its imports."""
    with tempfile.TemporaryDirectory() as name:
        write_table(Path(name), args.rows)
        program = (
            "import sys; from pathlib import Path; from benchmarks import validation as b\n"
            "import pyarrow.parquet, pyarrow.compute, mlengine.validation.heldout\n"
            "before, folder = b.peak(), Path(sys.argv[1])\n"
            "b.write(folder, folder, int(sys.argv[2])); print(b.peak() - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, name, str(args.rows)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    used = float(done.stdout.split()[-1])
    print(f"writing {args.rows:,} rows x {COLUMNS} columns: {used:.0f} MiB over the import")
    print(f"budget: {MEMORY_BUDGET:.0f} MiB: {verdict(used <= MEMORY_BUDGET)}")
    return used <= MEMORY_BUDGET


@dataclass(frozen=True)
class Seconds:
    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def peak() -> float:
    """Peak resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def verdict(within: bool) -> str:
    return "within" if within else "BEYOND"


if __name__ == "__main__":
    raise SystemExit(main())
