"""Replicas whose parameter servers have exited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cluster import free_ports
from trainer.config import parse
from trainer.distributed.cluster import Cluster
from trainer.distributed.peers import Peers
from trainer.distributed.signals import Stop
from trainer.errors import ReplicaLostError
from trainer.files import manifest
from trainer.files.checkpoint import Checkpoints
from trainer.files.storage import open_store

STEPS = 12


def _peers(job_dir: Path, job: str) -> Peers:
    """The peers of a replica in a cluster of which no replica is running."""
    argv = ["--dataset", "d", "--job-dir", str(job_dir), "--max_steps", str(STEPS), "--patience", "0.5"]
    tasks = {role: (f"127.0.0.1:{port}",) for role, port in zip(("chief", "worker", "ps"), free_ports(3), strict=True)}
    nothing: Any = None
    return Peers(
        parse(argv),
        Cluster(tasks, job),
        graph=nothing,
        target="",
        proto=nothing,
        stop=Stop(),
        check_stop=lambda _session: None,
    )


def _finish(job_dir: Path, *, saved: int, exported: int) -> None:
    Checkpoints(open_store(f"{job_dir}/train")).save(saved, {"global_step": np.array(saved)})
    manifest.publish(open_store(f"{job_dir}/model"), "", job_dir / "none", step=exported)


@pytest.mark.parametrize("job", ["chief", "worker"])
def test_a_replica_restarted_after_the_end_of_training_succeeds(tmp_path: Path, job: str) -> None:
    """For example a chief that was killed after the parameter servers had read that it is done."""
    _finish(tmp_path, saved=STEPS + 1, exported=STEPS + 1)
    assert not _peers(tmp_path, job).wait_for_servers()


@pytest.mark.parametrize(("saved", "exported"), [(STEPS, STEPS - 1), (STEPS - 1, STEPS), (STEPS - 1, STEPS - 1)])
@pytest.mark.parametrize("job", ["chief", "worker"])
def test_an_unfinished_training_needs_its_parameter_servers(
    tmp_path: Path, job: str, saved: int, exported: int
) -> None:
    _finish(tmp_path, saved=saved, exported=exported)
    with pytest.raises(ReplicaLostError, match="waiting for ps/0"):
        _peers(tmp_path, job).wait_for_servers()


def test_a_training_without_files_needs_its_parameter_servers(tmp_path: Path) -> None:
    with pytest.raises(ReplicaLostError, match="waiting for ps/0"):
        _peers(tmp_path, "chief").wait_for_servers()
