"""GPUs are given to one job at a time, in order of submission."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from mlengine.backends import Submission
from mlengine.backends.local.gpu_reservation import Reservation, ReservedGpu, reserve
from mlengine.backends.local.gpus import Gpu, needed
from mlengine.backends.local.queue import Queue
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.settings import Settings
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime import json_files

TWO = TrainingSpec(module="t", pools=tuple(Pool(role, 1, None, "NVIDIA_L4", 1) for role in (Role.CHIEF, Role.WORKER)))
ONE = replace(TWO, pools=TWO.pools[:1])
NONE = TrainingSpec(module="t")


@pytest.fixture
def cards() -> list[Gpu]:
    """Two GPUs with new UUIDs, because a reservation applies to the entire host."""
    return [Gpu(f"GPU-{uuid4()}", f"GPU {index}", "NVIDIA L4") for index in range(2)]


@pytest.fixture
def held() -> Iterator[list[Reservation]]:
    reservations: list[Reservation] = []
    yield reservations
    for reservation in reservations:
        give_back(reservation)


def give_back(reservation: Reservation) -> None:
    for group in reservation.values():
        for it in group:
            it.give_back()


def enter(state: Path, name: str, spec: TrainingSpec) -> Job:
    Queue(state).enter(name)
    job = Job(state / "jobs" / name)
    job.root.mkdir(parents=True)
    submission = Submission(name.partition("-")[0], f"job_{name}", 1, "gs://b/m/j", spec)
    json_files.write_json(job.submission_file, Stored(submission, Settings.load(), 0.0).to_json())
    json_files.write_json(job.state_file, {"state": "QUEUED"})
    return job


def take(job: Job, spec: TrainingSpec, cards: list[Gpu], held: list[Reservation]) -> tuple[Reservation, str]:
    """Reserve GPUs as a launcher does."""
    reservation, why = reserve(job, Queue(job.state_dir), needed(spec), cards)
    if reservation:
        ids = [it.gpu.id for group in reservation.values() for it in group]
        json_files.write_json(job.state_file, {"state": "PREPARING", "gpus": ids})
        held.append(reservation)
    return reservation, why


def test_each_gpu_is_reserved_once(tmp_path: Path, cards: list[Gpu], held: list[Reservation]) -> None:
    first, second, third = (enter(tmp_path, name, ONE) for name in ("a-1", "b-1", "c-1"))
    one, _ = take(first, ONE, cards, held)
    two, _ = take(second, ONE, cards, held)
    given = [it.gpu.id for it in (*one[Role.CHIEF, 0], *two[Role.CHIEF, 0])]
    assert sorted(given) == sorted(gpu.id for gpu in cards)
    nothing, why = take(third, ONE, cards, held)
    assert not nothing
    assert why == "waiting for 1 GPU, 0 free: GPU 0 is used by job_a-1, GPU 1 is used by job_b-1"
    json_files.write_json(first.state_file, {"state": "SUCCEEDED"})
    give_back(one)
    assert take(third, ONE, cards, held)[0][Role.CHIEF, 0][0].gpu == cards[0]


def test_a_job_that_waits_for_two_gpus_is_not_overtaken(
    tmp_path: Path, cards: list[Gpu], held: list[Reservation]
) -> None:
    first, second, third = enter(tmp_path, "a-1", ONE), enter(tmp_path, "b-1", TWO), enter(tmp_path, "c-1", ONE)
    enter(tmp_path, "d-1", NONE)
    one, _ = take(first, ONE, cards, held)
    assert take(second, TWO, cards, held)[1] == "waiting for 2 GPUs, 1 free: GPU 0 is used by job_a-1"
    assert take(third, ONE, cards, held)[1] == "waiting for 1 GPU after job_b-1, which was submitted earlier"
    json_files.write_json(first.state_file, {"state": "FAILED"})
    give_back(one)
    assert take(second, TWO, cards, held)[0].keys() == {(Role.CHIEF, 0), (Role.WORKER, 0)}


def test_a_reserved_gpu_is_not_given_to_another_state_dir(
    tmp_path: Path, cards: list[Gpu], held: list[Reservation]
) -> None:
    here, there = enter(tmp_path / "here", "a-1", ONE), enter(tmp_path / "there", "a-1", ONE)
    one, _ = take(here, ONE, cards[:1], held)
    assert take(there, ONE, cards[:1], held)[1] == "waiting for 1 GPU, 0 free: GPU 0 is used by another job"
    give_back(one)
    assert take(there, ONE, cards[:1], held)[0]


def test_a_replica_keeps_its_gpu_after_the_launcher_has_died(tmp_path: Path, cards: list[Gpu]) -> None:
    it = ReservedGpu.take(cards[0], tmp_path)
    assert it is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=it.descriptors) as replica:
        it.give_back()  # as the kernel does when a process is killed
        assert ReservedGpu.take(cards[0], tmp_path) is None
        assert ReservedGpu.take(cards[0], tmp_path / "other") is None
        replica.kill()
    after = ReservedGpu.take(cards[0], tmp_path)
    assert after is not None
    after.give_back()


def test_an_earlier_job_keeps_its_gpus_until_it_has_ended(
    tmp_path: Path, cards: list[Gpu], held: list[Reservation]
) -> None:
    """Its launcher and replicas have died, but a process that a replica started may still use the GPUs."""
    first, second = enter(tmp_path, "a-1", ONE), enter(tmp_path, "b-1", ONE)
    one, _ = take(first, ONE, cards[:1], held)
    give_back(one)
    assert take(second, ONE, cards[:1], held)[1].endswith("GPU 0 is used by job_a-1")
    json_files.write_json(first.state_file, {"state": "FAILED"})
    assert take(second, ONE, cards[:1], held)[0]
