"""Speed of the example trainer compared with a minimal loop and with Keras, and of a cluster compared with one process.

``python -m benchmarks training [--rounds N]``. Every figure is a ratio to a baseline in the same run. Loops of one
process are started together and alternate after some steps; a cluster and the single process alternate as complete
runs. CPU milliseconds per step are printed too: on a machine with other work they are more reliable than wall time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts.trainer_env import trainer_python

ROOT = Path(__file__).resolve().parent.parent
LOOPS = {
    "seed": "the seed's feed_dict loop",
    "fit": "keras fit, arrays",
    "fit10": "keras fit, 10 steps an execution",
    "fitdata": "keras fit, tf.data",
    "whole": "the trainer without lanes",
    "ours": "the trainer",
    "float32": "the trainer in float32",
    "sgemm": "matrix products of as many GFLOP",
}
THE_CLUSTER = "… and small tensors travel together (the trainer)"
# variant of bench.replica, workers, parameter servers
CLUSTERS = {
    "1 chief + 2 workers + 1 ps, plain": ("plain", 2, 1),
    "… with threads limited": ("pull-and-push-whole", 2, 1),
    "… and factors pushed": ("pull-whole", 2, 1),
    "… and the dense layer on the ps": ("one-step", 2, 1),
    "… and two steps under way each": ("one-piece", 2, 1),
    "… and the dense layer in pieces": ("each-alone", 2, 1),
    THE_CLUSTER: ("ours", 2, 1),
    "the trainer, 2 ps": ("ours", 2, 2),
    "the trainer, threads that do not spin": ("no-spinning", 2, 1),
    "the trainer, 1 worker, 1 ps": ("ours", 1, 1),
    "the trainer, 4 workers, 1 ps": ("ours", 4, 1),
}
# Log lines of a replica until its first step, by milestone.
MILESTONES = {
    "chief": {"dataset read": r" dataset ", "weights given": "first weights", "first step": r"step \d+ of \d+, loss"},
    "worker": {"dataset read": r" dataset ", "joined": "training from step", "first step": r"step \d+ of \d+, loss"},
    "ps": {"listens": "parameter server at"},
}
LOOP_BUDGET = 1.0  # the trainer over the best of the seed's loop and keras fit
CLUSTER_BUDGET = 0.85  # the cluster over one process, in steps per second
START_SECONDS = 300.0
ENDLESS = ("--max_steps", "1000000", "--checkpoint", "1000000")


@dataclass(frozen=True)
class Rate:
    """The speed of a training.

    :param wall: steps per second.
    :param cpu: CPU milliseconds of all processes per step.
    :param ps: the part of ``cpu`` in the parameter servers.
    """

    wall: float
    cpu: float
    ps: float = 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 if a ratio is below its budget."""
    parser = argparse.ArgumentParser("training", description="speed of the example trainer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="steps a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=["loops", "clusters", "start"])
    parser.add_argument("--clusters", default="", help="only clusters whose description has this in it")
    parser.add_argument("--dataset", type=Path, help="a dataset version; by default, one is created from MNIST")
    args = parser.parse_args(argv)
    python = str(trainer_python())
    print_machine(python)
    failed = False
    with tempfile.TemporaryDirectory(prefix="bench-training-") as scratch:
        data = str(args.dataset or make_dataset(python, Path(scratch)))
        if args.only in (None, "loops"):
            failed |= _loops(python, data, args.threads, args.rounds, args.steps)
        if args.only in (None, "clusters"):
            chosen = {words: shape for words, shape in CLUSTERS.items() if args.clusters in words}
            failed |= _clusters(python, data, max(1, args.rounds // 2), 2 * args.steps, chosen)
        if args.only in (None, "start"):
            _start(python, data)
    return int(failed)


def print_machine(python: str) -> None:
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    script = "import tensorflow, keras, numpy; print(tensorflow.__version__, keras.__version__, numpy.__version__)"
    versions = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    print(f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, ", end="")
    print("TensorFlow {}, Keras {}, NumPy {}".format(*versions))


def _loops(python: str, data: str, threads: int, rounds: int, steps: int) -> bool:
    print(f"\none process, {threads} threads, batch 100; turns of {steps} steps, {rounds} rounds, medians")
    processes = {
        name: subprocess.Popen(
            [python, "-m", "bench.loops", name, str(threads), data],
            env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for name in LOOPS
    }  # fmt: skip
    try:
        for process in processes.values():
            _answer(process)
        rates: dict[str, list[Rate]] = defaultdict(list)
        for _ in range(rounds):
            for name, process in processes.items():
                wall, cpu = (float(value) for value in _ask(process, steps).split())
                rates[name].append(Rate(steps / wall, 1000 * cpu / steps))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    for name, words in LOOPS.items():
        one = rates[name]
        print(
            f"  {words:34} {_wall(one):5.1f} steps/s {_wall(one) * 100:6.0f} examples/s {_cpu(one):6.1f} CPU-ms/step"
            f"   the seed's x {_against(one, rates['seed']):.2f} by the clock, "
            f"x {_cpu(rates['seed']) / _cpu(one):.2f} by CPU"
        )
    roof = _against(rates["ours"], rates["sgemm"])
    cpu = _cpu(rates["sgemm"]) / _cpu(rates["ours"])
    print(f"  the trainer against matrix products: x {roof:.2f} by the clock, x {cpu:.2f} by CPU")
    best = min(_against(rates["ours"], rates[name]) for name in ("seed", "fit", "fit10", "fitdata"))
    print(f"  the trainer against the best of the others: x {best:.2f} (wanted: {LOOP_BUDGET})")
    return best < LOOP_BUDGET


def _clusters(python: str, data: str, rounds: int, steps: int, chosen: dict[str, tuple[str, int, int]]) -> bool:
    print(f"\nclusters on the same cores; {rounds} rounds, each with a run of one process; medians of the ratios")
    pairs: dict[str, list[tuple[Rate, Rate]]] = defaultdict(list)
    for _ in range(rounds):
        for words, shape in chosen.items():
            pair = _cluster(python, data, ("ours", 0, 0), steps), _cluster(python, data, shape, steps)
            pairs[words].append(pair)
            print(f"    {words}: {pair[1].wall:.1f} vs. {pair[0].wall:.1f} steps/s", file=sys.stderr, flush=True)
    single = [one for found in pairs.values() for one, _ in found]
    print(f"  {'one process':64} {_wall(single):5.1f} steps/s {_cpu(single):6.1f} CPU-ms/step")
    ratios = {}
    for words, found in pairs.items():
        ones, several = [one for one, _ in found], [cluster for _, cluster in found]
        ratios[words] = _against(several, ones)
        print(
            f"  {words:64} {_wall(several):5.1f} steps/s {_cpu(several):6.1f} CPU-ms/step"
            f"   x {ratios[words]:.2f} by the clock, x {_cpu(ones) / _cpu(several):.2f} by CPU;"
            f" {median(rate.ps for rate in several):.1f} of the CPU-ms on parameter servers"
        )
    ours = ratios.get(THE_CLUSTER, CLUSTER_BUDGET)
    print(f"  the cluster against one process, by the clock: x {ours:.2f} (wanted: {CLUSTER_BUDGET})")
    return ours < CLUSTER_BUDGET


def _start(python: str, data: str) -> None:
    print("\nfrom the start of four processes at once, seconds; memory")
    with Replicas(python, data, ("ours", 2, 1)) as cluster:
        cluster.until(r"step (\d+) of \d+, loss", 60)
        for name, process in cluster.processes.items():
            reached = cluster.milestones(name, MILESTONES[name.partition("/")[0]])
            memory = _status(process.pid, "VmHWM") / 1024, _proportional(process.pid) / 1024
            print(f"  {name:10} " + ", ".join(f"{what} {when:.1f} s" for what, when in reached.items()))
            print("             peak memory {:.0f} MiB, proportional {:.0f} MiB".format(*memory))
    script = "import time; t = time.monotonic(); import tensorflow; print(time.monotonic() - t)"
    elapsed = subprocess.run(
        [python, "-c", script], capture_output=True, text=True, check=True, env=_environment()
    ).stdout
    print(f"  of which importing TensorFlow, alone on the machine: {float(elapsed):.1f} s")


def _cluster(python: str, data: str, shape: tuple[str, int, int], steps: int) -> Rate:
    """The rate of a job between two of its progress lines, without its start and end."""
    with Replicas(python, data, shape) as cluster:
        first = cluster.until(r"step (\d+) of \d+, loss", 12)
        began, cpu, ps = time.monotonic(), cluster.cpu(), cluster.cpu("ps")
        last = cluster.until(r"step (\d+) of \d+, loss", first + steps)
        wall, count = time.monotonic() - began, last - first
        return Rate(count / wall, 1000 * (cluster.cpu() - cpu) / count, 1000 * (cluster.cpu("ps") - ps) / count)


class Replicas:
    """The processes of one job, killed at the end.

    :ivar job: the job's directory, which is deleted afterwards.
    """

    def __init__(self, python: str, data: str, shape: tuple[str, int, int], arguments: Sequence[str] = ENDLESS) -> None:
        variant, workers, servers = shape
        self._folder = Path(tempfile.mkdtemp(prefix="bench-cluster-"))
        self.job = self._folder / "job"
        counts = {"chief": 1, "worker": workers, "ps": servers}
        nodes = {role: [f"127.0.0.1:{_free_port()}" for _ in range(count)] for role, count in counts.items() if count}
        command = [python, "-m", "bench.replica", variant, "--dataset", data, "--job-dir", str(self.job)]
        command += arguments
        self._began_at = time.time()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for role, addresses in nodes.items():
            for index in range(len(addresses)):
                config = {"cluster": nodes, "task": {"type": role, "index": index}}
                extra = {"TF_CONFIG": json.dumps(config)} if servers else {}
                with (self._folder / f"{role}{index}.log").open("wb") as sink:
                    self.processes[f"{role}/{index}"] = subprocess.Popen(
                        command, env=_environment() | extra, stdout=sink, stderr=sink
                    )

    def until(self, pattern: str, least: int) -> int:
        """Wait for the chief to log a number of at least ``least``, and return it."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            log = (self._folder / "chief0.log").read_text(errors="replace")
            if (found := re.findall(pattern, log)) and int(found[-1]) >= least:
                return int(found[-1])
            time.sleep(0.02)
        raise TimeoutError(f"the chief did not reach step {least}:\n{log[-2000:]}")

    def wait(self, seconds: float) -> None:
        """Wait for all replicas.

        :raises RuntimeError: a replica exited with a code other than 0.
        """
        for name, process in self.processes.items():
            if code := process.wait(seconds):
                raise RuntimeError(f"{name} ended with code {code}")

    def milestones(self, name: str, patterns: dict[str, str]) -> dict[str, float]:
        """The seconds from the start of the processes to the first match of each pattern in a replica's log."""
        reached = {}
        for what, pattern in patterns.items():
            for line in (self._folder / f"{name.replace('/', '')}.log").read_text(errors="replace").splitlines():
                if re.search(pattern, line) and (stamp := re.match(r"[\d-]+ [\d:]+,\d+", line)):
                    said = datetime.datetime.strptime(stamp[0], "%Y-%m-%d %H:%M:%S,%f").astimezone()
                    reached[what] = said.timestamp() - self._began_at
                    break
        return reached

    def cpu(self, role: str = "") -> float:
        """The CPU seconds so far of all processes with this role; of all processes by default."""
        ticks = 0
        for process in [process for name, process in self.processes.items() if name.startswith(role)]:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self._folder)


def make_dataset(python: str, scratch: Path, digits: int = 60_000) -> Path:
    """Create a dataset version with ``digits`` training digits and all 10,000 held-out ones."""
    from scripts import mnist

    target = scratch / "mnist"
    script = (
        "import sys, pathlib as p; from tests import datasets; datasets.make(*map(p.Path, sys.argv[1:3]), train={})"
    )
    command = [python, "-c", script.format(digits), str(target), str(mnist.files())]
    subprocess.run(command, env=_environment(), cwd=ROOT / "trainer", check=True)  # so that ``tests`` is the trainer's
    return target


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("TF_CONFIG", "PYTHONDONTWRITEBYTECODE")}
    return {**kept, "PYTHONPATH": str(ROOT / "trainer"), "TF_CPP_MIN_LOG_LEVEL": "2"}


def _ask(process: subprocess.Popen[str], steps: int) -> str:
    if process.stdin is None:
        raise ValueError("the loop was started without a pipe")
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> str:
    """The next line that is a result. Keras prints other lines too."""
    while process.stdout is not None and (line := process.stdout.readline()):
        if re.match(r"ready|[\d.]+ [\d.]+$", line):
            return line
    raise RuntimeError(f"a loop ended with code {process.wait()}")


def _wall(rates: Sequence[Rate]) -> float:
    return median(rate.wall for rate in rates)


def _cpu(rates: Sequence[Rate]) -> float:
    return median(rate.cpu for rate in rates)


def _against(mine: Sequence[Rate], others: Sequence[Rate]) -> float:
    """The median of the ratios of each round, because other load affects both sides of a round."""
    return median(one.wall / other.wall for one, other in zip(mine, others, strict=True))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _status(pid: int, field: str) -> int:
    return next((int(line.split()[1]) for line in _lines(f"/proc/{pid}/status") if line.startswith(field)), 0)


def _proportional(pid: int) -> int:
    """The proportional memory (PSS) of a process, whose sum over all replicas is the memory that they use together."""
    return next((int(line.split()[1]) for line in _lines(f"/proc/{pid}/smaps_rollup") if line.startswith("Pss:")), 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
