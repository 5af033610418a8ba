"""The Ray backend compared with the local backend on the same cores: time to the first step, and steps per second.

``python -m benchmarks ray [--rounds N] [--steps N]``. It starts a Cloud Storage server and a Ray cluster of one node,
and trains MNIST with the example trainer, one replica, on both backends in turn. Times are those of the trainer's log
lines, and every figure is a ratio within a round. The first job of each backend builds the environment and is not
counted. Each round also runs a job on Ray without mlengine, whose driver starts one actor: the minimum time of a job on
Ray until it can start a process. The CPU time of the cluster's own processes is also printed.

``--instant`` replaces the trainer with one that exits at once, to measure only the cost of the backends.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from scripts.trainer_env import trainer_python

from benchmarks.training import ROOT, make_dataset

if TYPE_CHECKING:
    from mlengine.backends import TrainingBackend
    from mlengine.core.spec import TrainingSpec

RATE_BUDGET = 0.9  # Ray's steps per second over the local backend's
FIRST_STEP_BUDGET = 1.5  # Ray's seconds to the first step over the local backend's
JOB_SECONDS = 900.0
_STEP = re.compile(r"step (\d+) of \d+, loss")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ")


_BARE = """
import ray, time
ray.init(address="auto", log_to_driver=False)
@ray.remote
class Clock:
    def now(self):
        return time.time()
print("actor at", ray.get(Clock.remote().now.remote()))
"""


@dataclass(frozen=True)
class Run:
    """The result of one job.

    :param first: seconds from the submission to the first step.
    :param rate: steps per second.
    """

    first: float
    rate: float = 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 if a ratio is over its budget."""
    parser = argparse.ArgumentParser("ray", description="the backend ray compared with the local backend")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--instant", action="store_true", help="a trainer that ends at once instead of MNIST")
    args = parser.parse_args(argv)
    from tests.support import ray_cluster

    from mlengine.testing import gcs

    with tempfile.TemporaryDirectory(prefix="bench-ray-") as scratch, gcs.running() as server:
        os.environ.update(server.env)
        with ray_cluster.running(server.env, cpus=os.cpu_count() or 1) as cluster:
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {args.rounds} rounds", flush=True)
            backends = _backends(Path(scratch), cluster.address)
            spec = _instant() if args.instant else _mnist(Path(scratch), args.steps)
            rounds = [_round(backends, spec, cluster.address) for _ in range(args.rounds + 1)][1:]
            cpu = sum(_cpu_seconds(one.pid) for one in cluster.processes())
    return _report(rounds, cpu)


def _backends(scratch: Path, address: str) -> dict[str, TrainingBackend]:
    from mlengine.backends.local.backend import LocalBackend
    from mlengine.backends.ray.backend import RayBackend

    state, node = scratch / "state", scratch / "node"
    (state / "envs").mkdir(parents=True)
    node.mkdir()
    (node / "envs").symlink_to(state / "envs")  # the same packages and interpreter: one environment
    resources = {"CPU": os.cpu_count() or 1}
    return {
        "local": LocalBackend(state, max_concurrent_jobs=1),
        "ray": RayBackend(address=address, node_dir=str(node), resources=resources),
    }


def _mnist(scratch: Path, steps: int) -> TrainingSpec:
    from mlengine.core.spec import TrainingSpec
    from mlengine.packaging.publish import package_trainer
    from mlengine.storage.client import Storage

    storage = Storage()
    storage.client.create_bucket("bench-ray")
    data = make_dataset(str(trainer_python()), scratch)
    packaged = package_trainer(ROOT / "trainer", storage=storage, staging="gs://bench-ray", module="trainer.task")
    arguments = ("--dataset", str(data), "--max_steps", str(steps), "--checkpoint", "1000000")
    return TrainingSpec("trainer.task", tuple(packaged.uris), arguments)


def _instant() -> TrainingSpec:
    from tests.support import local_jobs

    from mlengine.core.spec import TrainingSpec
    from mlengine.storage.client import Storage

    storage = Storage()
    storage.client.create_bucket("bench-ray")
    source = (
        "import datetime, time\n"
        "for step in (1, 2):\n"
        "    stamp = datetime.datetime.now().strftime('%Y-%m-%d %H:%M:%S,%f')[:-3]\n"
        "    print(f'{stamp} step {step} of 2, loss 0', flush=True)\n"
        "    time.sleep(0.1)\n"
    )
    return TrainingSpec("tiny.task", (local_jobs.put(storage, "gs://bench-ray", local_jobs.sdist(source)),))


def _round(backends: dict[str, TrainingBackend], spec: TrainingSpec, address: str) -> dict[str, Run]:
    found = {name: _run(backend, spec) for name, backend in backends.items()}
    words = ", ".join(f"{name} {run.first:.1f} s, {run.rate:.1f} steps/s" for name, run in found.items())
    found["bare"] = Run(_bare_ray(address))
    words += f", an actor of Ray alone {found['bare'].first:.1f} s"
    print(f"    {words}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return found


def _bare_ray(address: str) -> float:
    """The seconds from a job's submission to the first response of its actor.

    :raises RuntimeError: the job did not succeed.
    """
    import requests

    name, begun = f"bare-{uuid.uuid4().hex[:8]}", time.time()
    body = {"submission_id": name, "entrypoint": shlex.join(["python", "-c", _BARE])}
    requests.post(f"{address}/api/jobs/", json=body, timeout=60).raise_for_status()
    while (job := requests.get(f"{address}/api/jobs/{name}", timeout=60).json())["status"] in {"PENDING", "RUNNING"}:
        time.sleep(0.2)
    text = requests.get(f"{address}/api/jobs/{name}/logs", timeout=60).json()["logs"]
    found = re.search(r"actor at ([\d.]+)", text)
    if found is None:
        raise RuntimeError(f"Ray alone: {job['status']}: {text[-2000:]}")
    return float(found[1]) - begun


def _run(backend: TrainingBackend, spec: TrainingSpec) -> Run:
    """Run one job.

    :raises RuntimeError: the job did not succeed.
    """
    from mlengine.backends import Submission

    name = f"job_{uuid.uuid4().hex[:8]}"
    begun = time.time()
    handle = backend.submit(Submission(uuid.uuid4().hex, name, 1, f"gs://bench-ray/mnist/{name}", spec))
    while not (status := backend.describe([handle])[0]).state.terminal:
        if time.time() - begun > JOB_SECONDS:
            backend.cancel(handle)
            raise RuntimeError(f"{backend.name}: still {status.state} after {JOB_SECONDS:.0f} s: {status.detail}")
        time.sleep(0.2)
    steps: list[tuple[float, int]] = []
    texts: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = backend.logs(handle, cursor)
        for line in page.lines:
            texts.append(line.text)
            if (step := _STEP.search(line.text)) and (stamp := _STAMP.match(line.text)):
                moment = datetime.datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S,%f").astimezone()
                steps.append((moment.timestamp(), int(step[1])))
        cursor = dict(page.cursor)
        if page.complete:
            break
    if status.failure or len(steps) < 2:
        raise RuntimeError(f"{backend.name}: {status.state}: {status.detail}\n" + "\n".join(texts[-20:]))
    (first_at, first), (last_at, last) = steps[0], steps[-1]
    return Run(first_at - begun, (last - first) / (last_at - first_at))


def _report(rounds: Sequence[dict[str, Run]], cpu: float) -> int:
    for name in ("local", "ray"):
        first, rate = (median(getattr(one[name], field) for one in rounds) for field in ("first", "rate"))
        print(f"  {name:6} first step after {first:5.1f} s, {rate:6.1f} steps/s")
    first = median(one["ray"].first / one["local"].first for one in rounds)
    rate = median(one["ray"].rate / one["local"].rate for one in rounds)
    more = median(one["ray"].first - one["local"].first for one in rounds)
    bare = median(one["bare"].first for one in rounds)
    own = median(one["ray"].first - one["local"].first - one["bare"].first for one in rounds)
    print(
        f"  to the first step: x {first:.2f} of the local backend's time (at most {FIRST_STEP_BUDGET}), {more:+.1f} s"
    )
    print(f"  an actor of Ray alone is there after {bare:.1f} s; beyond that, the backend adds {own:+.1f} s")
    print(f"  steps per second:  x {rate:.2f} of the local backend's (at least {RATE_BUDGET})")
    print(f"  CPU seconds of the Ray cluster's own processes, since its start: {cpu:.0f}")
    return int(first > FIRST_STEP_BUDGET or rate < RATE_BUDGET)


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
