"""The pools of a request that have accelerators, with the requirements that their replicas install."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlengine.backends.vertex.accelerator_env import accelerators
from mlengine.backends.vertex.accelerators import Problems
from mlengine.runtime.dependencies import Dependencies
from mlengine.runtime.extras import extra_for

PLAIN_IMAGE = re.compile(r"(?:.*/)?python:(?P<version>3\.\d+)(?:[.-].*)?")

# Distributions that contain only the CPU build of TensorFlow.
CPU_TENSORFLOW = frozenset({"tensorflow-cpu", "tf-nightly-cpu", "intel-tensorflow"})


class Package(NamedTuple):
    """The metadata of a package of the job.

    :param constraints: the content of its ``constraints.txt``.
    """

    filename: str
    dependencies: Dependencies = Dependencies()
    requires_python: str | None = None
    constraints: bytes | None = None


class Findings(NamedTuple):
    """Problems that make the accelerators useless, and warnings about possible ones."""

    problems: Problems
    warnings: list[str]


class Required(NamedTuple):
    """A requirement, and the package that declares it."""

    filename: str
    requirement: Requirement

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    def __str__(self) -> str:
        text = str(self.requirement)
        return f"{self.filename} requires {text.partition(';')[0].strip()}"


class AcceleratedPool(NamedTuple):
    """A pool with accelerators.

    :param machine: its ``machineSpec``.
    :param accelerator: the name of the accelerator.
    :param command: whether the request replaces the image's entry point.
    :param ours: whether it is replaced by mlengine's start command.
    """

    machine: Mapping[str, Any]
    accelerator: str
    image: str
    command: bool
    ours: bool
    required: list[Required]
    packages: Sequence[Package]

    @property
    def python(self) -> str | None:
        """The version of Python in a plain Python image, such as ``3.11``; ``None`` for any other image."""
        match = PLAIN_IMAGE.fullmatch(self.image)
        return match["version"] if match else None


def accelerated(pools: Sequence[Mapping[str, Any]], packages: Sequence[Package]) -> Iterator[AcceleratedPool]:
    """The pools that have accelerators.

    :param pools: ``workerPoolSpecs``, without the empty ones.
    :param packages: those of the job's packages that could be read.
    """
    for pool in pools:
        name, _ = accelerators(pool["machineSpec"])
        if name:
            yield _pool(pool, name, packages)


def _pool(pool: Mapping[str, Any], accelerator: str, packages: Sequence[Package]) -> AcceleratedPool:
    container, package = pool.get("containerSpec", {}), pool.get("pythonPackageSpec", {})
    command = container.get("command", [])
    ours = bool(packages) and command[:2] == ["python3", "-c"]
    image = str(container.get("imageUri") or package.get("executorImageUri") or "")
    match = PLAIN_IMAGE.fullmatch(image)
    # Google's executor image installs packages without extras.
    extra = extra_for(accelerator) if ours else None
    required = [
        Required(one.filename, requirement)
        for one in packages
        for requirement in one.dependencies.with_extra(extra, match["version"] if match else None)
    ]
    return AcceleratedPool(pool["machineSpec"], accelerator, image, bool(command), ours, required, packages)
