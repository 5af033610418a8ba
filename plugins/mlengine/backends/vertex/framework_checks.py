"""Checks before submission that the software on machines with accelerators can use the accelerators.

Frameworks that find no accelerator train on the CPU without an error. Before submission, the requirements of the job's
packages are known, and so are images whose name says what is in them. Other images are not checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlengine.backends.vertex import gpu_checks, tpu_checks
from mlengine.backends.vertex.accelerated_pools import Findings, Package, accelerated


def check(pools: Sequence[Mapping[str, Any]], packages: Sequence[Package]) -> Findings:
    """Check the pools that have accelerators.

    :param pools: ``workerPoolSpecs``, without the empty ones.
    :param packages: those of the job's packages that could be read.
    """
    problems: dict[tuple[str, str], None] = {}
    warnings: dict[str, None] = {}
    for pool in accelerated(pools, packages):
        checks = tpu_checks if pool.accelerator.startswith("TPU_") else gpu_checks
        found = checks.check(pool)
        problems |= dict.fromkeys(found.problems)
        warnings |= dict.fromkeys(found.warnings)
    return Findings(list(problems), list(warnings))
