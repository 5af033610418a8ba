"""The synchronous mode: chief and workers train in step, and a lost replica causes a restart from the checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.cluster import ClusterOfProcesses, require_bfloat16
from trainer import mnist
from trainer.config import parse
from trainer.distributed import sync
from trainer.distributed.cluster import Cluster
from trainer.distributed.signals import Stop
from trainer.files import manifest
from trainer.files.storage import open_store

# Only the last evaluation is checked, and it always uses all held-out examples.
FEW = ("--eval_examples", "20")
ARGS = ("--strategy", "sync", "--batch_size", "40", "--checkpoint", "30", "--learning_rate", "3e-4", *FEW)


def test_a_lost_synchronous_replica_causes_a_restart_from_the_checkpoint(dataset: Path, tmp_path: Path) -> None:
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, "--max_steps", "4000", worker=1) as cluster:
        cluster.start()
        cluster.chief.wait_log("step 30: held-out")
        cluster["worker/0"].kill()
        # TensorFlow's coordination service may terminate the process before it exits with its own code.
        assert cluster.chief.wait() != 0
    # A job may continue on machines of another kind.
    with ClusterOfProcesses(
        tmp_path, dataset, *ARGS, "--max_steps", "120", "--precision", "float32", worker=1
    ) as again:
        # The worker sees no checkpoint, so it must get the starting step from the chief.
        again["worker/0"]._arguments.extend(["--log_dir", str(tmp_path / "empty")])
        again.start()
        step = int(again.chief.wait_log(r"restored the checkpoint at step (\d+)")[1])
        assert step >= 30
        assert again["worker/0"].wait_log(r"joined the chief at step (\d+)")[1] == str(step)
        if step < 120:
            assert set(again.wait().values()) == {0}
            assert again.listening() == []
            last = again.metrics()[-1]
            assert last["step"] == 120
            assert last["test_accuracy"] >= 0.8
            assert json.loads((tmp_path / "job" / "model" / "MANIFEST.json").read_text())["step"] == 120


def test_the_learning_rate_falls_to_zero_at_the_last_step() -> None:
    config = parse(["--dataset", "d", "--max_steps", "40", "--learning_rate", "1e-3"])
    rows = np.random.default_rng(3).integers(0, 256, (8, mnist.PIXELS), dtype=np.uint8)
    changes = {}
    for step in (20, 40):
        values = dict(mnist.initial_weights(0))
        zeros = {
            f"{name}/{kind}": np.zeros_like(values[name]) for name in mnist.SHAPES for kind in ("adam_m", "adam_v")
        }
        start = {**values, **zeros, "global_step": np.array(step, np.int64)}
        replica = sync._Replica(tf.distribute.get_strategy(), config, start, Cluster())
        replica.train(rows, np.arange(8, dtype=np.uint8))
        changes[step] = np.abs(replica.read(None)["dense2/bias"] - values["dense2/bias"]).max()
    assert changes[20] > 0
    assert changes[40] == 0


def test_checkpoints_after_a_resume_keep_their_interval(dataset: Path, tmp_path: Path) -> None:
    args = (*ARGS, "--checkpoint", "4", "--max_steps")
    steps = []
    for last in ("4", "12"):
        with ClusterOfProcesses(tmp_path, dataset, *args, last) as process:
            process.start()
            assert process.chief.wait() == 0
            steps.append(re.findall(r"saved checkpoint checkpoints/0*(\d+)-", process.chief.log))
    assert steps == [["4"], ["8", "12"]]


class _Gone:
    """A replica whose peers have left the last collective operation and closed their connections."""

    def meet(self) -> None:
        raise tf.errors.UnavailableError(None, None, "Socket closed")


@pytest.mark.parametrize("exported", [None, 90, 120])
def test_a_replica_that_exits_first_after_the_export_is_not_lost(tmp_path: Path, exported: int | None) -> None:
    config = parse(["--dataset", "d", "--job-dir", str(tmp_path)])
    if exported:
        manifest.publish(open_store(config.model_dir), "", tmp_path / "none", step=exported)
    if exported == 120:
        sync._meet(_Gone(), config, 120)
    else:
        with pytest.raises(tf.errors.UnavailableError):
            sync._meet(_Gone(), config, 120)


def test_the_threads_are_limited_before_tensorflow_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class StartedError(Exception):
        pass

    def start(_cluster: Cluster) -> None:
        raise StartedError

    limits: list[int] = []
    monkeypatch.setattr(sync, "limit_threads", lambda config, _cluster: limits.append(config.threads))
    monkeypatch.setattr(sync, "_strategy", start)
    with pytest.raises(StartedError):
        sync.train(parse(["--dataset", "d", "--threads", "3"]), Cluster(), Stop())
    assert limits == [3]


def test_parameter_servers_are_refused(dataset: Path, tmp_path: Path) -> None:
    with ClusterOfProcesses(tmp_path, dataset, *ARGS, ps=1) as cluster:
        cluster.start("chief/0")
        assert cluster.chief.wait() == 1
        assert "does not use parameter servers" in cluster.chief.log


def test_workers_without_parameter_servers_need_the_synchronous_mode(dataset: Path, tmp_path: Path) -> None:
    with ClusterOfProcesses(tmp_path, dataset, worker=1) as cluster:
        cluster.start("chief/0")
        assert cluster.chief.wait() == 1
        assert "needs parameter servers, or --strategy sync" in cluster.chief.log


def test_synchronous_training_in_bfloat16(dataset: Path, tmp_path: Path) -> None:
    require_bfloat16()
    with ClusterOfProcesses(
        tmp_path, dataset, *ARGS, "--max_steps", "120", "--precision", "bfloat16", worker=1
    ) as cluster:
        cluster.start()
        assert set(cluster.wait().values()) == {0}
        assert "computed in bfloat16" in cluster.chief.log
        assert cluster.metrics()[-1]["test_accuracy"] >= 0.8
