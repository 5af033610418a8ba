"""A job whose packages or image cannot use its accelerators is rejected before submission."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Sequence
from typing import Any

import pytest

from mlengine.backends.vertex import package_checks
from mlengine.core.errors import BackendError
from tests.unit.backends.vertex.test_package_checks import SDIST, Objects, sdist

START = ["python3", "-c", "source"]
WHEEL = "gs://bkt/t-1.0-py3-none-any.whl"


def wheel(*requirements: str, requires_python: str = ">=3.10", extras: Sequence[str] = ()) -> Objects:
    lines = [f"Requires-Dist: {text}" for text in requirements] + [f"Provides-Extra: {name}" for name in extras]
    text = "\n".join(
        ["Metadata-Version: 2.4", "Name: t", "Version: 1.0", f"Requires-Python: {requires_python}", *lines]
    )
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("t-1.0.dist-info/METADATA", f"{text}\n")
    return Objects({WHEEL: sink.getvalue()})


def machine(accelerator: str = "NVIDIA_L4", name: str = "g2-standard-4", topology: str = "") -> dict[str, Any]:
    if topology:
        return {"machineType": name, "tpuTopology": topology}
    return {"machineType": name, "acceleratorType": accelerator, "acceleratorCount": 1}


def check(
    objects: Objects,
    spec: dict[str, Any],
    image: str = "python:3.11-slim",
    *,
    command: Sequence[str] = START,
    accelerators: bool = True,
) -> None:
    pool = {"machineSpec": spec, "containerSpec": {"imageUri": image, "command": list(command)}}
    body = {"jobSpec": {"workerPoolSpecs": [pool, {}]}}
    package_checks.check("j", body, list(objects), objects, accelerators=accelerators)


V6E = machine(name="ct6e-standard-4t", topology="2x2")
V7X = machine(name="tpu7x-standard-4t", topology="2x2x1")
V5E = machine(name="ct5lp-hightpu-4t", topology="2x2")
V5E_POD = machine(name="ct5lp-hightpu-4t", topology="4x4")
OWN = "us-docker.pkg.dev/p/r/mine:1"


@pytest.mark.parametrize(
    ("objects", "spec", "image", "message", "hint"),
    [
        (wheel("tensorflow-cpu==2.21.0"), machine(), "python:3.11-slim", "a build for CPUs only", "and-cuda"),
        (wheel("tensorflow-cpu"), machine(), OWN, "requires tensorflow-cpu, a build for CPUs", "extra gpu"),
        (wheel("torch==2.13.0+cpu"), machine(), OWN, r"torch==2\.13\.0\+cpu, a build for CPUs", r"\+cpu"),
        (wheel("tensorflow>=2.20"), machine(), "python:3.11-slim", "installed without CUDA", r"tensorflow\[and-cuda\]"),
        (wheel("jax"), machine(), "python:3.11-slim", "installed without CUDA", r"jax\[cuda12\]"),
        (
            wheel("tensorflow[and-cuda]; extra == 'cuda'", "tensorflow", extras=["cuda"]),
            machine(),
            "python:3.11-slim",
            "installed without CUDA",
            "and-cuda",
        ),
        (Objects(), machine(), "europe-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest", "a CPU build", ""),
        (Objects(), machine(), "tensorflow/tensorflow:2.21.0", "a CPU build only", "VERSION-gpu"),
        (wheel("numpy"), V5E, "python:3.11-slim", "has no TPU software", r"jax\[tpu\]"),
        (wheel("jax[tpu]"), V5E_POD, OWN, "entry point of Google's base image", "tf-tpu-pod-base"),
        (wheel("tensorflow"), V6E, OWN, "TensorFlow is not supported on TPU v6e", "JAX"),
        (wheel("tensorflow-tpu"), V7X, OWN, "TensorFlow is not supported on TPU 7x", "v5e"),
        (Objects(), V6E, "us-docker.pkg.dev/vertex-ai/training/tf-tpu.2-18:1", "is for TensorFlow", "JAX"),
        (wheel("jax[tpu]"), V7X, "python:3.11-slim", r"needs Python 3\.12 or later, and the image", "pythonVersion"),
        (wheel("jax[tpu]", requires_python=">=3.10,<3.12"), V7X, OWN, r"needs Python 3\.12 or later, and t-1", "req"),
    ],
)
def test_packages_that_cannot_use_the_accelerators_are_refused(
    objects: Objects, spec: dict[str, Any], image: str, message: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        check(objects, spec, image)
    assert re.search(hint, caught.value.hint)
    assert "accelerator_checks=false" in caught.value.hint
    check(objects, spec, image, accelerators=False)
    assert re.search(message, caplog.text), "it is a warning then"


@pytest.mark.parametrize(
    ("objects", "spec", "image"),
    [
        (wheel("tensorflow[and-cuda]==2.21.0"), machine(), "python:3.11-slim"),
        (wheel("tensorflow==2.21.0", "nvidia-cudnn-cu12"), machine(), "python:3.11-slim"),
        (wheel("tensorflow==2.21.0"), machine(), "tensorflow/tensorflow:2.21.0-gpu"),
        (wheel("tensorflow==2.21.0"), machine(), OWN),
        (wheel("torch>=2"), machine(), "python:3.11-slim"),
        (wheel("tensorflow-cpu; sys_platform == 'win32'", "torch"), machine(), "python:3.11-slim"),
        (
            wheel(
                "tensorflow-cpu; extra == 'cpu'", "tensorflow[and-cuda]; extra == 'gpu'", "numpy", extras=["cpu", "gpu"]
            ),
            machine(),
            "python:3.11-slim",
        ),
        (
            wheel("tensorflow", "tensorflow[and-cuda]; extra == 'gpu'", extras=["gpu"]),
            machine(),
            "python:3.11-slim",
        ),
        (wheel("tensorflow-cpu"), {"machineType": "n1-standard-4"}, "python:3.11-slim"),
        (wheel("tensorflow"), V5E, OWN),
        (wheel("jax[tpu]"), V6E, OWN),
        (wheel("jax[tpu]", requires_python=">=3.12"), V7X, OWN),
    ],
)
def test_packages_that_can_use_the_accelerators_are_accepted(
    objects: Objects, spec: dict[str, Any], image: str, caplog: pytest.LogCaptureFixture
) -> None:
    check(objects, spec, image)
    assert not caplog.text


def test_a_tpu_pod_with_its_own_image_and_no_command_is_accepted() -> None:
    check(Objects(), V5E_POD, OWN, command=())
    with pytest.raises(BackendError, match="the job's command replaces it"):
        check(Objects(), V5E_POD, OWN, command=["python", "-m", "mine"])


def test_possible_incompatibilities_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    check(wheel("jax[tpu]"), V5E)
    assert "no TPU software of its own; t-1.0-py3-none-any.whl requires jax[tpu]" in caplog.text
    check(wheel("jax[cuda13]"), machine("NVIDIA_TESLA_T4", "n1-standard-4"), OWN)
    assert "a build for CUDA 13. The driver of these hosts supported CUDA 12.2" in caplog.text
    caplog.clear()
    check(wheel("jax[cuda13]"), machine(), OWN)
    assert not caplog.text, "only the hosts of T4 are known to have an old driver"


def test_a_cpu_build_in_constraints_with_an_accelerator_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    indirect = Objects({SDIST: sdist(None, "torch==2.13.0+cpu  # small\n")})
    check(indirect, machine(), OWN)
    assert "constraints.txt of t-1.0.tar.gz has torch==2.13.0+cpu, a build for CPUs only" in caplog.text
    metadata = "Metadata-Version: 2.4\nName: t\nVersion: 1.0\nRequires-Dist: torch\n"
    direct = Objects({SDIST: sdist(None, "torch==2.13.0+cpu\n", metadata_text=metadata)})
    with pytest.raises(BackendError, match="requires torch, a build for CPUs only"):
        check(direct, machine(), OWN)


def test_unknown_requirements_are_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    check(Objects({WHEEL: b"no archive", SDIST: sdist(None)}), V5E)
    assert "is not known" in caplog.text
    assert "no package requires any" in caplog.text


def test_googles_executor_image_installs_no_extras() -> None:
    objects = wheel("numpy", "tensorflow-cpu; extra == 'gpu'", extras=["gpu"])
    pool = {"machineSpec": machine(), "pythonPackageSpec": {"executorImageUri": "example/executor:1"}}
    package_checks.check("j", {"jobSpec": {"workerPoolSpecs": [pool]}}, list(objects), objects)
