"""Replaces the accelerators that a job file requests by those that this machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlengine.backends.local import gpus
from mlengine.core.job_file import tiers
from mlengine.core.spec import TrainingSpec


def adapted(spec: TrainingSpec, found: Sequence[gpus.Gpu]) -> tuple[TrainingSpec, list[str]]:
    """The spec with the accelerators that its replicas get on this machine, and a message for each pool that has any.

    A machine without GPUs trains on the CPU, so that a job file for the cloud runs on it.
    """
    pools, notes = [], []
    for pool in spec.pools:
        kind, count = tiers.accelerators(pool)
        if not count:
            pools.append(pool)
            continue
        it = replace(pool, accelerator_type=kind, accelerator_count=count)
        if found and gpus.accelerator(it):
            notes.append(f"{pool.role.value}: {count} {kind} requested; this machine has {gpus.describe(found)}")
        else:
            it = replace(pool, accelerator_type=None, accelerator_count=0)
            notes.append(
                f"{pool.role.value}: {count} {kind} requested; this machine has none, so the replica trains on the CPU"
            )
        pools.append(it)
    return replace(spec, pools=tuple(pools)), notes
