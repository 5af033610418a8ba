"""Fields that a command line gives, over those of a job file, so that both are checked together.

``gcloud`` sent flags and file as one request, and the service checked that: ``--scale-tier custom`` is complete if the
file has the machine types, and the other way round. A field that is given replaces the file's whole field.

Beyond what gcloud did, machine types and counts may be given with any tier: the cluster is then a ``CUSTOM`` one, with
the tier's machines for all that is not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlengine.core.job_file.located import Located, from_python
from mlengine.core.job_file.tiers import CUSTOM, TIERS
from mlengine.core.spec import Pool, Role

# The role, and how the names of its fields begin.
PREFIXES = {Role.CHIEF: "master", Role.WORKER: "worker", Role.PS: "parameterServer", Role.EVALUATOR: "evaluator"}
# The fields that only a CUSTOM cluster may have.
SHAPE = (
    *("masterType", "workerType", "workerCount", "parameterServerType", "parameterServerCount"),
    *("evaluatorType", "evaluatorCount"),
)
Fields = dict[str, Located]


def merge(fields: Mapping[str, Located], given: Mapping[str, Located]) -> Fields:
    """The fields of a ``trainingInput`` with those ``given`` over them. Does not check their values.

    :raises JobFileError: a machine type is given for a role that the cluster does not have, or the master has none.
    """
    merged = {**fields, **given}
    if "scheduling" in fields and "scheduling" in given:
        merged["scheduling"] = _scheduling(fields["scheduling"], given["scheduling"])
    if "scaleTier" in given and given["scaleTier"].value != CUSTOM:
        # A tier that is given brings its own machines and counts.
        merged = {name: item for name, item in merged.items() if name not in SHAPE or name in given}
    if not given.keys().isdisjoint(SHAPE):
        merged = _custom(merged, _base(fields, given), given)
    if "scaleTier" in given and merged["scaleTier"].value == CUSTOM and "masterType" not in merged:
        raise given["scaleTier"].error(
            "is CUSTOM, and there is no machine type for the master", "add --master-machine-type n1-standard-4"
        )
    return merged


def _scheduling(field: Located, given: Located) -> Located:
    """One limit is given, the others stay."""
    if not isinstance(field.value, dict):
        return field
    limits = {name: item for name, item in field.value.items() if name.replace("_", "").lower() != "maxrunningtime"}
    return replace(field, value={**limits, **given.value})


def _base(fields: Mapping[str, Located], given: Mapping[str, Located]) -> tuple[Pool, ...]:
    """The cluster that is changed, if it is a tier's."""
    default = () if "scaleTier" in given else ("BASIC",)
    named = [item.value for item in (given.get("scaleTier"), fields.get("scaleTier")) if item is not None]
    for tier in (*named, *default):
        if tier != CUSTOM or "scaleTier" not in given:
            return TIERS.get(str(tier), ())
    return ()


def _custom(merged: Fields, base: tuple[Pool, ...], given: Mapping[str, Located]) -> Fields:
    """A ``CUSTOM`` cluster of the given machines and counts, then the file's, then those of ``base``."""
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
            # A role that is new runs on the chief's machine type.
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
