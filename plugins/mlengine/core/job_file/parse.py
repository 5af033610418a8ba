"""The job file: YAML as ML Engine took it, or as Vertex AI takes it, to a :class:`TrainingSpec`.

``trainingInput:`` is read here, ``workerPoolSpecs:`` in :mod:`~mlengine.core.job_file.worker_pools`. Errors are
said before money is spent, with ``file:line``, the field, and the remedy. Fields that only the service understands
(``network``, ``diskConfig``, …) are checked by name and passed on in ``TrainingSpec.source``.

Does not: tune hyperparameters, and use ``jobId``, which is checked and left: a job's id is made from its DAG run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlengine.core import limits
from mlengine.core.errors import JobFileError
from mlengine.core.job_file import fields as jobfields
from mlengine.core.job_file import worker_pools
from mlengine.core.job_file.located import Located, did_you_mean, from_python, from_yaml
from mlengine.core.job_file.tiers import CUSTOM, TIER_NAMES, TIERS
from mlengine.core.spec import Pool, Role, TrainingSpec

MIN_WAIT_SECONDS = 1800

# The role, and how the names of its fields begin.
_ROLES = {
    Role.CHIEF: "master",
    Role.WORKER: "worker",
    Role.PS: "parameterServer",
    Role.EVALUATOR: "evaluator",
}
_SHAPE = (
    *("masterType", "workerType", "workerCount", "parameterServerType", "parameterServerCount"),
    *("evaluatorType", "evaluatorCount"),
)
_CONFIGS = tuple(f"{prefix}Config" for prefix in _ROLES.values())
_PASSED_ON = ("network", "serviceAccount", "enableWebAccess", "encryptionConfig")
_REFUSED = {
    "hyperparameters": "train with fixed args instead: one DAG run is one trial",
    "nasJobSpec": "remove it; architecture search ended with its service",
}
_PLAIN = ("pythonModule", "packageUris", "args", "region", "jobDir", "runtimeVersion", "pythonVersion")
_VERSIONS = ("runtimeVersion", "pythonVersion")
_OTHER = ("scaleTier", "scheduling", "useChiefInTfConfig")
_FIELDS = (*_PLAIN, *_OTHER, *_SHAPE, *_CONFIGS, *_PASSED_ON, *_REFUSED)
_CONFIG_FIELDS = ("imageUri", "acceleratorConfig", "containerArgs", "containerCommand", "diskConfig", "tpuTfVersion")
_SCHEDULING = ("maxRunningTime", "maxWaitTime", "priority", "resilientToWorkerRestart", "strategy")


def load(source: str | Path | Mapping[str, Any], *, name: str | None = None) -> TrainingSpec:
    """Read a job file.

    :param source: a path, or the text itself (whatever has a line break, ``: `` or ``{`` in it), or plain data.
    :param name: what errors call it; by default the path, or ``job file``.
    :raises JobFileError: for whatever is wrong with it. A module that is not named is not wrong yet, as it may be given
        apart (:func:`override`); ask :func:`check` when the spec is complete.
    """
    if isinstance(source, Mapping):
        return _read(from_python(source, name or "job file"))
    if isinstance(source, str) and (not source or re.search(r"[\n{]|:(\s|$)", source)):
        return _read(from_yaml(source, name or "job file"))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise JobFileError(
            f"{path}: the job file cannot be read: {error}", remedy="correct its path, or save it as UTF-8 text"
        ) from error
    return _read(from_yaml(text, name or str(path)))


def check(spec: TrainingSpec) -> TrainingSpec:
    """Return ``spec`` if there is something to run: a module, or an image with its own command.

    :raises JobFileError: if there is neither.
    """
    if not spec.module and not spec.pools[0].image_uri:
        raise JobFileError(
            "the job has no module to run",
            remedy="write 'pythonModule: trainer.task' in the job file, or give the operator module='trainer.task'",
        )
    return spec


def override(
    spec: TrainingSpec,
    *,
    args: Sequence[str] | None = None,
    module: str | None = None,
    region: str | None = None,
    scale_tier: str | None = None,
    counts: Mapping[Role, int] | None = None,
    package_uris: Sequence[str] | None = None,
) -> TrainingSpec:
    """What is given replaces the file's whole field, as gcloud's flags did: ``args`` replace all args, never append.

    :param scale_tier: that tier's cluster; ``CUSTOM`` keeps the cluster there is, for ``counts`` to change.
    :param counts: the same machines in other numbers, which makes a tier CUSTOM. A role that is new gets the chief's
        machine type and image.
    :raises JobFileError: for what a job file may not say either, and if the spec has no module then (:func:`check`).
    """
    given: dict[str, Any] = {"args": args, "pythonModule": module, "region": region, "packageUris": package_uris}
    given = {key: item if isinstance(item, str) else list(item) for key, item in given.items() if item is not None}
    changed = replace(spec, **_plain(from_python(given, "override").fields(_PLAIN)))
    if scale_tier is not None:
        tier = _tier(from_python(scale_tier, "override", "scaleTier"))
        changed = replace(changed, scale_tier=tier, pools=spec.pools if tier == CUSTOM else TIERS[tier])
    if counts is not None:
        changed = replace(changed.with_counts(counts), scale_tier=changed.scale_tier and CUSTOM)
    check(changed)
    if worker_pools.is_vertex(spec.source):
        return changed
    shape = _shape(changed) if scale_tier is not None or counts is not None else {}
    kept = {key: item for key, item in spec.source.items() if not shape or key not in _SHAPE}
    return replace(changed, source={**kept, **given, **shape})


def _read(root: Located) -> TrainingSpec:
    if isinstance(root.value, dict):
        if worker_pools.is_vertex(root.value):
            return worker_pools.read(root)
        for key, item in root.value.items():
            if key in _FIELDS:
                raise item.error("is at the top of the file", f"indent it below a line 'trainingInput:', with {key}")
    fields = root.fields(("jobId", "labels", "trainingInput"))
    if "jobId" in fields:
        fields["jobId"].check(limits.job_id(fields["jobId"].text()))
    if "trainingInput" not in fields:
        raise root.error(
            "has neither trainingInput nor workerPoolSpecs", "begin with 'trainingInput:': docs/job-file.md"
        )
    spec = _training_input(fields["trainingInput"])
    return replace(spec, labels=jobfields.labels(fields["labels"])) if "labels" in fields else spec


def _training_input(root: Located) -> TrainingSpec:
    fields = root.fields(_FIELDS)
    for name, remedy in _REFUSED.items():
        if name in fields:
            raise fields[name].error("is not supported", remedy)
    tier = _tier(fields["scaleTier"]) if "scaleTier" in fields else "BASIC"
    pools = _custom_pools(fields) if tier == CUSTOM else _tier_pools(tier, fields)
    return TrainingSpec(
        **{"module": "", **_plain(fields)},
        pools=pools,
        primary_name=_primary_name(fields, pools[0]),
        scale_tier=tier,
        source={name: item.version() if name in _VERSIONS else item.plain() for name, item in fields.items()},
        **_limits(fields.get("scheduling")),
    )


def _plain(fields: Mapping[str, Located]) -> dict[str, Any]:
    """The fields that are one value each, under the spec's names."""
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


def _tier(field: Located) -> str:
    name = field.text()
    if name not in TIER_NAMES:
        raise field.error(f"is not a scale tier: {name!r}", did_you_mean(name, TIER_NAMES))
    return name


def _tier_pools(tier: str, fields: Mapping[str, Located]) -> tuple[Pool, ...]:
    """A tier brings its machines and counts; a file that names its own means CUSTOM."""
    own = next((fields[name] for name in _SHAPE if name in fields), None)
    if own is not None:
        raise own.error(
            f"is only for scaleTier: CUSTOM, and the tier is {tier}", "write 'scaleTier: CUSTOM', or remove it"
        )
    pools = []
    for pool in TIERS[tier]:
        config = _config(fields.get(f"{_ROLES[pool.role]}Config"))
        if config.get("accelerator_type"):
            raise fields[f"{_ROLES[pool.role]}Config"].error(
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
    for role, prefix in _ROLES.items():
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


def _with_chiefs_image(pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """A role without an image of its own runs the chief's, as ML Engine had it."""
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


def _primary_name(fields: Mapping[str, Located], chief: Pool) -> str:
    """``master`` for runtimes up to 2.0 and for images of the user's own, unless asked to be ``chief``."""
    if "useChiefInTfConfig" in fields and fields["useChiefInTfConfig"].flag():
        return "chief"
    if chief.image_uri:
        if "runtimeVersion" in fields:
            raise fields["runtimeVersion"].error("stands beside an image", "keep one: the image has its own runtime")
        return "master"
    if "runtimeVersion" not in fields:
        return "chief"
    field = fields["runtimeVersion"]
    match = re.fullmatch(r"(\d+)\.(\d+)(\..*)?", field.version())
    if match is None:
        raise field.error(f"is not a version: {field.raw!r}", 'for example "2.11"')
    return "master" if (int(match[1]), int(match[2])) <= (2, 0) else "chief"


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
    if "priority" in fields:
        fields["priority"].integer(limits.priority)
    return found


def _shape(spec: TrainingSpec) -> dict[str, Any]:
    """The fields of a ``trainingInput`` that say what the cluster of ``spec`` is."""
    if spec.scale_tier != CUSTOM:
        return {"scaleTier": spec.scale_tier} if spec.scale_tier else {}
    shape: dict[str, Any] = {"scaleTier": CUSTOM}
    for pool in spec.pools:
        prefix = _ROLES[pool.role]
        if pool.machine_type:
            shape[f"{prefix}Type"] = pool.machine_type
        if pool.role is not Role.CHIEF:
            shape[f"{prefix}Count"] = str(pool.count)
    return shape
