"""Tests local jobs on GPUs with a fake nvidia-smi: real launchers and replicas, no GPU."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.local.gpu_reservation import ReservedGpu
from mlengine.backends.local.gpus import Gpu
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime.file_lock import held
from mlengine.storage.client import Storage
from tests.support import fake_nvidia
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]


@pytest.fixture
def uuids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The UUIDs of two fake cards, unique to this test because reservations apply to the whole host."""
    found = [f"GPU-{uuid4()}" for _ in range(2)]
    lines = (f"GPU {index}: NVIDIA L4 (UUID: {uuid})\n" for index, uuid in enumerate(found))
    fake_nvidia.install(tmp_path / "nvidia", monkeypatch, "".join(lines))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


@pytest.fixture
def other_backend(tmp_path: Path, shared_environments: Path, uuids: list[str]) -> Iterator[LocalBackend]:
    """A backend with another state dir and only the first card."""
    state = tmp_path / "other"
    state.mkdir()
    (state / "envs").symlink_to(shared_environments / "envs")
    quick = {"log_upload_timeout_seconds": 0, "empty_output_warning_seconds": 0}
    backend = LocalBackend(state, max_concurrent_jobs=4, gpus=uuids[0], **quick)
    yield backend
    local.end_everything(backend)


def on_gpus(uri: str, acts: dict[str, str], *, count: int = 1, env: Mapping[str, str] | None = None) -> TrainingSpec:
    """A spec with GPUs for chief and workers but not for parameter servers."""
    pools = [
        Pool(role, 1, None, "NVIDIA_TESLA_T4", count) if role is not Role.PS else Pool(role, 1)
        for role in map(Role, acts)
    ]
    return TrainingSpec(
        module="tiny.task", package_uris=(uri,), pools=tuple(pools), args=local.acts(**acts), env=env or {}
    )


def submit(backend: LocalBackend, bucket: str, spec: TrainingSpec, number: int) -> JobHandle:
    return backend.submit(local.submission(bucket, spec, key=str(number).ljust(40, "0")))


def test_each_replica_sees_its_own_gpu(make_backend: Make, actor: str, bucket: str, uuids: list[str]) -> None:
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TF_FORCE_GPU_ALLOW_GROWTH", "MLENGINE_ACCELERATOR_TYPE",
             "MLENGINE_ACCELERATOR_COUNT")  # fmt: skip
    show = f"say(json.dumps({{name: os.environ.get(name) for name in {names}}}))"
    running = f"{show}\nuntil(scratch / 'go')"
    backend = make_backend()
    handle = submit(backend, bucket, on_gpus(actor, {"chief": running, "worker": show, "ps": show}), 1)
    detail = local.until(
        lambda: "on GPU 1" in (found := local.describe(backend, handle).detail) and found, "the replicas run"
    )
    assert "; chief-0 on GPU 0; worker-0 on GPU 1" in detail
    seen = local.until(
        lambda: (
            len(found := dict(text.split(": ", 1) for text in local.texts(backend, handle) if "{" in text)) == 3
            and found
        ),
        "all replicas have printed their variables",
    )
    chief, worker, server = (json.loads(seen[name]) for name in ("chief-0", "worker-0", "ps-0"))
    assert [chief[names[0]], worker[names[0]], server[names[0]]] == [*uuids, "-1"]
    for replica in (chief, worker):
        assert [replica[name] for name in names[1:]] == ["PCI_BUS_ID", "true", "NVIDIA_TESLA_T4", "1"]
    assert server["MLENGINE_ACCELERATOR_TYPE"] is None
    (backend._job(handle.name).scratch("chief-0") / "go").touch()
    assert local.until_ended(backend, handle).state is JobState.SUCCEEDED
    log = backend._job(handle.name).launcher_log.read_text()
    assert f"GPU 0 (NVIDIA L4), {uuids[0]}" in log


def test_variables_of_the_job_file_take_precedence(
    make_backend: Make, actor: str, bucket: str, uuids: list[str]
) -> None:
    own = {"CUDA_VISIBLE_DEVICES": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "false"}
    show = f"say(*[os.environ[name] for name in {[*own]}])"
    backend = make_backend()
    handle, _ = local.run(backend, bucket, on_gpus(actor, {"chief": show}, env=own))
    assert "chief-0: 1 false" in local.texts(backend, handle)
    assert uuids


def test_two_jobs_for_one_gpu_run_one_after_the_other(
    make_backend: Make, actor: str, bucket: str, tmp_path: Path, uuids: list[str]
) -> None:
    backend = make_backend(max_concurrent_jobs=4, gpus="1")
    go = tmp_path / "go"
    first = submit(backend, bucket, on_gpus(actor, {"chief": f"until({str(go)!r})"}), 1)
    local.until(lambda: "on GPU 0" in local.describe(backend, first).detail, "the first job runs")
    second = submit(backend, bucket, on_gpus(actor, {"chief": ""}), 2)
    reason = f"waiting for 1 GPU, 0 free: GPU 0 is used by {first.job_id}"
    local.until(lambda: local.describe(backend, second).detail == reason, "the second job reports why it waits")
    # A job without GPUs does not wait for one.
    assert local.run(backend, bucket, local.spec(actor), key="c" * 40)[1].state is JobState.SUCCEEDED
    third = submit(backend, bucket, on_gpus(actor, {"chief": ""}), 3)
    local.until(
        lambda: f"after {second.job_id}" in local.describe(backend, third).detail, "the third job is queued behind it"
    )
    backend.cancel(third)
    assert local.until_ended(backend, third).state is JobState.CANCELLED
    assert local.describe(backend, second).state is JobState.QUEUED
    go.touch()
    assert [local.until_ended(backend, handle).state for handle in (first, second)] == [JobState.SUCCEEDED] * 2
    assert uuids


def test_a_job_that_needs_too_many_gpus_is_refused_before_anything_is_written(
    make_backend: Make, actor: str, bucket: str, tmp_path: Path, uuids: list[str]
) -> None:
    backend = make_backend()
    spec, _ = backend.cap(on_gpus(actor, {"chief": "", "worker": ""}, count=2))
    with pytest.raises(BackendError, match=r"requests 4 GPUs \(chief: 2 NVIDIA_TESLA_T4, worker.*has 2 GPUs.*"):
        submit(backend, bucket, spec, 1)
    assert not list((tmp_path / "state" / "jobs").glob("*"))
    handle, _ = local.run(backend, bucket, on_gpus(actor, {"chief": ""}))
    # If the call is repeated after the GPUs have disappeared, it returns the existing job.
    assert make_backend(gpus="0").submit(local.submission(bucket, on_gpus(actor, {"chief": ""}))) == handle
    assert uuids


def test_the_same_job_runs_on_a_machine_without_gpus(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend(gpus="0")
    spec, notes = backend.cap(on_gpus(actor, {"chief": "say(os.environ['CUDA_VISIBLE_DEVICES'])"}))
    assert notes == ["chief: 1 NVIDIA_TESLA_T4 requested; this machine has none, so the replica trains on the CPU"]
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED
    assert "chief-0: -1" in local.texts(backend, handle)


def test_replicas_with_and_without_a_gpu_get_different_extras(
    make_backend: Make, storage: Storage, bucket: str, uuids: list[str]
) -> None:
    extras = '[]\n[project.optional-dependencies]\ncpu = ["iniconfig==2.0.0"]\ngpu = ["iniconfig==2.1.0"]'
    uri = local.put(storage, bucket, local.sdist(local.ACTOR, dependencies=extras))
    show = "import importlib.metadata; say('has', importlib.metadata.version('iniconfig'))"
    backend = make_backend()
    handle, _ = local.run(backend, bucket, on_gpus(uri, {"chief": f"{show}\ntime.sleep(1)", "ps": show}))
    assert {"chief-0: has 2.1.0", "ps-0: has 2.0.0"} <= set(local.texts(backend, handle))
    assert uuids


def test_a_gpu_is_never_assigned_twice_while_launchers_are_killed(
    make_backend: Make, other_backend: LocalBackend, actor: str, bucket: str, tmp_path: Path, uuids: list[str]
) -> None:
    """Two state dirs share one GPU. The trainers of killed launchers ignore SIGTERM and do not exit on their own."""
    busy, ran, overlap = tmp_path / "busy", tmp_path / "ran", tmp_path / "overlap"
    train = f"""
        import fcntl
        mine = open({str(busy)!r}, 'w')
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            open({str(overlap)!r}, 'a').write(os.environ['CLOUD_ML_JOB_ID'])
        open({str(ran)!r}, 'a').write(os.environ['CLOUD_ML_JOB_ID'] + '\\n')
    """
    deaf = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{textwrap.dedent(train)}\ntime.sleep(3600)"
    here = make_backend(max_concurrent_jobs=4, termination_grace_seconds=4.0, gpus=uuids[0])
    jobs = []
    for number in range(3):
        jobs.append((here, submit(here, bucket, on_gpus(actor, {"chief": deaf}), 10 + number)))
        jobs.append((other_backend, submit(other_backend, bucket, on_gpus(actor, {"chief": train}), 20 + number)))
    card = Gpu(uuids[0], "GPU 0")
    for backend, handle in jobs[::2]:
        local.until(partial(_contains, ran, handle.job_id), f"{handle.job_id} is training")
        os.kill(local.launcher_pid(backend, handle), signal.SIGKILL)
        local.until(partial(_free, backend._job(handle.name).lock_file), "its launcher has ended")
        # While the replica runs, it holds the GPU.
        if (free := ReservedGpu.take(card, tmp_path / "locks")) is not None:
            free.give_back()
            assert not local.alive(backend, handle)
    # Only polls of a job kill its trainer if that ignores SIGTERM, so wait for those jobs first.
    ended = [local.until_ended(backend, handle).state for backend, handle in (*jobs[::2], *jobs[1::2])]
    assert ended == [JobState.FAILED] * 3 + [JobState.SUCCEEDED] * 3
    assert len(ran.read_text().split()) == 6
    assert not overlap.exists(), overlap.read_text()


def _contains(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


def _free(lock_file: Path) -> bool:
    return not held(lock_file)
