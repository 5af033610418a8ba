"""Runs ``mnist_retraining`` in rounds on a Ray cluster of three nodes; each round kills something at a random moment.

``python -m tests.support.ray_rounds --rounds 20``, as root. Every round must end with a champion. During a round no
replica may run twice, and afterwards no process or actor may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from scripts import mnist
from scripts import stack as stacks
from scripts.stack import ROOT, Stack
from uv import find_uv_bin

from mlengine.champions.history import Champion
from mlengine.core import layout
from mlengine.core.layout import JobDir
from mlengine.runtime.env_allowlist import MARK
from mlengine.runtime.processes import Process
from mlengine.runtime.uv_env import uv_environment
from mlengine.storage.client import Storage
from mlengine.testing.airflow_api import DagRun
from tests.support import ray_network
from tests.support.local_jobs import until
from tests.support.ray_network import Node, RayNetwork, command_of

log = logging.getLogger(__name__)

MONTH = "2026-06-01"
DAG = "mnist_retraining"
RUN_SECONDS = 900.0
CPUS = (1, 2, 2)
_REPLICAS = 3
_LEFT_SECONDS = 60.0
_POLL_SECONDS = 3.0  # between two polls of a run
_TASK = re.compile(r"airflow worker -- [0-9a-f-]{36}")  # the title of a process that runs a task's code
_SETTINGS = {
    "core.dagbag_import_timeout": "150",
    "dag_processor.dag_file_processor_timeout": "180",
    "dag_processor.min_file_process_interval": "600",
    "scheduler.task_instance_heartbeat_timeout": "60",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "5",
    "scheduler.trigger_timeout_check_interval": "3",
    "triggerer.job_heartbeat_sec": "1",
    "triggerer.triggerer_health_check_threshold": "10",
}


@dataclass
class Round:
    """One run and what was observed of it.

    :param twice: replicas for which two processes ran at the same time.
    :param jobs: the largest number of jobs that had a process at the same time.
    :param attempts: the names of the job's attempts.
    :param running: how often the log of the wait reports that all replicas run.
    :param left: processes and actors that remained at the end.
    """

    kind: str
    run_id: str = ""
    events: list[str] = field(default_factory=list)
    seconds: float = 0.0
    state: str | None = None
    champion: bool = False
    jobs: int = 0
    twice: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    running: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether the round ended as required."""
        return self.state == "success" and self.champion and not self.twice and not self.left and self.jobs <= 1


@dataclass
class Rounds:
    """A stack and a cluster on which rounds run.

    :param steps: the number of training steps of each run.
    """

    stack: Stack
    network: RayNetwork
    chance: random.Random
    steps: int = 400
    count: int = 0

    def play(self, kind: str, *, training: bool = False) -> Round:
        """Run one round.

        :param kind: one of :data:`KILLS`, or ``nothing``.
        :param training: kill when all replicas run, instead of at a random moment after the run was triggered.
        """
        self.count += 1
        result = Round(kind)
        api = self.stack.airflow.api
        conf = {
            "dataset_version": MONTH, "max_steps": self.steps, "backend": "ray", "workers": 1, "parameter_servers": 1,
            "seed": self.count, "force_retrain": True, "min_accuracy": 0.5, "min_class_accuracy": 0, "tolerance": 1,
        }  # fmt: skip
        began = time.monotonic()
        with self._watched(result):
            run = api.trigger(DAG, conf)
            result.run_id = run.run_id
            if kind in KILLS:
                if training:
                    until(lambda: self._all_run() or api.run(DAG, run.run_id).done, "all replicas run", 300, pause=1.0)
                time.sleep(self.chance.uniform(0.0, 5.0 if training else 30.0))
                KILLS[kind](self, result)
            ended = api.wait(run, RUN_SECONDS, check=self.stack.airflow.check, every=_POLL_SECONDS)
            result.state, result.seconds = ended.state, round(time.monotonic() - began, 1)
            if ended.state != "success":
                self._log_failed_tasks(run)
            self._record_result(result, run)
            with contextlib.suppress(AssertionError):
                until(lambda: not self._left(), "nothing is left", _LEFT_SECONDS, pause=0.3)
        result.left = self._left()
        return result

    def note(self, result: Round, text: str) -> None:
        """Add an event to a round."""
        result.events.append(text)
        log.info("%s: %s", result.kind, text)

    def _log_failed_tasks(self, run: DagRun) -> None:
        api = self.stack.airflow.api
        for task in api.tasks(DAG, run.run_id):
            if task.state in ("success", "skipped"):
                continue
            log.info("%s is %s after %s tries", task.task_id, task.state, task.try_number)
            for number in range(1, task.try_number + 1):
                log.info("log of try %s:\n%s", number, "\n".join(api.log(DAG, run.run_id, task.task_id, number)))

    def _record_result(self, result: Round, run: DagRun) -> None:
        api, storage = self.stack.airflow.api, self.stack.storage
        prepared = api.xcoms(DAG, run.run_id, "retrain.prepare").get("return_value") or {}
        if "job_dir" not in prepared:
            return
        job_dir = JobDir(str(prepared["job_dir"]))
        with contextlib.suppress(Exception):
            champion = Champion.from_bytes(storage.read(layout.champion(self.stack.bucket, "mnist")))
            result.champion = champion.job_dir == job_dir.uri
        lines = api.log(DAG, run.run_id, "retrain.wait")
        result.running = sum(f"RUNNING: {_REPLICAS} of {_REPLICAS} replicas running" in line for line in lines)
        names = [stat.uri.removeprefix(f"{job_dir.uri}/") for stat in storage.ls(f"{job_dir.uri}/")]
        result.attempts = sorted({name.split("/")[1] for name in names if name.startswith("ray/")})
        for name in names:
            if name.endswith("/launcher.log"):
                text = storage.read(f"{job_dir.uri}/{name}").decode()
                result.restarts += [line for line in text.splitlines() if "restart" in line]

    def _all_run(self) -> bool:
        return len(trainers(self.network)) == _REPLICAS

    def _left(self) -> list[str]:
        return [line for line in self.network.left() if not line.startswith("/")]

    @contextmanager
    def _watched(self, result: Round) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(result, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, result: Round, over: threading.Event) -> None:
        """Check for replicas that run twice, until the round is over."""
        while not over.wait(1.0):
            found = trainers(self.network)
            result.jobs = max(result.jobs, len({job for job, _, _ in found}))
            for name, count in Counter(replica for _, replica, _ in found).items():
                if count > 1 and (again := _twice(self.network, name)):
                    result.twice.append(f"{name}: {again}")


def trainers(network: RayNetwork) -> list[tuple[str, str, Process]]:
    """The job, replica and process of each running trainer."""
    found = []
    for process in network.processes("-m trainer.task"):
        if "guard.py" in command_of(process.pid):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError):
            raw = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
            env = dict(line.split("=", 1) for line in raw if "=" in line)
            task = json.loads(env["TF_CONFIG"])["task"]
            found.append((Path(env[MARK]).name, f"{task['type']}-{task['index']}", process))
    return found


def _twice(network: RayNetwork, name: str) -> list[str]:
    """The processes of a replica if there still are two; one may have ended between the two checks."""
    found = [(job, process) for job, replica, process in trainers(network) if replica == name]
    alive = [f"{job} {process.pid}" for job, process in found if process.alive()]
    return alive if len(alive) > 1 else []


def _kill_replica(rounds: Rounds, result: Round) -> None:
    until(lambda: trainers(rounds.network), "a replica runs", 300, pause=0.3)
    time.sleep(rounds.chance.uniform(0.0, 8.0))
    found = trainers(rounds.network)
    if found:
        _, name, process = rounds.chance.choice(found)
        rounds.note(result, f"SIGKILL to {name}")
        process.signal(signal.SIGKILL)


def _kill_node(rounds: Rounds, result: Round) -> None:
    _restart(rounds, result, rounds.chance.choice(rounds.network.nodes[1:]))


def _kill_head(rounds: Rounds, result: Round) -> None:
    _restart(rounds, result, rounds.network.head)


def _restart(rounds: Rounds, result: Round, node: Node) -> None:
    running = [name for _, name, process in trainers(rounds.network) if process in node.processes()]
    rounds.note(result, f"power failure of {node.name}, with {running or 'no replica'}")
    node.kill()
    pause = rounds.chance.uniform(1.0, 20.0)
    time.sleep(pause)
    node.start()
    rounds.note(result, f"{node.name} is back after {pause:.0f} s")


def _cut_node(rounds: Rounds, result: Round) -> None:
    node = rounds.chance.choice(rounds.network.nodes[1:])
    pause = rounds.chance.uniform(5.0, 60.0)
    running = [name for _, name, process in trainers(rounds.network) if process in node.processes()]
    rounds.note(result, f"no network on {node.name} for {pause:.0f} s, with {running or 'no replica'}")
    node.cut()
    time.sleep(pause)
    node.reconnect()


def _kill_task(rounds: Rounds, result: Round) -> None:
    """Kill the process of a running task, or of the next one if none is running."""
    task = until(lambda: _task(rounds.stack), "a task runs", 300)
    rounds.note(result, f"SIGKILL to the process of a task: {_title(task)}")
    with contextlib.suppress(psutil.Error):
        task.kill()


def _kill_triggerer(rounds: Rounds, result: Round) -> None:
    rounds.note(result, "SIGKILL to the triggerer")
    rounds.stack.airflow.stop_component("triggerer", kill=True)
    time.sleep(rounds.chance.uniform(0.0, 5.0))
    rounds.stack.airflow.start_component("triggerer")


def _task(stack: Stack) -> psutil.Process | None:
    """A process that runs a task's code: a child process of one of the scheduler's workers."""
    scheduler = psutil.Process(stack.airflow.processes["scheduler"].pid)
    with contextlib.suppress(psutil.Error):
        for child in scheduler.children(recursive=True):
            if _TASK.match(_title(child)):
                return child
    return None


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


KILLS: Mapping[str, Callable[[Rounds, Round], None]] = {
    "replica": _kill_replica,
    "node": _kill_node,
    "head": _kill_head,
    "task": _kill_task,
    "triggerer": _kill_triggerer,
    "network": _cut_node,
}


def _fill_cache(folder: Path, env: Mapping[str, str]) -> None:
    """Install the trainer once to fill uv's cache: the nodes cannot reach a package index."""
    own = {**os.environ, **env}
    uv, trainer = find_uv_bin(), ROOT / "trainer"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], env=own, check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    subprocess.run(
        [
            *install,
            "--constraint",
            str(trainer / "constraints.txt"),
            "-r",
            str(trainer / "pyproject.toml"),
            "--extra",
            "cpu",
        ],
        env=uv_environment(own),
        check=True,
    )
    shutil.rmtree(folder)


def _project(folder: Path) -> Path:
    """A folder with this DAG and its trainer. Airflow parses no other DAGs."""
    (folder / "dags").mkdir(parents=True)
    for name in (f"{DAG}.py", "mnist_pipeline.py"):
        shutil.copy2(ROOT / "dags" / name, folder / "dags")
    shutil.copytree(ROOT / "dags" / "jobs", folder / "dags" / "jobs")
    shutil.copytree(ROOT / "trainer", folder / "trainer")
    return folder


def _register(storage: Storage, bucket: str, *, versions: object) -> list[str]:
    """Register a tenth of the digits, because these tests are about the pipeline rather than the model."""
    del versions
    mnist.register(storage, bucket, mnist.files(), MONTH, train=6_000, heldout=1_000)
    return [MONTH]


@contextmanager
def running(data: Path, seed: int | None = None, steps: int = 400) -> Iterator[Rounds]:
    """A stack and a cluster. At the end, nothing of either is left."""
    before = dict(os.environ)
    with ray_network.network() as network:
        env = {
            "AIRFLOW__MLENGINE__RAY_ADDRESS": network.address,
            "AIRFLOW__MLENGINE__RAY_RESOURCES": json.dumps({"CPU": 1}),
            "AIRFLOW__MLENGINE__RAY_PLACEMENT": "SPREAD",
            "AIRFLOW__MLENGINE__RAY_TERMINATION_GRACE_SECONDS": "5",
            "AIRFLOW__MLENGINE__RAY_LINGER_SECONDS": "5",
            "AIRFLOW__MLENGINE__POLL_INTERVAL_SECONDS": "1",
        }
        try:
            project = _project(data / "project")
            with stacks.running(
                data, load=_register, dags=project / "dags", env=env, settings=_SETTINGS, gcs_host=network.host
            ) as stack:
                _fill_cache(data / "filled", stack.env)
                network.start({**stack.server.env, "UV_CACHE_DIR": stack.env["UV_CACHE_DIR"]}, CPUS)
                stack.airflow.api.wait_for_dag(DAG)
                yield Rounds(stack, network, random.Random(seed), steps)
        finally:
            os.environ.clear()
            os.environ.update(before)


def main() -> int:
    """Run rounds, and print the outcome of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", default=list(KILLS), choices=[*KILLS, "nothing"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(f"seed {options.seed}", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), options.seed, options.steps) as rounds:
        print(json.dumps(asdict(rounds.play("nothing"))), flush=True)
        for number in range(options.rounds):
            again, at = divmod(number, len(options.kinds))
            result = rounds.play(options.kinds[at], training=again % 2 == 1)
            bad += not result.good
            print("GOOD" if result.good else "BAD", json.dumps(asdict(result)), flush=True)
    print(f"{options.rounds - bad} of {options.rounds} rounds are good")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
