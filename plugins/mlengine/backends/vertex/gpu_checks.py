"""Checks that the packages and the image of a pool with NVIDIA GPUs can use them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from mlengine.backends.vertex.accelerated_pools import CPU_TENSORFLOW, AcceleratedPool, Findings, Required
from mlengine.core import vertex_machines

# Distributions that come without CUDA unless they are required with an extra that begins with the given text.
_CUDA_EXTRA = {"tensorflow": "and-cuda", "tf-nightly": "and-cuda", "jax": "cuda"}
_CUDA_REQUIREMENT = {"tensorflow": "tensorflow[and-cuda]", "tf-nightly": "tf-nightly[and-cuda]", "jax": "jax[cuda12]"}
_CPU_BUILD = re.compile(r"\+cpu\b")  # as in torch==2.13.0+cpu
_CUDA_13 = re.compile(r"cu(?:da)?-?13")
# Google's images have names such as tf-cpu.2-17, and on Docker Hub tensorflow/tensorflow:2.21.0-gpu is the GPU build.
_CPU_IMAGE = re.compile(r"(?:^|[/._-])(?:tf2?|pytorch|torch|jax)-cpu(?:[.:_-]|$)")
_DOCKER_HUB = re.compile(r"(?:docker\.io/)?tensorflow/tensorflow(?::(?P<tag>.+))?")


def check(pool: AcceleratedPool) -> Findings:
    """The problems of the pool, and warnings about possible ones."""
    warnings = [*_cpu_constraints(pool), *_old_driver(pool)]
    if _is_cpu_image(pool.image):
        hint = "use an image with a GPU build, such as tensorflow/tensorflow:VERSION-gpu"
        return Findings([(f"{pool.accelerator}: the image {pool.image} has a CPU build only", hint)], warnings)
    return Findings([*_cpu_builds(pool), *_without_cuda(pool)], warnings)


def _is_cpu_image(image: str) -> bool:
    docker_hub = _DOCKER_HUB.fullmatch(image)
    return bool(_CPU_IMAGE.search(image)) or (docker_hub is not None and "gpu" not in (docker_hub["tag"] or ""))


def _cpu_builds(pool: AcceleratedPool) -> Iterator[tuple[str, str]]:
    pinned = {name for _, name, _ in _constraint_lines(pool)}
    for one in pool.required:
        if one.name in CPU_TENSORFLOW:
            hint = (
                "require tensorflow[and-cuda] instead; or declare it as the extra gpu, and the CPU build as the extra "
                "cpu: the start command installs the one that fits"
            )
        elif _CPU_BUILD.search(f"{one.requirement.specifier} {one.requirement.url or ''}") or one.name in pinned:
            hint = "remove +cpu from the requirement and from constraints.txt"
        else:
            continue
        yield f"{pool.accelerator}: {one}, a build for CPUs only", hint


def _without_cuda(pool: AcceleratedPool) -> Iterator[tuple[str, str]]:
    """Find frameworks that are required without CUDA. A plain image has no CUDA libraries: packages must bring them."""
    if pool.python is None or any(one.name.startswith(("nvidia-", "jax-cuda")) for one in pool.required):
        return
    for one in pool.required:
        if one.name in _CUDA_EXTRA and not _has_cuda(pool, one):
            problem = f"{one}, which is installed without CUDA, and the image {pool.image} has none"
            hint = f"require {_CUDA_REQUIREMENT[one.name]}, or set image_uri to an image with CUDA"
            yield f"{pool.accelerator}: {problem}", hint


def _has_cuda(pool: AcceleratedPool, wanted: Required) -> bool:
    """Whether the distribution is required with CUDA somewhere: base requirements and extras add up."""
    extras = {extra for one in pool.required if one.name == wanted.name for extra in one.requirement.extras}
    return any(extra.startswith(_CUDA_EXTRA[wanted.name]) for extra in extras)


def _cpu_constraints(pool: AcceleratedPool) -> Iterator[str]:
    """Warnings about constraints on CPU builds of distributions on which the packages may depend indirectly."""
    required = {one.name for one in pool.required}
    for filename, name, line in _constraint_lines(pool):
        if name not in required:
            yield f"{pool.accelerator}: constraints.txt of {filename} has {line}, a build for CPUs only"


def _constraint_lines(pool: AcceleratedPool) -> Iterator[tuple[str, str, str]]:
    """The constraints on CPU builds: for each, the package, the distribution's name and the line."""
    for package in pool.packages:
        for text in (package.constraints or b"").decode("utf-8", "replace").splitlines():
            line = text.partition("#")[0].strip()
            match = re.match(r"[A-Za-z0-9][\w.-]*", line)
            if match and _CPU_BUILD.search(line):
                yield package.filename, canonicalize_name(match[0]), line


def _old_driver(pool: AcceleratedPool) -> Iterator[str]:
    cuda = vertex_machines.driver_cuda(pool.accelerator)
    for one in pool.required if cuda else ():
        requirement = one.requirement
        if _CUDA_13.search(f"{one.name} {' '.join(requirement.extras)} {requirement.specifier}"):
            yield (
                f"{pool.accelerator}: {one}, a build for CUDA 13. The driver of these hosts supported CUDA {cuda} when "
                "it was last seen, and such a build finds no GPU there: use one for CUDA 12"
            )
