"""An environment with TensorFlow, and the programs that create a model there and run it without mlengine."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

# Runs in the trainer's environment. ``make`` writes the model. ``bare`` measures the seconds of the model on the rows.
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

# A script that computes the metrics of a model on a Parquet file, and does nothing else.
PLAIN = """
import json, sys
from pathlib import Path
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from sklearn import metrics

model, file, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
call = tf.saved_model.load(str(model)).signatures["serving_default"]
names = [f"x{at}" for at in range(8)]
values, target = [], []
for part in pq.ParquetFile(file).iter_batches(batch, columns=[*names, "late"]):
    feed = {name: tf.constant(part.column(name).to_numpy()) for name in names}
    values.append(call(**feed)["probability"].numpy())
    target.append(part.column("late").to_numpy())
values, target = np.concatenate(values).reshape(-1).astype("float64"), np.concatenate(target)
predicted = values >= 0.5
print("MEASURED " + json.dumps({
    "roc_auc": metrics.roc_auc_score(target, values),
    "average_precision": metrics.average_precision_score(target, values),
    "log_loss": metrics.log_loss(target, values),
    "accuracy": metrics.accuracy_score(target, predicted),
    "f1": metrics.f1_score(target, predicted)}))
"""


@contextmanager
def trainer_python(state: Path | None) -> Iterator[tuple[Path, Path]]:
    """The interpreter of an environment with TensorFlow, and a folder. A storage service runs in the meantime.

    :param state: a folder that keeps the environment between runs.
    """
    from mlengine.storage.client import Storage
    from mlengine.testing import gcs
    from mlengine.validation.environment import local_environment

    with gcs.running() as server, tempfile.TemporaryDirectory() as name:
        os.environ.update(server.env)
        folder = Path(name)
        with local_environment(Storage(), [register_package()], state or folder / "state").python() as python:
            yield python, folder


def register_package() -> str:
    """Create the bucket with the package whose environment has TensorFlow, pyarrow and scikit-learn."""
    from tests.support import validation_env

    from mlengine.storage.client import Storage

    storage = Storage()
    storage.client.create_bucket(validation_env.SHARED.removeprefix("gs://"))
    more = [f"{name}=={version(name)}" for name in ("pyarrow", "scikit-learn")]
    storage.write(validation_env.PACKAGE, validation_env.wheel(*more))
    return validation_env.PACKAGE


def plain(python: Path, model: Path, file: Path) -> dict[str, float]:
    """The metrics that :data:`PLAIN` computes."""
    return dict(json.loads(_run(python, PLAIN, str(model), str(file), "8192")))


def tensorflow(python: Path, task: str, folder: Path, rows: int, width: int) -> float:
    """Run :data:`TENSORFLOW`."""
    return float(_run(python, TENSORFLOW, task, str(folder), str(rows), "8192", str(width)) or 0)


def _run(python: Path, source: str, *args: str) -> str:
    """The output of the program after ``MEASURED``."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([str(python), "-c", source, *args], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    return found[0].removeprefix("MEASURED ") if found else ""
