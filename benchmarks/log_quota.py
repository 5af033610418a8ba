"""Cloud Logging's quota: log reads per minute, and seconds until the end of a job is known, with many readers.

The service is the emulator with the quota of 60 reads per minute enabled. There are 1 or 1,000 waiting jobs with six
sets of options, two triggerers and three followers (``mlengine jobs logs --follow``), each in its own process on the
same machine. All jobs write a line every 20 s. Then jobs end: some one by one, all remaining ones at once, and one
while other clients use up the quota. ``--baseline DIR`` also runs the readers with the code of another checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COUNTS = (1, 1000)
SECONDS = 120.0
WARM_UP_SECONDS = 20.0
QUOTA, BUDGET = 60, 30
LINE_SECONDS = 20.0
END_BUDGET = 15.0
TRIGGERERS, FOLLOWERS, ENDED_ONE_BY_ONE = 2, 3, 6
END_PAUSE_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"machine_type": "n1-standard-8"},
    {"spot": True},
    {"labels": {"team": "vision"}},
    {"boot_disk_gb": 200},
    {"env": {"A": "b"}},
)
CLI = "import sys; from mlengine.cli import main; sys.exit(main())"


@dataclass
class Calls:
    """The calls that the emulator received, by method: the time, and whether the call was refused."""

    made: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)

    def a_minute(self, method: str, begin: float, seconds: float) -> float:
        return sum(begin <= moment < begin + seconds for moment, _ in self.made.get(method, ())) * 60.0 / seconds

    def refused(self, method: str, begin: float, seconds: float) -> float:
        found = self.made.get(method, ())
        return sum(refused and begin <= moment < begin + seconds for moment, refused in found) * 60.0 / seconds

    def most_in_a_minute(self, method: str) -> int:
        window: deque[float] = deque()
        most = 0
        for moment, _ in self.made.get(method, ()):
            window.append(moment)
            while window[0] <= moment - 60.0:
                window.popleft()
            most = max(most, len(window))
        return most


@dataclass(frozen=True)
class Result:
    reads: float
    most_reads: int
    refused: float
    states: float
    one_by_one: Sequence[float]
    at_once: Sequence[float]
    throttled: float


def _child(path: str) -> None:
    """Run a triggerer that prints when it learns of the end of each job."""
    from mlengine.triggers.training_job import TrainingJobTrigger

    async def wait(handle: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        trigger = TrainingJobTrigger(
            handle=dict(handle), gcp_conn_id=None, backend_options=dict(options), poll_interval_seconds=5.0
        )
        async for _ in trigger.run():
            print(f"ENDED {handle['name']} {time.time()}", flush=True)

    async def main() -> None:
        waits = json.loads(Path(path).read_text())
        await asyncio.gather(*(wait(handle, options) for handle, options in waits))

    asyncio.run(main())


class Readers:
    """The processes that wait for jobs, and the times at which they learn of the jobs' ends."""

    def __init__(self, folder: Path, handles: Sequence[Any], env: Mapping[str, str]) -> None:
        self.ended: dict[str, float] = {}
        self.processes: list[subprocess.Popen[str]] = []
        self._env = dict(env)
        for number in range(TRIGGERERS):
            mine = [
                (handle.to_json(), OPTIONS[at // TRIGGERERS % len(OPTIONS)])
                for at, handle in enumerate(handles)
                if at % TRIGGERERS == number or len(handles) == 1
            ]
            file = folder / f"waits-{number}.json"
            file.write_text(json.dumps(mine))
            process = self._start([sys.executable, "-P", str(Path(__file__)), "--child", str(file)], subprocess.PIPE)
            threading.Thread(target=self._collect, args=(process,), daemon=True).start()
        for number in range(FOLLOWERS):
            name = handles[-1 - number % len(handles)].name
            command = [sys.executable, "-c", CLI, "jobs", "logs", "--follow", "--backend", "vertex", name]
            self._start(command, subprocess.DEVNULL)

    def _start(self, command: Sequence[str], stdout: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, env=self._env, stdout=stdout, stderr=subprocess.DEVNULL, text=True)
        self.processes.append(process)
        return process

    def _collect(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ENDED "):
                _, name, moment = line.split()
                self.ended[name] = max(float(moment), self.ended.get(name, 0.0))

    def check(self) -> None:
        """Check that all readers are running.

        :raises RuntimeError: a reader has exited.
        """
        if any(process.poll() is not None for process in self.processes):
            raise RuntimeError(f"readers ended: {[process.args for process in self.processes if process.poll()]}")

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _service(stack: ExitStack, folder: Path) -> tuple[Any, Any, Calls]:
    """Start the emulator. Returns it, its backend, and its calls."""
    from mlengine.backends import LogLine, LogPage
    from mlengine.testing.backend import MemoryBackend
    from mlengine.testing.emulator import running

    class Talking(MemoryBackend):
        """A backend in which every job writes a line every 20 s."""

        def logs(self, handle: Any, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:  # noqa: ARG002
            at = int(cursor.get("at", 0))
            written = int((time.time() - began) / LINE_SECONDS)
            lines = tuple(LogLine("chief-0", f"step {number}") for number in range(at, written))
            return LogPage(lines, {"at": max(at, written)})

    began = time.time()
    backend, calls = Talking(), Calls()
    service = stack.enter_context(running(folder / "emulator", backend=backend))
    match = service.server.script.match

    def recorded(method: str, *project: str) -> Any:
        faults = match(method, *project)
        refused = any(fault.action == "quota" for fault in faults)
        calls.made.setdefault(method, []).append((time.time(), refused))
        return faults

    setattr(service.server.script, "match", recorded)  # noqa: B010 it is a method
    return service, backend, calls


def _submit(service: Any, backend: Any, count: int) -> list[Any]:
    from mlengine.backends import Submission
    from mlengine.backends.vertex.backend import VertexBackend
    from mlengine.core.job import JobHandle, JobState
    from mlengine.core.spec import Pool, Role, TrainingSpec

    vertex = VertexBackend(**service.settings)
    parent = f"projects/{service.project}/locations/{service.region}"
    handles = []
    for number in range(count):
        job_dir = f"gs://{service.bucket}/m/j{number}"
        spec = TrainingSpec("trainer.task", pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),))
        submission = Submission(f"{number:040d}", f"j{number}", 1, job_dir, spec)
        made = vertex._open().create(parent, vertex.prepare(submission).body)
        assert made is not None
        handles.append(JobHandle("vertex", made["name"], f"j{number}", 1, job_dir))
    until = time.monotonic() + PATIENCE_SECONDS
    while len(backend.jobs) < count:
        if time.monotonic() > until:
            raise RuntimeError("the emulator did not start all jobs")
        time.sleep(0.2)
    for job in backend.jobs:
        job.state = JobState.RUNNING
    return handles


def _known(readers: Readers, backend: Any, service: Any, handles: Sequence[Any]) -> list[float]:
    """End jobs. Returns the seconds until the triggerer of each job has noticed."""
    from mlengine.core.job import JobState

    names = {handle.name.rsplit("/", 1)[1]: handle.name for handle in handles}
    records = [record for record in service.server.engine.store.all() if record.id in names]
    began = time.time()
    for record in records:
        backend.end(record.handle.name, JobState.SUCCEEDED)
    until = time.monotonic() + PATIENCE_SECONDS
    while any(handle.name not in readers.ended for handle in handles):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return [readers.ended.get(handle.name, float("inf")) - began for handle in handles]


def measure(count: int, seconds: float, plugins: Path) -> Result:
    """Measure one run with readers that use the code in ``plugins``."""
    from mlengine.storage.client import Storage
    from mlengine.testing import gcs

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(gcs.running())
        stack.enter_context(_environment(server.env))
        service, backend, calls = _service(stack, folder)
        service.bucket = f"bench-{os.getpid()}-{count}-{random.randrange(10**6)}"
        Storage().client.create_bucket(service.bucket)
        handles = _submit(service, backend, count)
        env = {
            **os.environ,
            **service.env,
            "PYTHONPATH": str(plugins),
            "AIRFLOW__MLENGINE__LOCAL_STATE_DIR": str(folder / "state"),
            "AIRFLOW__MLENGINE__VERTEX_LOG_READS_PER_MINUTE": str(BUDGET),
        }
        service.script("ListLogEntries", "quota", per_minute=QUOTA)
        readers = Readers(folder, handles, env)
        stack.callback(readers.stop)
        time.sleep(WARM_UP_SECONDS)
        begin = time.time()
        time.sleep(seconds)
        readers.check()
        reads, refused, states = (
            calls.a_minute("ListLogEntries", begin, seconds),
            calls.refused("ListLogEntries", begin, seconds),
            calls.a_minute("ListCustomJobs", begin, seconds) + calls.a_minute("GetCustomJob", begin, seconds),
        )
        few = handles[: ENDED_ONE_BY_ONE if count > ENDED_ONE_BY_ONE else 0]
        one_by_one = []
        for handle in few:
            one_by_one += _known(readers, backend, service, [handle])
            time.sleep(END_PAUSE_SECONDS)
        last = handles[len(few)]
        rest = handles[len(few) + 1 :]
        most = calls.most_in_a_minute("ListLogEntries")
        at_once = _known(readers, backend, service, rest) if rest else []
        most = max(most, calls.most_in_a_minute("ListLogEntries"))
        if rest or count == 1:
            _use_up(service)
            time.sleep(10.0)  # until all readers have been refused
        throttled = _known(readers, backend, service, [last])[0]
        return Result(reads, most, refused, states, one_by_one, at_once, throttled)


def _use_up(service: Any) -> None:
    """Use up the quota, as other clients would, so that all log reads are refused from now on."""
    service.server.script.clear()
    service.script("ListLogEntries", "quota", per_minute=1)
    service.server.script.match("ListLogEntries", service.project)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} / {max(values):.1f}" if values else "-"


def main(argv: list[str]) -> int:
    """Exit code: 1 if reads exceed the budget, or an end is known later than :data:`END_BUDGET` seconds."""
    parser = argparse.ArgumentParser(prog="benchmarks log_quota", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="measured in each run, before jobs end")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of jobs")
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="a checkout whose readers are measured too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        _child(args.child)
        return 0
    sides = {"this": ROOT / "plugins", **({"baseline": args.baseline / "plugins"} if args.baseline else {})}
    print(
        f"{'jobs':>5} {'readers':<9} {'log reads/min':>14} {'most in a min':>14} {'refused/min':>12} "
        f"{'state reads/min':>16} {'end known s (median / worst)':>30} {'all at once s':>15} {'quota used up s':>16}"
    )
    worst = 0
    for count in args.counts:
        results = {side: measure(count, args.seconds, plugins) for side, plugins in sides.items()}
        for side, one in results.items():
            print(
                f"{count:>5} {side:<9} {one.reads:>14.1f} {one.most_reads:>14} {one.refused:>12.1f} "
                f"{one.states:>16.1f} {_seconds(one.one_by_one):>30} {_seconds(one.at_once):>15} "
                f"{one.throttled:>16.1f}",
                flush=True,
            )
        ours = results["this"]
        late = max([*ours.one_by_one, ours.throttled], default=0.0) > END_BUDGET
        worst = max(worst, int(ours.most_reads > BUDGET or ours.refused > 0 or late))
        if "baseline" in results and ours.reads:
            other = results["baseline"]
            print(f"      the baseline reads {other.reads / ours.reads:.1f} times as often")
    return worst


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
