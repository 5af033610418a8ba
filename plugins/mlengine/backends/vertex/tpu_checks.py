"""Checks that the packages and the image of a job with a TPU can use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlengine.backends.vertex.accelerated_pools import CPU_TENSORFLOW, AcceleratedPool, Findings, Required
from mlengine.core import vertex_machines
from mlengine.core.job_file import tpus
from mlengine.runtime.requires_python import accepts

# Requirements that install libtpu.
_TPU_BUILDS = frozenset({"libtpu", "libtpu-nightly", "tensorflow-tpu", "tf-nightly-tpu"})
_TENSORFLOW = frozenset(
    {*CPU_TENSORFLOW, "tensorflow", "tf-nightly", "tensorflow-gpu", "tensorflow-tpu", "tf-nightly-tpu"}
)
_TENSORFLOW_IMAGE = re.compile(r"(?:^|[/._-])(?:tf2?|tensorflow)(?:[/.:_-]|$)")
_NEXT_PYTHONS = 20


def check(pool: AcceleratedPool) -> Findings:
    """The problems of the pool, and warnings about possible ones."""
    problems = [*_tensorflow(pool), *_python(pool), *_pod(pool)]
    if problems or pool.python is None:
        return Findings(problems, [])
    builds = [str(one) for one in pool.required if _brings_libtpu(one)]
    if builds:
        return Findings([], [f"{pool.accelerator}: {pool.image} has no TPU software of its own; {', '.join(builds)}"])
    if not pool.packages:
        return Findings([], [f"{pool.accelerator}: {pool.image} has no TPU software of its own"])
    problem = f"{pool.accelerator}: the image {pool.image} has no TPU software, and no package requires any"
    hint = (
        "require jax[tpu] or torch_xla[tpu] (as the extra tpu, if the package runs elsewhere too), or set image_uri to "
        "an image with libtpu"
    )
    return Findings([(problem, hint)], [])


def _software() -> dict[str, Any]:
    return dict(vertex_machines.table()["tpu_software"])


def _brings_libtpu(one: Required) -> bool:
    return one.name in _TPU_BUILDS or "tpu" in one.requirement.extras


def _tensorflow(pool: AcceleratedPool) -> Iterator[tuple[str, str]]:
    generation = tpus.generation(pool.machine)
    if generation not in _software()["without_tensorflow"]:
        return
    hint = "use JAX or PyTorch/XLA, or a TPU v5e"
    for one in pool.required:
        if one.name in _TENSORFLOW:
            yield f"{one}, and TensorFlow is not supported on TPU {generation}", hint
    if _TENSORFLOW_IMAGE.search(pool.image):
        yield f"the image {pool.image} is for TensorFlow, which is not supported on TPU {generation}", hint


def _python(pool: AcceleratedPool) -> Iterator[tuple[str, str]]:
    generation = tpus.generation(pool.machine)
    least = _software()["least_python"].get(generation)
    if least is None:
        return
    minor = _minor(least)
    if pool.python and _minor(pool.python) < minor:
        problem = f"TPU {generation} needs Python {least} or later, and the image {pool.image} has {pool.python}"
        yield problem, f'set pythonVersion: "{least}" in the job file, or image_uri'
    enough = [f"3.{number}.{patch}" for number in range(minor, minor + _NEXT_PYTHONS) for patch in (0, 99)]
    for package in pool.packages:
        wanted = package.requires_python
        if wanted and not accepts(wanted, *enough):
            problem = f"TPU {generation} needs Python {least} or later, and {package.filename} requires {wanted}"
            yield problem, "change requires-python"


def _minor(version: str) -> int:
    return int(version.split(".")[1])


def _pod(pool: AcceleratedPool) -> Iterator[tuple[str, str]]:
    """Check that a pod keeps the entry point of Google's base image, which connects the pod's machines."""
    if not (tpus.is_pod(pool.machine) and pool.command):
        return
    command = "mlengine's start command" if pool.ours else "the job's command"
    problem = f"a TPU pod needs the entry point of Google's base image, and {command} replaces it"
    hint = (
        f"build an image from {_software()['pod_base_image']} with the trainer in it, and give the job this image "
        "without packages and without a command; or use the topology of one machine"
    )
    yield f"{pool.accelerator}: {problem}", hint
