"""Converts ML Engine's job format, ``trainingInput:``, to a :class:`TrainingSpec`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlengine.core import limits
from mlengine.core.job_file import fields as jobfields
from mlengine.core.job_file.located import Located, camel, did_you_mean, from_python
from mlengine.core.job_file.merge import PREFIXES, SHAPE, merge
from mlengine.core.job_file.tiers import CUSTOM, TIER_NAMES, TIERS
from mlengine.core.spec import Pool, Role, TrainingSpec

MIN_WAIT_SECONDS = 1800

_CONFIGS = tuple(f"{prefix}Config" for prefix in PREFIXES.values())
_PASSED_ON: Mapping[str, Callable[[Located], Any]] = {
    "network": Located.text,
    "serviceAccount": Located.text,
    "enableWebAccess": Located.flag,
    "encryptionConfig": jobfields.encryption,
}
_REFUSED = {
    "hyperparameters": "train with fixed args instead: one DAG run is one trial",
    "nasJobSpec": "remove it; architecture search ended with its service",
}
PLAIN = ("pythonModule", "packageUris", "args", "region", "jobDir", "runtimeVersion", "pythonVersion")
_SIBLINGS = ("labels", "ray", "jobId", "job_id")
_VERSIONS = ("runtimeVersion", "pythonVersion")
_OTHER = ("scaleTier", "scheduling", "useChiefInTfConfig")
FIELDS = (*PLAIN, *_OTHER, *SHAPE, *_CONFIGS, *_PASSED_ON, *_REFUSED)
_CONFIG_FIELDS = ("imageUri", "acceleratorConfig", "containerArgs", "containerCommand", "diskConfig", "tpuTfVersion")
_SCHEDULING = ("maxRunningTime", "maxWaitTime", "priority", "resilientToWorkerRestart", "strategy")


def read(root: Located, given: Mapping[str, Located]) -> TrainingSpec:
    """Read the fields of ``root``, overridden by those in ``given``.

    :raises JobFileError: the input is invalid; the error has the line and a hint.
    """
    root.check_siblings("trainingInput", _SIBLINGS)
    fields = merge(root.fields(FIELDS), given)
    for refused, hint in _REFUSED.items():
        if refused in fields:
            raise fields[refused].error("is not supported", hint)
    name = tier(fields["scaleTier"]) if "scaleTier" in fields else "BASIC"
    pools = _custom_pools(fields) if name == CUSTOM else _tier_pools(name, fields)
    found = {"module": "", **plain(fields)}
    _check_containers(fields, pools)
    own_args = None if "args" in given else _chief_args(fields)
    if own_args is not None:
        found["args"] = own_args
    return TrainingSpec(
        **found,
        pools=pools,
        primary_name=_primary_name(fields, pools[0]),
        single_replica_tf_config=True,
        scale_tier=name,
        source={key: item.version() if key in _VERSIONS else camel(item.plain()) for key, item in fields.items()},
        **_limits(fields.get("scheduling")),
    )


def plain(fields: Mapping[str, Located]) -> dict[str, Any]:
    """The fields with a single value, by the spec's field names."""
    readers = {
        "pythonModule": ("module", jobfields.module),
        "packageUris": ("package_uris", jobfields.package_uris),
        "args": ("args", jobfields.args),
        "region": ("region", Located.text),
        "jobDir": ("job_dir", jobfields.gs_uri),
        "runtimeVersion": ("runtime_version", Located.version),
        "pythonVersion": ("python_version", Located.version),
    }
    return {readers[name][0]: readers[name][1](item) for name, item in fields.items() if name in readers}


def container_command(source: Mapping[str, Any], role: Role) -> list[str]:
    """The command of a role's container. A role that runs the chief's image runs the chief's command, too.

    :param source: the fields of a ``trainingInput``, in camelCase.
    """
    own, chief = (source.get(f"{PREFIXES[of]}Config") or {} for of in (role, Role.CHIEF))
    command = own.get("containerCommand")
    if not command and "imageUri" not in own:
        command = chief.get("containerCommand")
    return list(command or ())


def tier(field: Located) -> str:
    name = field.text()
    if name not in TIER_NAMES:
        raise field.error(f"is not a scale tier: {name!r}", did_you_mean(name, TIER_NAMES))
    return name


def _tier_pools(tier: str, fields: Mapping[str, Located]) -> tuple[Pool, ...]:
    """The pools of a job. A tier defines machines and counts; a file that names its own is treated as CUSTOM."""
    own = next((fields[name] for name in SHAPE if name in fields), None)
    if own is not None:
        raise own.error(
            f"is only for scaleTier: CUSTOM, and the tier is {tier}", "write 'scaleTier: CUSTOM', or remove it"
        )
    pools = []
    for pool in TIERS[tier]:
        config = _config(fields.get(f"{PREFIXES[pool.role]}Config"))
        if config.get("accelerator_type"):
            raise fields[f"{PREFIXES[pool.role]}Config"].error(
                f"adds accelerators, and the tier is {tier}", "write 'scaleTier: CUSTOM' and masterType"
            )
        pools.append(replace(pool, image_uri=config.get("image_uri")))
    return _with_chiefs_image(pools)


def _custom_pools(fields: Mapping[str, Located]) -> tuple[Pool, ...]:
    if "masterType" not in fields:
        place = fields["scaleTier"]
        raise place.error(
            "is CUSTOM, and there is no masterType", "add 'masterType: n1-standard-4', or another machine"
        )
    pools = []
    for role, prefix in PREFIXES.items():
        number = fields.get(f"{prefix}Count") if role is not Role.CHIEF else None
        count = number.integer(limits.replica_count) if number else int(role is Role.CHIEF)
        kind = fields.get(f"{prefix}Type")
        if number and count and kind is None:
            raise number.error(f"is {count}, and there is no {prefix}Type", f"add '{prefix}Type: n1-standard-4'")
        machine = jobfields.machine_type(kind) if kind else None
        config = _config(fields.get(f"{prefix}Config"))
        if count:
            pools.append(Pool(role, count, machine, **config))
    return _with_chiefs_image(pools)


def idle_pools(source: Mapping[str, Any], chief: Pool) -> tuple[Pool, ...]:
    """The pools that a job file describes, but to which it gives no replicas.

    :param source: the fields of a ``trainingInput``, in camelCase.
    :param chief: the pool whose machine type and image a pool without its own has.
    """
    fields = from_python(source, "job file").fields(FIELDS)
    pools = []
    for role, prefix in PREFIXES.items():
        kind, count, config = (fields.get(f"{prefix}{what}") for what in ("Type", "Count", "Config"))
        described = kind is not None or config is not None
        if described and role is not Role.CHIEF and not (count and count.integer(limits.replica_count)):
            machine = jobfields.machine_type(kind) if kind else chief.machine_type
            pools.append(Pool(role, 0, machine, **_config(config)))
    return _with_chiefs_image((chief, *pools))[1:]


def _with_chiefs_image(pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """The pools with the chief's image for each role without its own image, as on ML Engine."""
    return tuple(replace(pool, image_uri=pool.image_uri or pools[0].image_uri) for pool in pools)


def _config(field: Located | None) -> dict[str, Any]:
    if field is None:
        return {}
    fields = field.fields(_CONFIG_FIELDS)
    found: dict[str, Any] = {}
    if "imageUri" in fields:
        found["image_uri"] = jobfields.image(fields["imageUri"])
    if "acceleratorConfig" in fields:
        pair = fields["acceleratorConfig"].fields(("type", "count"))
        found["accelerator_type"], found["accelerator_count"] = jobfields.accelerator(
            pair.get("type"), pair.get("count")
        )
    return found


def _chief_args(fields: Mapping[str, Located]) -> tuple[str, ...] | None:
    """The chief's ``containerArgs``, which are the arguments of a container as ``args`` are those of a module."""
    config = fields["masterConfig"].fields(_CONFIG_FIELDS) if "masterConfig" in fields else {}
    if "containerArgs" not in config:
        return None
    if "args" in fields:
        raise config["containerArgs"].error(
            "is given as well as args", "keep one: containerArgs with an image's own command, args with pythonModule"
        )
    return jobfields.args(config["containerArgs"])


def _check_containers(fields: Mapping[str, Located], pools: Sequence[Pool]) -> None:
    """Check the fields that are passed on to the service unchanged.

    :raises JobFileError: a field has the wrong type, or a container has a command but no image.
    """
    images = {pool.role: pool.image_uri for pool in pools}
    for name, reader in _PASSED_ON.items():
        if name in fields:
            reader(fields[name])
    for role, prefix in PREFIXES.items():
        field = fields.get(f"{prefix}Config")
        config = field.fields(_CONFIG_FIELDS) if field is not None else {}
        for name in ("containerCommand", "containerArgs"):
            if name in config:
                jobfields.args(config[name])
                if role in images and not images[role]:
                    raise config[name].error("is given without an image", "add imageUri, or use pythonModule and args")
        if "diskConfig" in config:
            jobfields.disk(config["diskConfig"])


def _primary_name(fields: Mapping[str, Located], chief: Pool) -> str:
    """The chief's name in ``TF_CONFIG``, from ``useChiefInTfConfig``.

    Without that field, it is ``master`` for runtimes up to 2.0, for images, and if no runtime is given.

    ML Engine's default was its oldest runtime, so a job file without ``runtimeVersion`` means ``master``.
    """
    if chief.image_uri and "runtimeVersion" in fields:
        raise fields["runtimeVersion"].error("is given as well as an image", "keep one: the image has its own runtime")
    runtime = _runtime(fields["runtimeVersion"]) if "runtimeVersion" in fields else (1, 0)
    if "useChiefInTfConfig" in fields:
        return "chief" if fields["useChiefInTfConfig"].flag() else "master"
    return "master" if runtime <= (2, 0) else "chief"


def _runtime(field: Located) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)(\..*)?", field.version())
    if match is None:
        raise field.error(f"is not a version: {field.raw!r}", 'for example "2.11"')
    return int(match[1]), int(match[2])


def _limits(field: Located | None) -> dict[str, Any]:
    if field is None:
        return {}
    fields = field.fields(_SCHEDULING)
    found = {}
    if "maxRunningTime" in fields:
        found["max_running_seconds"] = fields["maxRunningTime"].seconds()
        if not found["max_running_seconds"]:
            raise fields["maxRunningTime"].error("leaves no time to train", 'for example "7200s"')
    if "maxWaitTime" in fields:
        found["max_wait_seconds"] = fields["maxWaitTime"].seconds()
        if found["max_wait_seconds"] < MIN_WAIT_SECONDS:
            raise fields["maxWaitTime"].error(
                f"is {fields['maxWaitTime'].raw}", f'"{MIN_WAIT_SECONDS}s" is the least the service takes'
            )
    if "strategy" in fields:
        jobfields.strategy(fields["strategy"])
    if "resilientToWorkerRestart" in fields:
        fields["resilientToWorkerRestart"].flag()
    if "priority" in fields:
        fields["priority"].integer(limits.priority)
    return found
