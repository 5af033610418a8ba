"""Checks the machines of a ``CustomJobSpec`` as the service does, by its table of machine types and accelerators.

The messages are known from public reports, except for those about disks.
"""

from __future__ import annotations

from mlengine.backends.vertex import accelerators
from mlengine.core import limits
from mlengine.core.errors import EmulatorApiError, JobFileError
from mlengine.core.job_file import fields as job_fields
from mlengine.core.job_file.located import Located
from mlengine.core.job_file.tiers import MACHINES
from mlengine.emulator import field_errors


def check(pool: Located) -> None:
    """Check the machine and the disk of a worker pool.

    :param pool: the worker pool in canonical form.
    :raises EmulatorApiError: the machine type is missing, is not offered, or cannot have the accelerators.
    """
    fields = pool.value.get("machineSpec")
    machine = fields.value if fields is not None else {}
    kind, place = machine.get("machineType"), f"{pool.path}.machineSpec"
    if kind is None:
        raise field_errors.vertex(f"{place}.machineType", field_errors.REQUIRED, "for example n1-standard-4")
    try:
        job_fields.machine_type(kind)
    except JobFileError as error:
        raise _unsupported(kind, None, error.hint) from error
    old = MACHINES.get(kind.value)
    if old is not None:
        raise _unsupported(kind, None, f"it is a name of ML Engine; use {old.vertex_type}")
    accelerator, count = machine.get("acceleratorType"), machine.get("acceleratorCount")
    if (accelerator is None) != (count is None):
        raise field_errors.vertex(
            f"{place}.acceleratorType", "Both `accelerator_type` and `accelerator_count` should be specified or none."
        )
    try:
        job_fields.accelerator(accelerator, count)
    except JobFileError as error:
        raise _unsupported(kind, accelerator, f"{error.message}: {error.hint}") from error
    for problem, hint in accelerators.of_pool({"machineSpec": fields.plain()}):
        raise _unsupported(kind, accelerator, f"{problem}: {hint}")
    _check_disk(pool)


def _unsupported(kind: Located, accelerator: Located | None, hint: str) -> EmulatorApiError:
    if accelerator is None:
        return field_errors.vertex(kind.path, f'Machine type "{kind.value}" is not supported.', hint)
    return EmulatorApiError(
        f'Accelerator "{accelerator.value}" is not supported for machine type "{kind.value}".', hint=hint
    )


def _check_disk(pool: Located) -> None:
    disk = pool.value.get("diskSpec")
    size = disk.value.get("bootDiskSizeGb") if disk is not None else None
    if disk is not None:
        request = {"machineSpec": pool.value["machineSpec"].plain(), "diskSpec": disk.plain()}
        for problem, hint in accelerators.of_pool(request):
            raise field_errors.vertex(f"{disk.path}.bootDiskType", problem, hint)
    if size is not None and (wrong := limits.boot_disk_gb(int(size.value))) is not None:
        raise field_errors.vertex(size.path, wrong.message, wrong.hint)
