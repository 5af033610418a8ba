"""The section ``ray:`` of a job file: the resources that replicas reserve on a Ray cluster, and their placement.

::

    ray:
      placement: SPREAD
      resources:                    # by role, or one set for all roles
        chief: {CPU: 4, GPU: 1, memory_gib: 16}
        worker: {CPU: 8, my_resource: 1}

Other backends ignore the section. The setting ``ray_resources`` has the format of ``resources``, and is checked here
too.
"""

from __future__ import annotations

import math
from typing import Any

from mlengine.core.job_file.located import Located, did_you_mean
from mlengine.core.spec import Role

PLACEMENTS = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
MEMORY = "memory_gib"
_FIELDS = ("resources", "placement")
_ROLES = {**{role.value: role.value for role in Role}, "master": "chief", "parameterServer": "ps"}
_LEAST = 0.0001  # Ray rounds amounts to this
# Names that users may write by mistake instead of Ray's names of resources.
_MISTAKEN = {
    **dict.fromkeys(("cpu", "cpus", "numcpus"), "CPU"),
    **dict.fromkeys(("gpu", "gpus", "numgpus"), "GPU"),
    **dict.fromkeys(("memory", "mem", "memorygb", "memorygib", "memorymb", "memorybytes"), MEMORY),
}


def read(field: Located) -> dict[str, Any]:
    """The section as plain data: ``resources`` and ``placement``, if present.

    :raises JobFileError: the section is invalid; the error has the line and a hint.
    """
    fields = field.fields(_FIELDS)
    found: dict[str, Any] = {}
    if "placement" in fields:
        found["placement"] = placement(fields["placement"])
    if "resources" in fields:
        found["resources"] = resources(fields["resources"])
    return found


def placement(field: Located) -> str:
    """The placement strategy, one of Ray's for placement groups."""
    name = field.text()
    if name not in PLACEMENTS:
        raise field.error(f"is not a placement: {name!r}", did_you_mean(name, PLACEMENTS))
    return name


def resources(field: Located) -> dict[str, Any]:
    """The amounts by resource name, for all roles or by role.

    :raises JobFileError: a role or a name is unknown, or Ray does not accept an amount.
    """
    if not isinstance(field.value, dict):
        raise field.error(f"must be a mapping, not {field.kind}", "write, for example, {CPU: 4, GPU: 1, memory_gib: 8}")
    if _ROLES.keys().isdisjoint(field.value):
        return _amounts(field)
    found: dict[str, Any] = {}
    for name, item in field.value.items():
        if name not in _ROLES:
            raise item.error("is not a role, and the fields next to it are", did_you_mean(name, _ROLES))
        if _ROLES[name] in found:
            raise item.error(f"is the role {_ROLES[name]}, which is written twice", "keep one of them")
        found[_ROLES[name]] = _amounts(item)
    return found


def _amounts(field: Located) -> dict[str, float]:
    if not isinstance(field.value, dict):
        raise field.error(f"must be a mapping, not {field.kind}", "write, for example, {CPU: 4, GPU: 1, memory_gib: 8}")
    return {_name(name, item): _amount(name, item) for name, item in field.value.items()}


def _name(name: str, item: Located) -> str:
    if name == "TPU" or name.startswith("TPU-"):
        raise item.error("is not supported: replicas on Ray get no TPUs", "remove it, or use the backend vertex")
    right = _MISTAKEN.get(name.replace("_", "").replace("-", "").lower())
    if right is None or name == right:
        return name
    hint = f"write {right}" + (", the memory in GiB" if right == MEMORY else "")
    raise item.error("is not the name of a resource", hint)


def _amount(name: str, item: Located) -> float:
    value = item.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise item.error(f"must be a number, not {item.raw or item.kind}", "write, for example, CPU: 4")
    if value < 0:
        raise item.error(f"is {value}", "write 0 or more")
    if name != MEMORY and value > 1 and value != int(value):
        raise item.error(f"is {value}", "Ray accepts fractions only below 1: write an integer")
    if 0 < value < _LEAST:
        raise item.error(f"is {value}", f"the smallest amount that Ray distinguishes from 0 is {_LEAST}")
    return value
