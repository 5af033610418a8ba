"""Environment variables that tell a replica which accelerators it was given.

With these variables, the start command installs the package's extra for the accelerators, and a trainer can refuse to
train on the CPU by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlengine.core.job_file import tpus
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE


def add_to(body: dict[str, Any]) -> dict[str, Any]:
    """Add the variables to each pool of a request that has accelerators. Variables that are set already are kept."""
    pools = [_with_variables(pool) for pool in body["jobSpec"]["workerPoolSpecs"]]
    return {**body, "jobSpec": {**body["jobSpec"], "workerPoolSpecs": pools}}


def accelerators(machine: Mapping[str, Any]) -> tuple[str, int]:
    """The name and the number of the accelerators of one machine; ``("", 0)`` if it has none.

    The name of a TPU that is requested by machine type is that of its generation, such as ``TPU_V6E``.
    """
    if tpus.is_tpu(machine.get("machineType", "")):
        return f"TPU_{tpus.generation(machine).upper()}", tpus.chips_of_machine(machine)
    accelerator = machine.get("acceleratorType")
    return (str(accelerator), int(machine.get("acceleratorCount", 1))) if accelerator else ("", 0)


def _with_variables(pool: dict[str, Any]) -> dict[str, Any]:
    name, count = accelerators(pool.get("machineSpec", {}))
    task = next((field for field in ("containerSpec", "pythonPackageSpec") if field in pool), None)
    if not name or task is None:
        return pool
    given = pool[task].get("env", [])
    known = {variable["name"] for variable in given}
    added = [
        {"name": variable, "value": value}
        for variable, value in ((ACCELERATOR_TYPE, name), (ACCELERATOR_COUNT, str(count)))
        if variable not in known
    ]
    return {**pool, task: {**pool[task], "env": [*given, *added]}}
