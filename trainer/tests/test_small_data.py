"""Datasets with fewer examples than a batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import datasets
from tests.cluster import ClusterOfProcesses
from trainer.config import parse
from trainer.distributed import sync
from trainer.errors import DatasetError


@pytest.mark.parametrize("strategy", ["async", "sync"])
def test_training_works_with_fewer_examples_than_lanes(digits: Path, tmp_path: Path, strategy: str) -> None:
    """With four cores, a batch of 100 would be split into five lanes."""
    small = datasets.make(tmp_path / "small", digits, train=3, heldout=20)
    with ClusterOfProcesses(tmp_path, small, "--threads", "4", "--max_steps", "2", "--strategy", strategy) as process:
        process.start()
        assert process.chief.wait() == 0
        assert "a step has 3 examples, not 100" in process.chief.log


def test_a_step_has_the_same_number_of_examples_on_all_synchronous_replicas() -> None:
    config = parse(["--dataset", "d", "--batch_size", "100"])
    assert sync._share(config, 60_000, 3) == 33
    assert sync._share(config, 10, 3) == 3
    assert sync._share(config, 3, 3) == 1
    assert sync._share(parse(["--dataset", "d", "--batch_size", "1"]), 10, 3) == 1


def test_a_synchronous_replica_without_examples_is_an_error() -> None:
    with pytest.raises(DatasetError, match="d: 2 training examples for 3 replicas"):
        sync._share(parse(["--dataset", "d"]), 2, 3)
