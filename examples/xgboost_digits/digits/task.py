"""``python -m digits.task --dataset gs://… --job-dir gs://…``: gradient boosting on all replicas."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import socket
import threading
import time
import traceback
import zlib
from typing import Any

import numpy as np
import xgboost
from google.cloud import storage
from xgboost import collective
from xgboost.tracker import RabitTracker

RESTART = 75  # the exit code that requests a restart of this replica


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://BUCKET/datasets/mnist/2026-11-01
    parser.add_argument("--job-dir", required=True)  # gs://BUCKET/digits/JOB
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        communicator = {**meet(rank, size), "dmlc_task_id": os.environ["DMLC_TASK_ID"], "dmlc_timeout": 120}
        with collective.CommunicatorContext(**communicator):
            booster = train(args, rank, size)
            if rank == 0:
                blob(f"{args.job_dir}/model/model.ubj").upload_from_string(bytes(booster.save_raw("ubj")))
            # A replica that exits before the model is stored is not restarted if rank 0 is then lost.
            collective.broadcast("stored", 0)
    except xgboost.core.XGBoostError:
        # Another replica was lost. All restart, reconnect, and resume from the checkpoint.
        traceback.print_exc()
        os._exit(RESTART)


def meet(rank: int, size: int) -> dict[str, Any]:
    """The address of XGBoost's tracker, which runs on rank 0; the other ranks ask rank 0 for it.

    The tracker uses a new port after each restart, because it cannot reuse a port for a minute.
    """
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank == 0:
        tracker = RabitTracker(size, host_ip=socket.gethostbyname(address[0]), sortby="task", timeout=120)
        tracker.start()
        threading.Thread(target=serve, args=(socket.create_server(address), tracker), daemon=True).start()
        return tracker.worker_args()
    while True:
        try:
            with socket.create_connection(address, timeout=10) as connection:
                return json.loads(connection.makefile().readline())
        except (OSError, ValueError):
            time.sleep(0.2)  # rank 0 is not ready yet


def serve(server: socket.socket, tracker: RabitTracker) -> None:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(json.dumps(tracker.worker_args()).encode() + b"\n")


def train(args: argparse.Namespace, rank: int, size: int) -> xgboost.Booster:
    images, labels = read(args.dataset, "image").reshape(-1, 784)[rank::size], read(args.dataset, "label")[rank::size]
    checkpoint = blob(f"{args.job_dir}/train/checkpoint.ubj")
    stored = collective.broadcast(checkpoint.download_as_bytes() if rank == 0 and checkpoint.exists() else b"", 0)
    booster = xgboost.Booster(model_file=bytearray(stored)) if stored else None
    done = booster.num_boosted_rounds() if booster else 0
    print(f"replica {rank} of {size}: {len(labels)} rows, starting after round {done}", flush=True)
    data, log = xgboost.DMatrix(images.astype(np.float32), labels), {}
    options = {"evals": [(data, "train")], "evals_result": log, "verbose_eval": False}
    params = {"objective": "multi:softprob", "num_class": 10, "max_depth": 3, "learning_rate": 0.5, "nthread": 1}
    while done < args.rounds:
        rounds = min(10, args.rounds - done)
        booster = xgboost.train(params, data, rounds, xgb_model=booster, **options)
        done += rounds
        if rank == 0:
            checkpoint.upload_from_string(bytes(booster.save_raw("ubj")))
            progress = {"step": done, "of": args.rounds, "loss": float(log["train"]["mlogloss"][-1])}
            blob(f"{args.job_dir}/train/progress.json").upload_from_string(json.dumps(progress))
            print(progress, flush=True)
    print(f"replica {rank} ends with trees {zlib.crc32(booster.save_raw('ubj'))}", flush=True)
    return booster


def read(dataset: str, column: str) -> np.ndarray:
    """A column of the dataset version: the bytes after the header of its IDX file."""
    files = json.loads(blob(f"{dataset}/manifest.json").download_as_bytes())["splits"]["train"]["files"]
    path = next(file["path"] for file in files if file["column"] == column)
    content = blob(f"{dataset}/{path}").download_as_bytes()
    content = gzip.decompress(content) if path.endswith(".gz") else content
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])


def blob(uri: str) -> storage.Blob:
    """The object at ``gs://bucket/path``. The client finds the server of ``make run`` by ``STORAGE_EMULATOR_HOST``."""
    return storage.Blob.from_uri(uri, storage.Client())


if __name__ == "__main__":
    main()
