"""1, 100 and 1,000 waits in one triggerer: calls, event loop lag, CPU and memory, compared with the provider's trigger.

Each measurement is of a new process that runs Airflow's own ``TriggerRunner.run_trigger`` for every wait. On both
sides, the service is a stub in the same process that responds after 50 ms, so the cost of waiting is measured and not
that of a network. For our trigger, the responses are JSON as sent by Vertex AI, page by page, and every line of the log
page and every progress line is read from a real Cloud Storage server. For the provider's trigger, the responses are
ready-made messages, which is an advantage. ``--baseline DIR`` also measures our trigger with the code of another
checkout; the processes of the two alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COUNTS = (1, 100, 1000)
INTERVAL = 5.0
SECONDS = 25.0
START_SECONDS = 120.0
LATENCY = 0.05
LAG_BUDGET = 0.2
CREATED = "2026-11-23T12:00:00Z"
PARENT = "projects/bench/locations/europe-west1"


@dataclass(frozen=True)
class Cost:
    """The cost of one process.

    These are requests per tick, event loop lag in seconds, CPU seconds per minute, and memory in MiB.
    """

    calls: float
    lag_99: float
    lag_worst: float
    cpu: float
    memory: float


class StubClient:
    """A client that responds like Vertex AI and Cloud Logging for ``count`` running jobs without new lines."""

    def __init__(self, count: int) -> None:
        self.jobs = [
            {"name": f"{PARENT}/customJobs/{n}", "state": "JOB_STATE_RUNNING", "createTime": CREATED}
            for n in range(count)
        ]
        self.calls = 0
        self.sleep = time.sleep
        self._lock = threading.Lock()

    def call(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        with self._lock:
            self.calls += 1
        time.sleep(LATENCY)
        if url.endswith("entries:list"):
            return {}
        if method == "GET" and not url.endswith("/customJobs"):
            return dict(self.jobs[int(url.rsplit("/", 1)[1])])
        params: Mapping[str, Any] = more.get("params") or {}
        size, start = int(params.get("pageSize", 100)), int(params.get("pageToken") or 0)
        text = json.dumps({"customJobs": self.jobs[start : start + size]})
        page: dict[str, Any] = json.loads(text)
        return page | ({"nextPageToken": str(start + size)} if start + size < len(self.jobs) else {})


_stub: StubClient


def bench_backend(**_: Any) -> Any:
    """The factory of the backend ``bench`` for the registry."""
    from mlengine.backends.vertex.backend import VertexBackend

    return VertexBackend(project="bench", region="europe-west1", endpoint="http://127.0.0.1:1", client=_stub)  # type: ignore[arg-type]


def ours(count: int) -> list[Any]:
    global _stub  # noqa: PLW0603 the registry makes backends by import path
    from mlengine import backends
    from mlengine.core.job import JobHandle
    from mlengine.storage.client import Storage
    from mlengine.triggers.training_job import TrainingJobTrigger

    _stub = StubClient(count)
    backends.register("bench", f"{__name__}:bench_backend")
    storage = Storage()
    storage.client.create_bucket(f"bench-{os.getpid()}")
    found = []
    for number in range(count):
        job_dir = f"gs://bench-{os.getpid()}/m/j{number}"
        handle = JobHandle("bench", f"{PARENT}/customJobs/{number}", f"j{number}", 1, job_dir)
        found.append(TrainingJobTrigger(handle=handle.to_json(), gcp_conn_id=None, poll_interval_seconds=INTERVAL))
    return found


def providers(count: int) -> list[Any]:
    from airflow.providers.google.cloud.hooks.vertex_ai.custom_job import CustomJobAsyncHook
    from airflow.providers.google.cloud.triggers.vertex_ai import CustomJobTrigger
    from google.cloud.aiplatform_v1 import types

    class Client:
        async def get_custom_job(self, **_: Any) -> types.CustomJob:
            _provider_calls[0] += 1
            await asyncio.sleep(LATENCY)
            return types.CustomJob(name="n", state=types.JobState.JOB_STATE_RUNNING)

        @staticmethod
        def custom_job_path(*parts: str) -> str:
            return "/".join(parts)

    async def get_client(*_: Any, **__: Any) -> Client:
        return Client()

    setattr(CustomJobAsyncHook, "get_job_service_client", get_client)  # noqa: B010 mypy knows the hook
    return [
        CustomJobTrigger(project_id="p", location="l", custom_job_id=str(n), poll_interval=int(INTERVAL))
        for n in range(count)
    ]


_provider_calls = [0]


async def measure(triggers: list[Any], seconds: float, warm_up: float) -> Cost:
    """Start all waits at once, as a newly started triggerer does. The first seconds are not measured."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    runner = TriggerRunner()
    tasks = []
    for number, trigger in enumerate(triggers):
        runner.triggers[number] = {"name": f"t{number}", "events": 0, "is_watcher": False}  # type: ignore[typeddict-item]
        tasks.append(asyncio.create_task(runner.run_trigger(number, trigger)))
    await asyncio.sleep(2 * INTERVAL)
    until = time.monotonic() + START_SECONDS
    while _polled() < len(triggers) and time.monotonic() < until:  # a busy machine may need more time
        await asyncio.sleep(0.5)
    await asyncio.sleep(warm_up)
    calls, cpu, began = _calls(), time.process_time(), time.monotonic()
    lags = []
    while time.monotonic() - began < seconds:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - before - 0.01)
    elapsed = time.monotonic() - began
    broken = [task for task in tasks if task.done()]
    if broken:
        raise RuntimeError(f"{len(broken)} waits ended: {broken[0]}")
    lags.sort()
    cost = Cost(
        calls=(_calls() - calls) / (elapsed / INTERVAL),
        lag_99=lags[int(len(lags) * 0.99)],
        lag_worst=lags[-1],
        cpu=(time.process_time() - cpu) / elapsed * 60,
        memory=_memory(),
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return cost


def _polled() -> float:
    """The number of our waits that have been polled."""
    if "_stub" not in globals():
        return float("inf")
    from mlengine.jobs.polling import Poller

    pollers = Poller._pollers.get(asyncio.get_running_loop(), {}).values()
    return sum(watch.last is not None for poller in pollers for watch in poller._watches.values())


def _calls() -> int:
    return _provider_calls[0] + (_stub.calls if "_stub" in globals() else 0)


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _child(side: str, count: int, seconds: float, warm_up: float) -> int:
    logging.disable(logging.INFO)
    triggers = ours(count) if side == "ours" else providers(count)
    cost = asyncio.run(measure(triggers, seconds, warm_up))
    print("MEASURED " + json.dumps(cost.__dict__))
    sys.stdout.flush()
    os._exit(0)


def run(side: str, count: int, args: argparse.Namespace, env: Mapping[str, str]) -> Cost:
    """Measure one new process.

    :param side: ``baseline`` is ``ours`` with the code of another checkout.
    """
    plugins = (args.baseline if side == "baseline" else ROOT) / "plugins"
    child = ["--child", "ours" if side == "baseline" else side, str(count)]
    done = subprocess.run(
        # Run as a file, because running a module of this package would put this checkout's code first.
        [sys.executable, "-P", __file__, *child, f"--seconds={args.seconds}", f"--warm-up={args.warm_up}"],
        cwd=ROOT,
        env={**os.environ, **env, "PYTHONPATH": str(plugins)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        raise RuntimeError(f"{side} {count}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
    return Cost(**json.loads(lines[-1].removeprefix("MEASURED ")))


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(**{name: statistics.median(getattr(cost, name) for cost in costs) for name in Cost.__annotations__})


def main(argv: list[str]) -> int:
    """Exit code: 1 if a thousand of our waits exceed the budget for lag, or need more memory than the provider's."""
    parser = argparse.ArgumentParser(prog="benchmarks waiting", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="measured in each process")
    parser.add_argument(
        "--warm-up", type=float, default=0.0, help="seconds between the first polls and the measurement"
    )
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of waits")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each kind; medians are printed")
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="a checkout whose trigger is measured too")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "COUNT"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return _child(args.child[0], int(args.child[1]), args.seconds, args.warm_up)
    from mlengine.testing import gcs

    sides = ["ours", *(["baseline"] if args.baseline else []), "provider"]
    costs: dict[tuple[str, int], Cost] = {}
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    with gcs.running() as server:
        for count in args.counts:
            found: dict[str, list[Cost]] = {side: [] for side in sides}
            for _ in range(args.rounds):
                for side in sides:
                    found[side].append(run(side, count, args, server.env))
            costs |= {(side, count): _median(each) for side, each in found.items()}
    print(f"{'waits':>6} {'':<9} {'requests a tick':>16} {'lag p99':>9} {'worst':>9} {'CPU s/min':>10} {'MiB':>8}")
    for (side, count), cost in sorted(costs.items(), key=lambda pair: (pair[0][1], pair[0][0])):
        print(
            f"{count:>6} {side:<9} {cost.calls:>16.1f} {cost.lag_99 * 1000:>6.1f} ms {cost.lag_worst * 1000:>6.0f} ms "
            f"{cost.cpu:>10.1f} {cost.memory:>8.1f}"
        )
    each = {side: _each(costs, side, args.counts) for side in ("ours", "provider")}
    last = args.counts[-1]
    most, ours_most = costs["provider", last], costs["ours", last]
    if args.baseline:
        print(f"CPU of {last} waits: x {ours_most.cpu / costs['baseline', last].cpu:.2f} of the baseline's")
    print(
        f"memory of {last} waits: ours {ours_most.memory:.0f} MiB, the provider's {most.memory:.0f} MiB; "
        f"of one more: ours {each['ours']:.0f} KiB, "
        f"the provider's {each['provider']:.0f} KiB without the channel that each opens"
    )
    print(
        f"of {last} waits, the provider's take {most.calls / ours_most.calls:.0f} times the requests and "
        f"{most.cpu / ours_most.cpu:.1f} times the CPU"
    )
    return int(ours_most.lag_99 > LAG_BUDGET or ours_most.memory > most.memory)


def _each(costs: Mapping[tuple[str, int], Cost], side: str, counts: Sequence[int]) -> float:
    return (costs[side, counts[-1]].memory - costs[side, counts[0]].memory) / max(1, counts[-1] - counts[0]) * 1024


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
