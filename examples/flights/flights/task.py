"""``python -m flights.task --dataset gs://… --job-dir gs://…``: a Keras model, trained by all replicas of TF_CONFIG."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf
from google.cloud import storage

from flights.model import build

RESTART = 75  # the exit code that requests a restart of this replica


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://BUCKET/datasets/flights/2014-01-01
    parser.add_argument("--job-dir", required=True)  # gs://BUCKET/flights/JOB
    parser.add_argument("--max_steps", type=int, default=1500)
    parser.add_argument("--batch_size", type=int, default=512)  # of all replicas together
    parser.add_argument("--learning_rate", type=float, default=0.001)
    args = parser.parse_args()
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    distributed = len([one for hosts in config.get("cluster", {}).values() for one in hosts]) > 1
    chief = config.get("task", {}).get("type", "chief") == "chief"
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy() if distributed else tf.distribute.get_strategy()
        Training(args, strategy, chief).run()
    except tf.errors.OpError:
        # A replica was lost. All others exit too, reconnect after the restart, and resume from the checkpoint.
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(RESTART)
    os._exit(0)  # all replicas exit at the same time, because TensorFlow treats one that exits early as lost


class Training:
    """One replica of the training. All replicas apply the same gradients, the mean over the rows of all.

    Keras 3's ``fit`` does not support this strategy; its layers and optimizers do.
    """

    def __init__(self, args: argparse.Namespace, strategy: tf.distribute.Strategy, chief: bool) -> None:
        self.args, self.strategy, self.chief = args, strategy, chief
        manifest = json.loads(blob(f"{args.dataset}/manifest.json").download_as_bytes())
        self.split, schema = manifest["splits"]["train"], manifest["schema"]
        others = {schema["target"], schema["key"], schema["time"]}
        self.target = schema["target"]
        self.columns = {one["name"]: one["dtype"] for one in schema["columns"] if one["name"] not in others}
        keras.utils.set_random_seed(0)  # all replicas start with the same weights
        with strategy.scope():
            self.model = build(self.columns, self.split["statistics"])
            self.optimizer = keras.optimizers.Adam(args.learning_rate)
            self.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.model.variables, *self.optimizer.variables]
        self.checkpoint = blob(f"{args.job_dir}/train/checkpoint.npz")

    def run(self) -> None:
        step = self.restore()
        for batch in self.batches().skip(step).take(max(0, self.args.max_steps - step)):
            loss = self.step(*batch)
            step += 1
            if self.chief and step % 100 == 0:
                self.save(step, float(loss))
        if self.chief:
            self.export()
        self.barrier()

    @tf.function
    def step(self, columns: Any, target: Any) -> Any:
        losses = self.strategy.run(self.replica_step, (columns, target))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def replica_step(self, columns: Any, target: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(target, self.model(columns, training=True)))
            loss /= self.strategy.num_replicas_in_sync
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )  # sums the gradients over all replicas
        return loss

    @tf.function
    def barrier(self) -> Any:
        """Wait until all replicas have called this, because the chief may still be exporting."""
        one = self.strategy.run(lambda: tf.constant(1.0))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, one, axis=None)

    def batches(self) -> tf.data.Dataset:
        """This replica's rows, every n-th row, repeated endlessly in random order."""
        resolver = self.strategy.cluster_resolver
        replicas = self.strategy.num_replicas_in_sync
        rank = 0 if self.chief else 1 + resolver.task_id
        tables = []
        for file in self.split["files"]:
            uri = file.get("uri") or f"{self.args.dataset}/{file['path']}"  # `uri`: recorded by reference
            table = pa.parquet.read_table(pa.BufferReader(blob(uri).download_as_bytes(raw_download=True)))
            tables.append(table.take(np.arange(rank, table.num_rows, replicas)))
        table = pa.concat_tables(tables)
        print(f"replica {rank} of {replicas}: {table.num_rows} of {self.split['rows']} rows", flush=True)
        columns = {
            name: np.array(["" if one is None else one for one in table[name].to_pylist()])[:, None]
            if dtype == "string"
            else table[name].to_numpy().astype(np.float32)[:, None]
            for name, dtype in self.columns.items()
        }
        target = table[self.target].to_numpy().astype(np.float32)[:, None]
        rows = tf.data.Dataset.from_tensor_slices((columns, target)).shuffle(len(target), seed=0).repeat()
        return rows.batch(max(1, self.args.batch_size // replicas))

    def restore(self) -> int:
        """Load the newest checkpoint, if there is one. Returns its step."""
        if not self.checkpoint.exists():
            return 0
        with np.load(io.BytesIO(self.checkpoint.download_as_bytes())) as stored:
            for number, variable in enumerate(self.variables):
                variable.assign(stored[str(number)])
            step = int(stored["step"])
        print(f"resuming after step {step}", flush=True)
        return step

    def save(self, step: int, loss: float) -> None:
        content = io.BytesIO()
        values = {str(number): variable.numpy() for number, variable in enumerate(self.variables)}
        np.savez(content, step=step, **values)
        self.checkpoint.upload_from_string(content.getvalue())
        progress = {"step": step, "of": self.args.max_steps, "loss": loss}
        blob(f"{self.args.job_dir}/train/progress.json").upload_from_string(json.dumps(progress))
        print(progress, flush=True)

    def export(self) -> None:
        """Export the weights in a model created outside of the strategy, so that it contains nothing of the cluster."""
        model = build(self.columns, self.split["statistics"])
        model.set_weights(self.model.get_weights())
        # TensorFlow cannot write to the Cloud Storage server of `make run`, so export to a directory and upload that.
        with tempfile.TemporaryDirectory() as folder:
            model.export(folder, verbose=False)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    name = path.relative_to(folder).as_posix()
                    blob(f"{self.args.job_dir}/model/{name}").upload_from_filename(path)


def blob(uri: str) -> storage.Blob:
    """The object at ``gs://bucket/path``. The client finds the server of ``make run`` by ``STORAGE_EMULATOR_HOST``."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return storage.Client().bucket(bucket).blob(path)


if __name__ == "__main__":
    main()
