"""``python -m delays.task --dataset gs://… --job-dir gs://…``: gradient boosting on all replicas of TF_CONFIG."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import threading
import time
import traceback
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import xgboost
from google.cloud import storage
from xgboost import collective
from xgboost.tracker import RabitTracker

from delays.features import matrix

RESTART = 75  # the exit code that requests a restart of this replica


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://BUCKET/datasets/flights/2014-01-01
    parser.add_argument("--job-dir", required=True)  # gs://BUCKET/delays/JOB
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--max_depth", type=int, default=6)
    args = parser.parse_args()
    rank, addresses = replica()
    peers = Peers()
    try:
        with collective.CommunicatorContext(**peers.meet(rank, addresses)):
            booster = train(args, rank, len(addresses))
    except xgboost.core.XGBoostError:
        traceback.print_exc()
        os._exit(RESTART)
    if rank == 0:
        blob(f"{args.job_dir}/model/model.ubj").upload_from_string(bytes(booster.save_raw("ubj")))
    peers.finish()


def replica() -> tuple[int, list[str]]:
    """This replica's number, and the addresses of all; the chief is number 0."""
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    cluster, task = config.get("cluster", {}), config.get("task", {})
    chiefs = cluster.get("chief") or cluster.get("master") or ["127.0.0.1:29500"]
    rank = len(chiefs) + task["index"] if task.get("type") == "worker" else 0
    return rank, [*chiefs, *cluster.get("worker", [])]


class Peers:
    """Sends the address of XGBoost's tracker to the workers, and exits this replica if another one is lost.

    Each worker keeps a connection to the chief's address in TF_CONFIG. When a replica dies, its connections close. All
    others then exit too, reconnect after the restart, and resume from the checkpoint. XGBoost alone may wait forever
    for a lost replica. Its tracker has a different port, because it could not use that of TF_CONFIG for a minute after
    a restart.
    """

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self.watchers: list[threading.Thread] = []

    def meet(self, rank: int, addresses: list[str]) -> dict[str, Any]:
        """The arguments of XGBoost's communicator."""
        host, port = addresses[0].split(":")
        if rank == 0:
            tracker = RabitTracker(len(addresses), host_ip=socket.gethostbyname(host), sortby="task")
            tracker.start()
            server = socket.create_server((host, int(port)))
            threading.Thread(target=self.serve, args=(server, tracker), daemon=True).start()
            return {**tracker.worker_args(), "dmlc_task_id": "0000"}
        while True:
            try:
                connection = socket.create_connection((host, int(port)), timeout=10)
                found = json.loads(connection.makefile().readline())
            except (OSError, ValueError):
                time.sleep(0.5)  # the chief is not ready yet
            else:
                self.watch(connection)
                return {**found, "dmlc_task_id": f"{rank:04}"}

    def serve(self, server: socket.socket, tracker: RabitTracker) -> None:
        while True:
            connection, _ = server.accept()
            connection.sendall(json.dumps(tracker.worker_args()).encode() + b"\n")
            self.watch(connection)

    def watch(self, connection: socket.socket) -> None:
        def wait() -> None:
            with contextlib.suppress(OSError):
                if connection.recv(1):
                    return  # the other replica has finished
            print("another replica was lost", flush=True)
            os._exit(RESTART)

        connection.settimeout(None)
        self.connections.append(connection)
        self.watchers.append(threading.Thread(target=wait, daemon=True))
        self.watchers[-1].start()

    def finish(self) -> None:
        """Wait until the others have finished too.

        The chief calls this only after it has stored the model. If a worker exited earlier and the chief was then lost,
        the worker would not be restarted.
        """
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sendall(b".")
        for watcher in self.watchers:
            watcher.join()


def train(args: argparse.Namespace, rank: int, replicas: int) -> xgboost.Booster:
    manifest = json.loads(blob(f"{args.dataset}/manifest.json").download_as_bytes())
    split, schema = manifest["splits"]["train"], manifest["schema"]
    others = {schema["target"], schema["key"], schema["time"]}
    names = [column["name"] for column in schema["columns"] if column["name"] not in others]
    strings = [column["name"] for column in schema["columns"] if column["dtype"] == "string"]
    # The categories are from the manifest, so that they are the same on all replicas, in the same order.
    categories = {
        name: sorted(value for value, _ in split["statistics"][name]["top"]) for name in strings if name in names
    }
    rows = read(args.dataset, split["files"], rank, replicas)
    data = matrix(rows, categories, names, rows[schema["target"]])
    print(f"replica {rank} of {replicas}: {data.num_row()} of {split['rows']} rows", flush=True)
    checkpoint = blob(f"{args.job_dir}/train/checkpoint.ubj")
    stored = collective.broadcast(checkpoint.download_as_bytes() if rank == 0 and checkpoint.exists() else b"", 0)
    booster = xgboost.Booster(model_file=bytearray(stored)) if stored else None
    done = booster.num_boosted_rounds() if booster else 0
    print(f"starting after round {done}", flush=True)
    booster = xgboost.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "learning_rate": args.learning_rate,
            "max_depth": args.max_depth,
            "nthread": int(os.environ.get("OMP_NUM_THREADS") or 1),
        },
        data,
        num_boost_round=max(0, args.rounds - done),
        xgb_model=booster,
        evals=[(data, "train")],
        verbose_eval=False,
        callbacks=[Chief(args, checkpoint)] if rank == 0 else [],
    )
    booster.set_attr(categories=json.dumps(categories))
    return booster


def read(dataset: str, files: list[dict[str, Any]], rank: int, replicas: int) -> dict[str, np.ndarray]:
    """This replica's rows by column. With many large files, give each replica some of the files instead."""
    tables = []
    for file in files:
        uri = file.get("uri") or f"{dataset}/{file['path']}"  # `uri`: recorded by reference
        table = pa.parquet.read_table(pa.BufferReader(blob(uri).download_as_bytes(raw_download=True)))
        tables.append(table.take(np.arange(rank, table.num_rows, replicas)))
    table = pa.concat_tables(tables)
    return {name: table[name].to_numpy() for name in table.column_names}


class Chief(xgboost.callback.TrainingCallback):
    """The callback of the chief, which writes a checkpoint every ten rounds, and the progress."""

    def __init__(self, args: argparse.Namespace, checkpoint: storage.Blob) -> None:
        self.args, self.checkpoint = args, checkpoint

    def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: dict[str, Any]) -> bool:  # noqa: ARG002 - XGBoost's signature
        done = model.num_boosted_rounds()
        if done % 10 == 0:
            self.checkpoint.upload_from_string(bytes(model.save_raw("ubj")))
            progress = {"step": done, "of": self.args.rounds, "loss": float(evals_log["train"]["logloss"][-1])}
            blob(f"{self.args.job_dir}/train/progress.json").upload_from_string(json.dumps(progress))
            print(progress, flush=True)
        return False


def blob(uri: str) -> storage.Blob:
    """The object at ``gs://bucket/path``. The client finds the server of ``make run`` by ``STORAGE_EMULATOR_HOST``."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return storage.Client().bucket(bucket).blob(path)


if __name__ == "__main__":
    main()
