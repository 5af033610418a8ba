"""Merges fields from the command line into those of a job file, so that both are checked together.

``gcloud`` sent flags and file as one request, which the service checked as a whole: ``--scale-tier custom`` is valid if
the file has the machine types, and vice versa. A field from the command line replaces the file's whole field.

Unlike in gcloud, machine types and counts may be combined with any tier. The cluster is then a ``CUSTOM`` one, with the
tier's machines and counts where the command line has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlengine.core.job_file.located import Located, from_python
from mlengine.core.job_file.tiers import CUSTOM, TIERS
from mlengine.core.spec import Pool, Role

# The prefix of each role's field names.
PREFIXES = {Role.CHIEF: "master", Role.WORKER: "worker", Role.PS: "parameterServer", Role.EVALUATOR: "evaluator"}
# The fields that only a CUSTOM cluster may have.
SHAPE = (
    *("masterType", "workerType", "workerCount", "parameterServerType", "parameterServerCount"),
    *("evaluatorType", "evaluatorCount"),
)
Fields = dict[str, Located]


def merge(fields: Mapping[str, Located], given: Mapping[str, Located]) -> Fields:
    """The fields of a ``trainingInput``, overridden by those in ``given``. Their values are not checked.

    :raises JobFileError: a machine type is given for a role that the cluster does not have, or the master has no
        machine type.
    """
    merged = {**fields, **given}
    if "scheduling" in fields and "scheduling" in given:
        merged["scheduling"] = _scheduling(fields["scheduling"], given["scheduling"])
    if "scaleTier" in given and given["scaleTier"].value != CUSTOM:
        # A tier from the command line defines its own machines and counts.
        merged = {name: item for name, item in merged.items() if name not in SHAPE or name in given}
    if not given.keys().isdisjoint(SHAPE):
        merged = _custom(merged, _base(fields, given), given)
    if "scaleTier" in given and merged["scaleTier"].value == CUSTOM and "masterType" not in merged:
        raise given["scaleTier"].error(
            "is CUSTOM, and there is no machine type for the master", "add --master-machine-type n1-standard-4"
        )
    return merged


def _scheduling(field: Located, given: Located) -> Located:
    """The file's scheduling with the given limits replaced and the others kept."""
    if not isinstance(field.value, dict):
        return field
    limits = {name: item for name, item in field.value.items() if name.replace("_", "").lower() != "maxrunningtime"}
    return replace(field, value={**limits, **given.value})


def _base(fields: Mapping[str, Located], given: Mapping[str, Located]) -> tuple[Pool, ...]:
    """The pools of the scale tier that the given fields change; empty if the cluster is not a tier's."""
    default = () if "scaleTier" in given else ("BASIC",)
    named = [item.value for item in (given.get("scaleTier"), fields.get("scaleTier")) if item is not None]
    for tier in (*named, *default):
        if tier != CUSTOM or "scaleTier" not in given:
            return TIERS.get(str(tier), ())
    return ()


def _custom(merged: Fields, base: tuple[Pool, ...], given: Mapping[str, Located]) -> Fields:
    """A ``CUSTOM`` cluster. Machines and counts come from ``given``, else from the file, else from ``base``."""
    origin = merged.get("scaleTier") or next(iter(given.values()))
    custom = dict(merged)
    for pool in base:
        for name, value in _fields_of(pool).items():
            custom.setdefault(name, replace(from_python(value, origin.where), path=name))
        _keep_accelerator(custom, pool, origin)
    if base:
        custom["scaleTier"] = replace(origin, value=CUSTOM)
    for role, prefix in PREFIXES.items():
        kind, count = f"{prefix}Type", custom.get(f"{prefix}Count")
        if role is Role.CHIEF:
            continue
        if kind in given and (count is None or count.value in {0, "0"}):
            raise given[kind].error(f"is given, and the cluster has no {role.value}", "give their number, too")
        if count is not None and "masterType" in custom:
            # A role that the cluster did not have gets the chief's machine type.
            custom.setdefault(kind, custom["masterType"])
    return custom


def _fields_of(pool: Pool) -> dict[str, str | int | None]:
    prefix = PREFIXES[pool.role]
    counts = {} if pool.role is Role.CHIEF else {f"{prefix}Count": pool.count}
    return {f"{prefix}Type": pool.machine_type, **counts}


def _keep_accelerator(custom: Fields, pool: Pool, origin: Located) -> None:
    if not pool.accelerator_type:
        return
    name = f"{PREFIXES[pool.role]}Config"
    config = custom.get(name, Located({}, origin.where, name))
    accelerator = {"acceleratorConfig": {"type": pool.accelerator_type, "count": pool.accelerator_count}}
    if isinstance(config.value, dict):
        custom[name] = replace(config, value={**from_python(accelerator, origin.where).value, **config.value})
