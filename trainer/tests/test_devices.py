"""A replica logs which devices it sees, and does not train on the CPU if it was given an accelerator."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.cluster import TRAINER
from trainer import devices
from trainer.config import parse
from trainer.errors import AcceleratorMissingError


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLENGINE_ACCELERATOR_TYPE", "NVIDIA_L4")
    monkeypatch.setenv("MLENGINE_ACCELERATOR_COUNT", "2")


def test_the_devices_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    devices.check()
    assert f"TensorFlow {tf.__version__}, a build for " in caplog.text
    assert "sees CPU:0" in caplog.text


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
