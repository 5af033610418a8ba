"""A replica logs which devices it sees, and does not train on the CPU if it was given an accelerator."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tests.cluster import TRAINER
from trainer import devices
from trainer.config import parse
from trainer.errors import AcceleratorMissingError, UsageError


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLENGINE_ACCELERATOR_TYPE", "NVIDIA_L4")
    monkeypatch.setenv("MLENGINE_ACCELERATOR_COUNT", "2")


def test_the_devices_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    devices.check()
    assert f"TensorFlow {tf.__version__}, a build for " in caplog.text
    assert "sees CPU:0" in caplog.text


@pytest.mark.parametrize(
    ("flags", "gpu", "onednn", "chosen", "possible"),
    [
        ("avx512f avx512_bf16 amx_bf16 amx_tile", False, None, tf.bfloat16, True),
        ("avx512f avx512_bf16", False, None, tf.float32, True),
        ("avx512f amx_bf16", True, None, tf.float32, True),
        ("avx2", True, None, tf.float32, True),
        ("avx512f amx_bf16", False, "0", tf.float32, False),
        ("avx2 f16c", False, None, tf.float32, False),
        (None, False, None, tf.float32, False),
    ],
)
def test_bfloat16_is_chosen_on_cpus_with_amx_and_refused_where_it_does_not_work(
    flags: str | None,
    gpu: bool,
    onednn: str | None,
    chosen: tf.DType,
    possible: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """``None`` is a system without ``/proc/cpuinfo``, such as macOS."""
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(devices, "has_gpu", lambda: gpu)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if onednn is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    assert devices.compute_type(parse(["--dataset", "d"]).precision) == chosen
    assert devices.compute_type(parse(["--dataset", "d", "--precision", "float32"]).precision) == tf.float32
    bfloat16 = parse(["--dataset", "d", "--precision", "bfloat16"]).precision
    if possible:
        assert devices.compute_type(bfloat16) == tf.bfloat16
    else:
        with pytest.raises(UsageError, match="--precision bfloat16 needs a GPU, or a CPU with instructions for this"):
            devices.compute_type(bfloat16)


@pytest.mark.usefixtures("given")
def test_an_accelerator_that_is_not_visible_ends_the_training(caplog: pytest.LogCaptureFixture) -> None:
    if devices.has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(
        AcceleratorMissingError, match=r"given 2 NVIDIA_L4, and TensorFlow sees 0: install .*--allow_cpu"
    ):
        devices.check()
    devices.check(allow_cpu=parse(["--dataset", "d", "--allow_cpu"]).allow_cpu)
    assert "training goes on without" in caplog.text


@pytest.mark.usefixtures("given")
def test_enough_visible_gpus_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = ["/physical_device:GPU:0", "/physical_device:GPU:1"]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda visible, kind: chosen.append((visible, kind)))
    chosen: list[tuple[list[str], str]] = []
    devices.check()
    assert chosen == [(gpus[:1], "GPU")], "the first GPU must be used"
    gpus.pop()
    with pytest.raises(AcceleratorMissingError, match="given 2 NVIDIA_L4, and TensorFlow sees 1"):
        devices.check()


def test_tpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLENGINE_ACCELERATOR_TYPE", "TPU_V5E")
    with pytest.raises(AcceleratorMissingError, match="does not use TPUs"):
        devices.check()


@pytest.mark.usefixtures("given")
def test_a_missing_gpu_fails_the_job_immediately_without_a_retry() -> None:
    if devices.has_gpu():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "trainer.task", "--dataset", "/no/such/dataset"]
    done = subprocess.run(
        command, env=os.environ, cwd=TRAINER, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 1
    assert "given 2 NVIDIA_L4, and TensorFlow sees 0" in done.stderr
    assert "no/such/dataset" not in done.stderr, "the dataset must not be read before the check"
