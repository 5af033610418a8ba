"""Runs ``mnist_retraining`` with ``backend=ray`` on a head and two nodes, each with its own network.

A node is killed at a random moment, and the head is killed during training. For more kinds of failures, more rounds,
and rounds without a failure run ``python -m tests.support.ray_rounds``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pytest

from tests.support import ray_network, ray_rounds
from tests.support.ray_rounds import Rounds

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    if reason := ray_network.impossible():
        pytest.skip(reason)
    with ray_rounds.running(tmp_path_factory.mktemp("ray-rounds"), steps=200) as started:
        yield started


def test_a_champion_is_published_although_a_node_is_lost(rounds: Rounds) -> None:
    result = rounds.play("node")
    assert result.good, asdict(result)
    assert len(result.attempts) == 1


def test_losing_the_head_during_training_uses_one_attempt(rounds: Rounds) -> None:
    result = rounds.play("head", training=True)
    assert result.good, asdict(result)
    assert len(result.attempts) == 2
    assert result.running == 2, "the task's log must keep the output of the first attempt"
