"""``python -m digits.task --dataset gs://… --job-dir gs://…``: DistributedDataParallel on all replicas."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import traceback
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from google.cloud import storage
from torch.nn.parallel import DistributedDataParallel

RESTART = 75  # the exit code that requests a restart of this replica
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Digits(torch.nn.Module):
    """The model: bytes in, probabilities out. Validation passes the dataset's column by the argument's name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores = self.layers(image.flatten(1).float() / 255)
        return scores if self.training else scores.softmax(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://BUCKET/datasets/mnist/2026-11-01
    parser.add_argument("--job-dir", required=True)  # gs://BUCKET/digits/JOB
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=32)  # examples per replica
    args = parser.parse_args()
    try:
        # Reads MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE.
        dist.init_process_group("nccl" if DEVICE == "cuda" else "gloo", timeout=timedelta(minutes=5))
        train(args)
    except RuntimeError:
        # Another replica was lost. All restart, reconnect, and resume from the checkpoint.
        traceback.print_exc()
        os._exit(RESTART)
    dist.destroy_process_group()


def train(args: argparse.Namespace) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(read(args.dataset, name).copy()) for name in ("image", "label"))
    images, labels = images.reshape(-1, 28, 28)[rank::world], labels[rank::world]
    print(f"replica {rank} of {world}: {len(labels)} rows on {DEVICE}", flush=True)
    model = Digits().to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint = blob(f"{args.job_dir}/train/checkpoint.pt")
    # Rank 0 reads the checkpoint for all, because another replica might see an older or newer one.
    found = [checkpoint.download_as_bytes() if rank == 0 and checkpoint.exists() else None]
    dist.broadcast_object_list(found, src=0)
    done = 0
    if found[0]:
        state = torch.load(io.BytesIO(found[0]), map_location=DEVICE, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    print(f"starting after step {done}", flush=True)
    parallel = DistributedDataParallel(model)
    for step in range(done + 1, args.steps + 1):
        rows = torch.arange(step * args.batch_size, (step + 1) * args.batch_size) % len(labels)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(parallel(images[rows].to(DEVICE)), labels[rows].long().to(DEVICE))
        loss.backward()  # averages the gradients over all replicas
        optimizer.step()
        if rank == 0 and (step % 100 == 0 or step == args.steps):
            buffer = io.BytesIO()
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, buffer)
            checkpoint.upload_from_string(buffer.getvalue())
            progress = {"step": step, "of": args.steps, "loss": loss.item()}
            blob(f"{args.job_dir}/train/progress.json").upload_from_string(json.dumps(progress))
            print(progress, flush=True)
    print(f"replica {rank} ends with weights {sum(p.double().sum().item() for p in model.parameters())!r}", flush=True)
    if rank == 0:
        export(model.cpu().eval(), args.job_dir)
    dist.barrier()  # a replica that exits before the model is stored is not restarted if rank 0 is then lost


def export(model: Digits, job_dir: str) -> None:
    """Write ``model.pt2``, which validation runs. ``Dim`` allows any number of rows."""
    example = (torch.zeros(2, 28, 28, dtype=torch.uint8),)
    program = torch.export.export(model, example, dynamic_shapes=({0: torch.export.Dim("rows")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    blob(f"{job_dir}/model/model.pt2").upload_from_string(buffer.getvalue())


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
