"""Check that what runs on a machine with accelerators can use them, before the job is submitted.

Frameworks that find no accelerator train on the CPU without an error. What the packages of a job require, and images
whose name says what is in them, are known before submission; other images are left to their owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlengine.backends.vertex import gpu_checks, tpu_checks
from mlengine.backends.vertex.accelerated_pools import Findings, Package, accelerated


def check(pools: Sequence[Mapping[str, Any]], packages: Sequence[Package]) -> Findings:
    """Check the pools that have accelerators.

    :param pools: ``workerPoolSpecs``, without the empty ones.
    :param packages: the job's packages, as far as they could be read.
    """
    problems: dict[tuple[str, str], None] = {}
    warnings: dict[str, None] = {}
    for pool in accelerated(pools, packages):
        checks = tpu_checks if pool.accelerator.startswith("TPU_") else gpu_checks
        found = checks.check(pool)
        problems |= dict.fromkeys(found.problems)
        warnings |= dict.fromkeys(found.warnings)
    return Findings(list(problems), list(warnings))
