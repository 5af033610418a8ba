"""Fault tolerance of a training: killed, hung and stopped replicas, with real processes and real signals."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import ClusterOfProcesses

STEPS, EVERY = 250, 50
# Only the last evaluation is compared, and it always uses all held-out examples.
FEW = ("--eval_examples", "20")
ARGS = ("--batch_size", "20", "--max_steps", str(STEPS), "--checkpoint", str(EVERY), "--learning_rate", "3e-4", *FEW)
SHORT = ("--batch_size", "10", "--checkpoint", "5", *FEW)
TRAINERS = ("chief/0", "worker/0")
TOLERANCE = 0.05  # of the accuracy, which varies in so short a training


@dataclass(frozen=True)
class Unbroken:
    accuracy: float


@pytest.fixture(scope="module")
def unbroken(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """The result of the same training without failures, for comparison."""
    folder = tmp_path_factory.mktemp("unbroken")
    with ClusterOfProcesses(folder, dataset, *ARGS, worker=1, ps=1) as cluster:
        assert set(cluster.start().wait().values()) == {0}
        rows = cluster.metrics()
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    return Unbroken(rows[-1]["test_accuracy"])


def _steps(log: str) -> list[int]:
    return [int(step) for step in re.findall(r"step (\d+) of \d+, loss", log)]


def _shares(log: str) -> list[int]:
    return [int(count) for count in re.findall(r"share of \S+: (\d+) of", log)]


def _saved(log: str) -> list[int]:
    return [int(step) for step in re.findall(r"saved checkpoint checkpoints/(\d+)", log)]


def _ended_well(cluster: ClusterOfProcesses, unbroken: Unbroken) -> None:
    assert set(cluster.wait().values()) == {0}
    assert cluster.listening() == []
    last = cluster.metrics()[-1]
    assert STEPS <= last["step"] <= STEPS + 3  # up to 3 more: the steps that the two trainers had in flight
    assert last["test_accuracy"] >= unbroken.accuracy - TOLERANCE
    assert json.loads(Path(cluster.job_dir, "model", "MANIFEST.json").read_text())["step"] == last["step"]


def test_a_killed_worker_loses_no_applied_step_and_rejoins(dataset: Path, tmp_path: Path, unbroken: Unbroken) -> None:
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, worker=1, ps=1) as cluster:
        cluster.start()
        worker = cluster["worker/0"]
        cluster.chief.wait_log("saved checkpoint")
        worker.wait_log("training from step")
        worker.kill()
        before = _steps(cluster.chief.log)[-1]
        worker.start()
        joined = int(worker.wait_log(r"training from step (\d+)")[1])
        assert joined >= before
        _ended_well(cluster, unbroken)
        steps = _steps(cluster.chief.log)
        assert steps == sorted(steps)
        assert "lost the parameter servers" not in cluster.chief.log
        shares, last = _shares(cluster.chief.log), cluster.metrics()[-1]["step"]
        # A step increments two counters, the job's steps and the trainer's share. When the worker was killed, each of
        # its two steps in flight may have incremented only one of them.
        assert abs(sum(shares) - last) <= 2
        assert min(shares) > 0


def test_a_killed_chief_rejoins_live_parameter_servers_without_restoring(
    dataset: Path, tmp_path: Path, unbroken: Unbroken
) -> None:
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, worker=1, ps=1) as cluster:
        cluster.start()
        cluster.chief.wait_log("saved checkpoint")
        cluster["worker/0"].wait_log("training from step")
        cluster.chief.kill()
        before = _steps(cluster.chief.log)[-1]
        cluster.chief.start()
        joined = int(cluster.chief.wait_log(r"joined the running parameter servers at step (\d+)")[1])
        assert joined > before
        _ended_well(cluster, unbroken)
        assert "restored the checkpoint" not in cluster.chief.log
        assert "lost the parameter servers" not in cluster["worker/0"].log


def test_a_killed_parameter_server_loses_at_most_one_checkpoint_interval(
    dataset: Path, tmp_path: Path, unbroken: Unbroken
) -> None:
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, worker=1, ps=3) as cluster:
        cluster.start()
        cluster.chief.wait_log(r"step (9\d|1\d\d): held-out")
        cluster["ps/1"].kill()
        cluster["ps/1"].start()
        restored = int(cluster.chief.wait_log(r"restored the checkpoint at step (\d+)")[1])
        _ended_well(cluster, unbroken)
        lost = [
            int(re.findall(r"lost the parameter servers after step (\d+)", cluster[name].log)[0]) for name in TRAINERS
        ]
        assert restored > EVERY
        assert 0 <= max(lost) - restored <= EVERY


def test_a_hung_parameter_server_times_out_is_named_and_rejoined(
    dataset: Path, tmp_path: Path, unbroken: Unbroken
) -> None:
    # With two servers, the check which of them hangs uses a new kind of run for each. TensorFlow first registers the
    # graph of such a run on the servers, and applies no timeout to that.
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, "--step_timeout", "6", worker=1, ps=2) as cluster:
        cluster.start()
        cluster.chief.wait_log("saved checkpoint")
        server = cluster["ps/0"]
        server.send(signal.SIGSTOP)
        try:
            cluster.chief.wait_log(r"no answer within 6 s from ps/0 at 127")
            cluster["worker/0"].wait_log("lost the parameter servers")
        finally:
            server.send(signal.SIGCONT)
        _ended_well(cluster, unbroken)
        assert "joined the running parameter servers" in cluster.chief.log
        steps = _steps(cluster.chief.log)
        assert steps == sorted(steps)


def test_sigterm_saves_a_checkpoint_from_which_the_next_attempt_resumes(
    dataset: Path, tmp_path: Path, unbroken: Unbroken
) -> None:
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, worker=1, ps=1) as cluster:
        cluster.start()
        cluster.chief.wait_log(r"held-out(?s:.*)step \d+ of \d+, loss")
        for replica in cluster.replicas.values():  # as when a cloud preempts the entire job
            replica.send(signal.SIGTERM)
        codes = cluster.wait()
        assert codes["chief/0"] == 143
        assert set(codes.values()) == {143}
        saved = max(_saved(cluster.chief.log))
        # Not only the checkpoint of the interval, but one of the step at which the training stopped.
        assert saved >= _steps(cluster.chief.log)[-1]
        assert "stopped, checkpoint saved" in cluster.chief.log
        first = cluster.metrics()
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, worker=1, ps=1) as again:
        again.start()
        assert int(again.chief.wait_log(r"restored the checkpoint at step (\d+)")[1]) == saved
        _ended_well(again, unbroken)
        rows = again.metrics()
        assert rows[: len(first)] == first
        assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
        assert len(list(Path(again.job_dir, "train").glob("events.*"))) == 2


def _run_alone(folder: Path, dataset: str | Path, *args: str, job: str | None = None) -> tuple[int, str]:
    with ClusterOfProcesses(folder, dataset, *args, job=job) as process:
        process.start()
        return process.chief.wait(), process.chief.log


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job dir of a short training that has finished. Tests work on a copy."""
    folder = tmp_path_factory.mktemp("finished")
    code, _ = _run_alone(folder, dataset, *SHORT, "--max_steps", "12")
    assert code == 0
    return folder / "job"


def test_a_finished_job_exports_again_without_training(dataset: Path, tmp_path: Path, finished: Path) -> None:
    job = tmp_path / "job"
    shutil.copytree(finished, job)
    exported = json.loads((job / "model" / "MANIFEST.json").read_text())
    (job / "model" / "MANIFEST.json").unlink()
    code, log = _run_alone(tmp_path, dataset, *SHORT, "--max_steps", "12")
    assert code == 0
    assert "restored the checkpoint at step 12" in log
    assert not re.findall(r"(?<!share of )step 1 of", log)
    again = json.loads((job / "model" / "MANIFEST.json").read_text())
    assert again["step"] == exported["step"] == 12
    data = "variables/variables.data-00000-of-00001"
    assert again["files"][data] == exported["files"][data]
    steps = [json.loads(line)["step"] for line in (job / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 12]


def test_a_non_finite_loss_ends_training_and_keeps_the_last_good_checkpoint(
    dataset: Path, tmp_path: Path, finished: Path
) -> None:
    shutil.copytree(finished, tmp_path / "job")
    checkpoints = tmp_path / "job" / "train" / "checkpoints"
    kept = sorted(path.name for path in checkpoints.iterdir())
    args = (*SHORT, "--max_steps", "500", "--learning_rate", "1e39")
    with ClusterOfProcesses(tmp_path, dataset, *args, worker=1, ps=1) as cluster:
        codes = cluster.start().wait()
        assert set(codes.values()) == {1}
        logs = cluster.chief.log + cluster["worker/0"].log
        assert "not finite" in logs
        assert cluster.listening() == []
    assert sorted(path.name for path in checkpoints.iterdir()) == kept


def test_a_full_disk_pauses_training_within_an_interval_of_the_checkpoint(dataset: Path, tmp_path: Path) -> None:
    """A file size limit of 1 MB makes the chief's checkpoints fail for a while, as a full disk would."""
    import resource

    every = 40
    args = ("--batch_size", "10", "--max_steps", "200", "--checkpoint", str(every), *FEW)
    with ClusterOfProcesses(tmp_path, dataset, *args, worker=1, ps=1) as cluster:
        cluster.start()
        chief, worker = cluster.chief, cluster["worker/0"]
        worker.wait_log("training from step")
        chief.wait_log("saved checkpoint")
        resource.prlimit(chief.pid, resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        chief.wait_log("cannot write a checkpoint.*retrying")
        # On a busy machine, the worker may have waited for earlier checkpoints too.
        newest = _saved(chief.log)[-1]
        waiting = worker.wait_log(rf"step (\d+): waiting for the chief's checkpoint; the newest is of {newest}\n")
        resource.prlimit(chief.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        # The number of steps that the loss of a parameter server would cost at the worst moment.
        assert every - 4 <= int(waiting[1]) - newest <= every
        assert set(cluster.wait().values()) == {0}
        saved = _saved(chief.log)
        assert all(later - earlier <= every for earlier, later in itertools.pairwise([0, *saved]))
