"""The MNIST example on one and two GPUs of this machine, as local jobs: steps/s, and the share of the GPU's peak speed.

The peak is measured with matrix products in the environment of the job. One replica is a chief; two are a chief and a
worker, each on its own GPU, with a parameter server on the CPU. Without a GPU, nothing is run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from scripts.bootstrap import ROOT
from scripts.trainer_env import trainer_python

from benchmarks.training import make_dataset, print_machine
from mlengine import settings
from mlengine.backends import Submission
from mlengine.backends.local import gpus
from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.local.record import Job
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.packaging.publish import package_trainer
from mlengine.runtime.venv import find_environment
from mlengine.storage.client import Storage
from mlengine.testing import gcs

# Prints the operations of a step for one example, and the GPU's TFLOP/s in FP32 and in TF32.
PEAK = """
import sys, time
import tensorflow as tf
from bench.loops import operations

def rate(size, tf32):
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    left, right = (tf.random.normal([size, size]) for _ in range(2))
    def products(count):
        began = time.perf_counter()
        for _ in range(count):
            result = tf.matmul(left, right)
        float(result[0, 0])
        return time.perf_counter() - began
    products(3)
    return 20 * 2 * size**3 / products(20) / 1e12

size = int(sys.argv[1])
print(operations(), rate(size, False), rate(size, True))
"""


def main(argv: list[str] | None = None) -> int:
    """Exit code: 1 if a job failed."""
    parser = argparse.ArgumentParser(prog="benchmarks gpus", description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--strategy", choices=["async", "sync"], default="async")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, to test this benchmark")
    args = parser.parse_args(argv)
    try:
        found = [] if args.cpu else gpus.find(settings.get("local_gpus"), os.environ)
    except BackendError as error:
        print(f"not run: {error}")
        return 1
    if not (found or args.cpu):
        print("not run: this machine has no NVIDIA GPU (nvidia-smi lists none, and local_gpus names none)")
        return 0
    print_machine(str(trainer_python()))
    print(gpus.describe(found))
    with gcs.running() as server, tempfile.TemporaryDirectory(prefix="bench-gpus-") as scratch:
        os.environ.update(server.env)
        return _measure(args, found, Path(scratch))


def _measure(args: argparse.Namespace, found: list[gpus.Gpu], scratch: Path) -> int:
    storage, bucket = Storage(), f"gs://bench-{uuid.uuid4().hex[:12]}"
    storage.client.create_bucket(bucket.removeprefix("gs://"))
    uris = package_trainer(ROOT / "trainer", storage=storage, staging=bucket, module="trainer.task").uris
    data = str(make_dataset(str(trainer_python()), scratch))
    backend = LocalBackend(scratch / "state", max_workers=2, log_upload_timeout_seconds=0)
    peak: list[float] = []
    for replicas in (1, 2):
        if not args.cpu and len(found) < replicas:
            print(f"not run with {replicas} replicas: this machine has {gpus.number(len(found))}")
            continue
        arguments = ("--dataset", data, "--max_steps", str(args.steps), "--batch_size", str(args.batch_size),
                     "--strategy", args.strategy)  # fmt: skip
        spec = TrainingSpec("trainer.task", tuple(uris), arguments, _pools(replicas, args))
        submission = Submission(uuid.uuid4().hex, f"gpus_{replicas}", 1, f"{bucket}/gpus_{replicas}", spec)
        handle = backend.submit(submission)
        if not _succeeds(backend, handle):
            return 1
        progress = json.loads(storage.read(f"{submission.job_dir}/train/progress.json"))
        peak = peak or _peak(backend.state_dir, handle, found)
        _report(replicas, float(progress["examples_per_second"]), args.batch_size, peak)
    return 0


def _pools(replicas: int, args: argparse.Namespace) -> tuple[Pool, ...]:
    gpu: dict[str, Any] = {} if args.cpu else {"accelerator_type": "NVIDIA_GPU", "accelerator_count": 1}
    pools = [Pool(Role.CHIEF, 1, **gpu)]
    if replicas > 1:
        pools.append(Pool(Role.WORKER, replicas - 1, **gpu))
        if args.strategy == "async":
            pools.append(Pool(Role.PS, 1))
    return tuple(pools)


def _succeeds(backend: LocalBackend, handle: JobHandle) -> bool:
    detail = ""
    while not (status := backend.describe([handle])[0]).state.terminal:
        if status.detail != detail:
            detail = status.detail
            print(f"    {handle.job_id}: {status.state.value}, {detail}", flush=True)
        time.sleep(1.0)
    if status.state is not JobState.SUCCEEDED:
        print(f"{handle.job_id} {status.state.value}: {status.detail}")
        print("\n".join(status.failure.log_tail) if status.failure else "")
    return status.state is JobState.SUCCEEDED


def _peak(state_dir: Path, handle: JobHandle, found: list[gpus.Gpu]) -> list[float]:
    """The operations for one example, and the operations per second in FP32 and in TF32."""
    job = Job(state_dir / "jobs" / handle.name.rpartition(":")[2])
    environment = find_environment(state_dir, (job.state() or {})["environment"])
    if environment is None:
        raise BackendError(f"the environment of {handle.job_id} has been removed")
    env = {**os.environ, **gpus.variables(None, found[:1]), "PYTHONPATH": str(ROOT / "trainer")}
    command = [str(environment.python), "-c", PEAK, "8192" if found else "1024"]
    words = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    operations, *rates = map(float, words)
    return [operations, *(rate * 1e12 for rate in rates)]


def _report(replicas: int, examples: float, batch_size: int, peak: list[float]) -> None:
    """Print the speed, and the share of the peak.

    :param examples: examples per second of all replicas together.
    """
    operations, *rates = peak
    each = examples * operations / replicas
    shares = [
        f"{each / rate:.1%} of {rate / 1e12:.3g} TFLOP/s in {name}"
        for name, rate in zip(("FP32", "TF32"), rates, strict=True)
    ]
    name = "1 replica" if replicas == 1 else f"{replicas} replicas"
    print(f"  {name}: {examples / batch_size:.1f} steps/s, {examples:.0f} examples/s; ", end="")
    print(f"a replica computes {each / 1e12:.3g} TFLOP/s, {' and '.join(shares)}")


if __name__ == "__main__":
    raise SystemExit(main())
