"""``python -m digits.task --dataset gs://… --job-dir gs://…``: data-parallel training on all processes."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from google.cloud import storage
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

RESTART = 75  # the exit code that requests a restart of this replica
Params = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://BUCKET/datasets/mnist/2026-11-01
    parser.add_argument("--job-dir", required=True)  # gs://BUCKET/digits/JOB
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=32)  # examples per replica
    args = parser.parse_args()
    # JAX itself reads JAX_COORDINATOR_ADDRESS, but not these two.
    size, rank = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    try:
        jax.distributed.initialize(num_processes=size, process_id=rank, heartbeat_timeout_seconds=10)
        train(args, rank, size)
        jax.distributed.shutdown()
    except (jax.errors.JaxRuntimeError, ValueError):
        # Another replica was lost. All restart, reconnect, and resume from the checkpoint.
        traceback.print_exc()
        os._exit(RESTART)  # skip JAX's own shutdown, which waits for the lost replica


def loss_of(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores(params, images)), labels[:, None], axis=1))


@jax.jit
def update(params: Params, images: jax.Array, labels: jax.Array) -> tuple[Params, jax.Array]:
    """One step on a batch that is distributed over all replicas; JAX sums the gradients over them."""
    loss, gradients = jax.value_and_grad(loss_of)(params, images, labels)
    return jax.tree.map(lambda value, gradient: value - 0.1 * gradient, params, gradients), loss


def train(args: argparse.Namespace, rank: int, size: int) -> None:
    images, labels = read(args.dataset, "image").reshape(-1, 784)[rank::size], read(args.dataset, "label")[rank::size]
    print(f"replica {rank} of {size}: {len(labels)} rows on {jax.local_devices()[0].platform}", flush=True)
    mesh = jax.make_mesh((jax.device_count(),), ("row",))
    local = jax.make_array_from_process_local_data
    split, copied = NamedSharding(mesh, PartitionSpec("row")), NamedSharding(mesh, PartitionSpec())
    checkpoint = blob(f"{args.job_dir}/train/checkpoint.npz")
    state = {**create(), "step": np.array(0)}
    if rank == 0 and checkpoint.exists():
        state = dict(np.load(io.BytesIO(checkpoint.download_as_bytes())))
    state = multihost_utils.broadcast_one_to_all(state)  # rank 0's, as others might see an older or newer one
    done = int(state.pop("step"))
    print(f"starting after step {done}", flush=True)
    params = {name: local(copied, np.asarray(value)) for name, value in state.items()}
    for step in range(done + 1, args.steps + 1):
        rows = np.arange(step * args.batch_size, (step + 1) * args.batch_size) % len(labels)
        params, loss = update(params, *(local(split, part[rows]) for part in (images, labels)))
        if rank == 0 and (step % 100 == 0 or step == args.steps):
            checkpoint.upload_from_string(saved(params, step=np.array(step)))
            progress = {"step": step, "of": args.steps, "loss": float(loss)}
            blob(f"{args.job_dir}/train/progress.json").upload_from_string(json.dumps(progress))
            print(progress, flush=True)
    print(f"replica {rank} ends with weights {sum(float(np.sum(one)) for one in params.values())!r}", flush=True)
    if rank == 0:
        blob(f"{args.job_dir}/model/model.npz").upload_from_string(saved(params))


def create() -> Params:
    random = np.random.default_rng(0)  # the same on all replicas
    w1, w2 = (random.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32) for shape in ((784, 64), (64, 10)))
    return {"w1": w1, "b1": np.zeros(64, np.float32), "w2": w2, "b2": np.zeros(10, np.float32)}


def scores(params: Params, images: Any) -> jax.Array:
    hidden = jnp.asarray(images, jnp.float32) / 255 @ params["w1"] + params["b1"]
    return jax.nn.relu(hidden) @ params["w2"] + params["b2"]


def load(model_dir: str) -> Any:
    """Load the scorer, which validation calls. Returns a function from a batch to probabilities."""
    params = dict(np.load(f"{model_dir}/model.npz"))
    return lambda batch: np.asarray(jax.nn.softmax(scores(params, batch["image"].reshape(-1, 784))))


def saved(params: Params, **more: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(value) for name, value in params.items()}, **more)
    return buffer.getvalue()


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
