"""The GPUs of this machine, with a fake ``nvidia-smi``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlengine.backends.local import accelerators, gpus
from mlengine.backends.local.gpus import Gpu
from mlengine.core.errors import BackendError
from mlengine.core.spec import Pool, Role, TrainingSpec
from tests.support import fake_nvidia

FIRST, SECOND = (line.split("UUID: ")[1].rstrip(")") for line in fake_nvidia.L4.splitlines())
CARD, SLICE, SMALL, WHOLE = (line.split("UUID: ")[1].rstrip(")") for line in fake_nvidia.MIG.splitlines())
T4 = "NVIDIA_TESLA_T4"


def find(setting: str = "", visible: str | None = None) -> list[str]:
    env = {"PATH": os.environ["PATH"]}
    return [gpu.id for gpu in gpus.find(setting, env if visible is None else {**env, gpus.VISIBLE: visible})]


def spec(*pools: Pool) -> TrainingSpec:
    return TrainingSpec(module="t", pools=pools)


def on_gpus(role: Role, replicas: int = 1, count: int = 1, kind: str = T4) -> Pool:
    return Pool(role, replicas, accelerator_type=kind, accelerator_count=count)


def test_cards_and_mig_devices_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_nvidia.install(tmp_path, monkeypatch, fake_nvidia.MIG)
    found = gpus.find("", os.environ)
    assert [str(gpu) for gpu in found] == [
        "GPU 0 MIG 0 (3g.20gb)",
        "GPU 0 MIG 1 (1g.5gb)",
        "GPU 1 (NVIDIA A100-SXM4-40GB)",
    ]
    assert [gpu.id for gpu in found] == [SLICE, SMALL, WHOLE]
    assert [gpu.mig for gpu in found] == [True, True, False]
    assert calls.read_text() == "-L\n"
    fake_nvidia.install(tmp_path, monkeypatch, fake_nvidia.OLD_MIG)
    assert find() == ["MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/7/0"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0", [SLICE, SMALL]),
        ("1,0", [WHOLE, SLICE, SMALL]),
        (f"{SMALL},1", [SMALL, WHOLE]),
        ("GPU-7c1a", [WHOLE]),
        (CARD, [SLICE, SMALL]),
        ("1,7,0", [WHOLE]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]
) -> None:
    fake_nvidia.install(tmp_path, monkeypatch, fake_nvidia.MIG)
    assert find(visible=visible) == expected


def test_the_setting_counts_or_names_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_nvidia.install(tmp_path, monkeypatch)
    assert find("0") == []
    assert not calls.exists()
    assert find("1") == [FIRST]
    assert find("1", visible="1") == [SECOND]
    assert find(SECOND) == [SECOND]
    assert find("1,0") == [SECOND, FIRST]
    for wrong, visible in (("3", None), ("0,5", None), ("GPU-9", None), ("0,1", "1")):
        with pytest.raises(BackendError, match=f"local_gpus is '{wrong}', and this machine has .* GPU"):
            find(wrong, visible)


@pytest.mark.parametrize("setting", ["-1", "none", "all", "auto", "0,", "GPU-", "0 1"])
def test_an_invalid_gpu_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi, any word could be the name of a GPU
    with pytest.raises(BackendError, match=f"local_gpus is '{setting}'") as caught:
        find(setting)
    assert "0 for none" in caught.value.hint


def test_without_nvidia_smi_gpus_come_only_from_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find() == []
    assert find(visible="0") == []
    assert find("2") == ["0", "1"]
    assert find("1", visible="3,4") == ["3"]
    assert gpus.find(f"{SMALL},3", os.environ) == [Gpu(SMALL, SMALL, mig=True), Gpu("3", "GPU 3")]


def test_a_driver_that_does_not_respond_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia.install(tmp_path, monkeypatch, fake_nvidia.NO_DRIVER, 9)
    for setting in ("", "1"):
        with pytest.raises(BackendError, match=r"exit code 9: NVIDIA-SMI has failed .*\n?.*local_gpus = 0"):
            find(setting)
    assert find("0") == []
    fake_nvidia.install(tmp_path, monkeypatch, "No devices were found\n", 6)
    assert find() == []
    fake_nvidia.install(
        tmp_path, monkeypatch, f"{fake_nvidia.L4}WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n", 14
    )
    assert find() == [FIRST, SECOND]


def test_a_replica_gets_one_mig_device_or_whole_cards() -> None:
    devices = [Gpu("m0", "m0", mig=True), Gpu("m1", "m1", mig=True), Gpu("c0", "c0"), Gpu("c1", "c1")]
    chief, worker = (Role.CHIEF, 0), (Role.WORKER, 0)

    def ids(needs: dict[gpus.ReplicaId, int]) -> dict[gpus.ReplicaId, list[str]] | None:
        assigned = gpus.assign(needs, devices)
        if assigned is None:
            return None
        return {replica: [gpu.id for gpu in group] for replica, group in assigned.items()}

    assert ids({chief: 1, worker: 2}) == {worker: ["c0", "c1"], chief: ["m0"]}
    assert ids({(Role.WORKER, index): 1 for index in range(4)}) == {
        (Role.WORKER, 0): ["m0"],
        (Role.WORKER, 1): ["m1"],
        (Role.WORKER, 2): ["c0"],
        (Role.WORKER, 3): ["c1"],
    }
    assert ids({chief: 3}) is None
    assert ids({chief: 2, worker: 2}) is None


def test_a_job_that_does_not_fit_is_refused_with_requested_and_available_gpus() -> None:
    requested = spec(on_gpus(Role.CHIEF), on_gpus(Role.WORKER, 2, 2), Pool(Role.PS, 1))
    with pytest.raises(BackendError) as refused:
        gpus.check("job_1", requested, [Gpu("u", "GPU 0", "NVIDIA L4")])
    assert refused.value.message == (
        "job_1 requests 5 GPUs (chief: 1 NVIDIA_TESLA_T4, worker: 2 x 2 NVIDIA_TESLA_T4), and this machine has "
        "1 GPU: GPU 0 (NVIDIA L4)"
    )
    with pytest.raises(BackendError, match="one MIG device, not several"):
        gpus.check("job_1", spec(on_gpus(Role.CHIEF, count=2)), [Gpu("m0", "m0", mig=True), Gpu("m1", "m1", mig=True)])
    gpus.check("job_1", requested, [Gpu(str(index), str(index)) for index in range(5)])
    gpus.check("job_1", spec(Pool(Role.CHIEF, 1), on_gpus(Role.WORKER, kind="TPU_V3")), [])


def test_a_machine_without_gpus_trains_on_the_cpu() -> None:
    requested = spec(
        on_gpus(Role.CHIEF),
        Pool(Role.WORKER, 1, "complex_model_m_gpu"),
        Pool(Role.PS, 1),
        Pool(Role.EVALUATOR, 1, "ct6e-standard-4t"),
    )
    small, notes = accelerators.adapted(requested, [])
    assert gpus.needed(small) == {}
    assert not any(pool.accelerator_type for pool in small.pools)
    assert notes == [
        "chief: 1 NVIDIA_TESLA_T4 requested; this machine has none, so the replica trains on the CPU",
        "worker: 4 NVIDIA_TESLA_K80 requested; this machine has none, so the replica trains on the CPU",
        "evaluator: 4 TPU_V6E requested; this machine has none, so the replica trains on the CPU",
    ]


def test_the_requested_number_of_gpus_is_kept_whatever_their_type() -> None:
    requested = spec(on_gpus(Role.CHIEF), Pool(Role.WORKER, 2, "a2-highgpu-1g"), on_gpus(Role.EVALUATOR, kind="TPU_V3"))
    kept, notes = accelerators.adapted(requested, [Gpu("u", "GPU 0", "NVIDIA L4")])
    assert gpus.needed(kept) == {(Role.CHIEF, 0): 1, (Role.WORKER, 0): 1, (Role.WORKER, 1): 1}
    assert notes == [
        "chief: 1 NVIDIA_TESLA_T4 requested; this machine has 1 GPU: GPU 0 (NVIDIA L4)",
        "worker: 1 NVIDIA_TESLA_A100 requested; this machine has 1 GPU: GPU 0 (NVIDIA L4)",
        "evaluator: 1 TPU_V3 requested; this machine has none, so the replica trains on the CPU",
    ]


def test_a_replica_sees_its_own_gpus_and_no_others() -> None:
    pool = on_gpus(Role.CHIEF, count=2)
    assert gpus.variables(pool, [Gpu("u", "GPU 0"), Gpu("v", "GPU 1")]) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "u,v",
        "MLENGINE_ACCELERATOR_TYPE": T4,
        "MLENGINE_ACCELERATOR_COUNT": "2",
    }
    assert gpus.variables(pool, [])["CUDA_VISIBLE_DEVICES"] == "-1"
