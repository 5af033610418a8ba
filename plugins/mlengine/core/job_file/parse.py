"""Converts a job file, in ML Engine's YAML format or Vertex AI's, to a :class:`TrainingSpec`.

``trainingInput:`` is read in :mod:`~mlengine.core.job_file.training_input`, ``workerPoolSpecs:`` in
:mod:`~mlengine.core.job_file.worker_pools`, ``ray:`` in :mod:`~mlengine.core.job_file.ray_section`. Errors are raised
before money is spent, with ``file:line``, the field, and a hint. Fields that only the service understands
(``network``, ``diskConfig``, …) are checked by name and passed on in ``TrainingSpec.source``.

Hyperparameter tuning is not supported. ``jobId`` is checked but not used: a job's id is derived from its DAG run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlengine.core import limits
from mlengine.core.errors import JobFileError
from mlengine.core.job_file import fields as jobfields
from mlengine.core.job_file import ray_section, training_input, worker_pools
from mlengine.core.job_file.json_text import from_json
from mlengine.core.job_file.located import MAX_CHARACTERS, Located, from_python, from_yaml
from mlengine.core.job_file.merge import PREFIXES, SHAPE
from mlengine.core.job_file.tiers import CUSTOM, TIERS
from mlengine.core.spec import Pool, Role, TrainingSpec


def load(
    source: str | Path | Mapping[str, Any],
    *,
    name: str | None = None,
    given: Mapping[str, Located] | None = None,
) -> TrainingSpec:
    """Read a job file.

    :param source: a path, the content itself (a string with a line break, ``: `` or ``{`` in it), or plain data.
    :param name: the file's name in error messages; by default the path, or ``job file``.
    :param given: fields of a ``trainingInput`` that replace the file's (:mod:`~mlengine.core.job_file.merge`).
    :raises JobFileError: the job file is invalid. A missing module is not an error yet, because :func:`override` may
        add it; call :func:`check` when the spec is complete.
    """
    return _read(locate(source, name=name), given or {})


def locate(source: str | Path | Mapping[str, Any], *, name: str | None = None) -> Located:
    """The content of a job file with its lines. The fields are not checked yet.

    :param source: see :func:`load`.
    :raises JobFileError: the job file cannot be read.
    """
    if isinstance(source, Mapping):
        return from_python(source, name or "job file")
    if isinstance(source, str) and (not source or re.search(r"[\n{]|:(\s|$)", source)):
        return _from_text(source, name or "job file")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise JobFileError(
            f"{path}: the job file cannot be read: {error}", hint="correct its path, or save it as UTF-8 text"
        ) from error
    return _from_text(text, name or str(path))


def _from_text(text: str, name: str) -> Located:
    """Parse text as JSON if it is JSON, else as YAML.

    :raises JobFileError: the text is neither.
    """
    if not text.lstrip().startswith("{") or len(text) > MAX_CHARACTERS:
        return from_yaml(text, name)
    try:
        return from_json(text, name)
    except RecursionError as error:
        raise JobFileError(f"{name}: nested too deep", hint="write it flat: a job file is four levels deep") from error
    except ValueError as error:
        try:
            return from_yaml(text, name)
        except JobFileError:
            if not re.match(r'\s*\{\s*["}]', text) or not isinstance(error, json.JSONDecodeError):
                raise
            raise JobFileError(
                f"{name}:{error.lineno}: not JSON: {error.msg}", hint="check commas, quotes and brackets before it"
            ) from error


def check(spec: TrainingSpec) -> TrainingSpec:
    """Return ``spec`` if it names something to run: a module, or an image with its own command.

    :raises JobFileError: the spec has neither.
    """
    if not spec.module and not spec.pools[0].image_uri:
        raise JobFileError(
            "the job has no module to run",
            hint="write 'pythonModule: trainer.task' in the job file, or give the operator module='trainer.task'",
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
    """Replace fields of a spec. As with gcloud's flags, a value replaces the whole field: ``args`` replace all args.

    :param scale_tier: the tier whose cluster to use. Each role keeps its image. ``CUSTOM`` keeps the whole cluster, so
        that ``counts`` can change it.
    :param counts: the number of replicas of each role, which makes a tier CUSTOM. A new role gets the machine type and
        the image that the file has for it, or else the chief's.
    :raises JobFileError: a value is not valid in a job file either, or the resulting spec has no module
        (:func:`check`).
    """
    given: dict[str, Any] = {"args": args, "pythonModule": module, "region": region, "packageUris": package_uris}
    given = {key: item if isinstance(item, str) else list(item) for key, item in given.items() if item is not None}
    changed = replace(spec, **training_input.plain(from_python(given, "override").fields(training_input.PLAIN)))
    idle = () if scale_tier is None and counts is None else _idle_pools(spec)
    if scale_tier is not None:
        tier = training_input.tier(from_python(scale_tier, "override", "scaleTier"))
        changed = replace(
            changed,
            scale_tier=tier,
            pools=spec.pools if tier == CUSTOM else _tier_pools(tier, (*spec.pools, *idle)),
        )
        if tier != CUSTOM:  # the tier's machines, with the images of the file
            like = replace(changed.pools[0], count=0, accelerator_type=None, accelerator_count=0)
            idle = tuple(replace(like, role=pool.role, image_uri=pool.image_uri) for pool in idle)
    if counts is not None:
        known = {pool.role for pool in changed.pools}
        pools = (*changed.pools, *(pool for pool in idle if pool.role not in known))
        changed = replace(replace(changed, pools=pools).with_counts(counts), scale_tier=changed.scale_tier and CUSTOM)
    check(changed)
    if worker_pools.is_vertex(spec.source):
        return changed
    shape = _shape(changed) if scale_tier is not None or counts is not None else {}
    kept = {key: item for key, item in spec.source.items() if not shape or key not in SHAPE}
    return replace(changed, source={**kept, **given, **shape})


def _read(root: Located, given: Mapping[str, Located]) -> TrainingSpec:
    if isinstance(root.value, dict):
        if worker_pools.is_vertex(root.value):
            return worker_pools.read(root)
        for key, item in root.value.items():
            if key in training_input.FIELDS:
                raise item.error("is at the top of the file", f"indent it below a line 'trainingInput:', with {key}")
    fields = root.fields(("jobId", "labels", "ray", "trainingInput"))
    if "jobId" in fields:
        fields["jobId"].check(limits.job_id(fields["jobId"].text()))
    if "trainingInput" not in fields:
        raise root.error(
            "has neither trainingInput nor workerPoolSpecs", "begin with 'trainingInput:': docs/job-file.md"
        )
    spec = training_input.read(fields["trainingInput"], given)
    if "ray" in fields:
        spec = replace(spec, ray=ray_section.read(fields["ray"]))
    return replace(spec, labels=jobfields.labels(fields["labels"])) if "labels" in fields else spec


def _idle_pools(spec: TrainingSpec) -> tuple[Pool, ...]:
    """The pools that the job file describes, but to which it gives no replicas."""
    if worker_pools.is_vertex(spec.source):
        return worker_pools.idle_pools(spec.source)
    return training_input.idle_pools(spec.source, spec.pools[0])


def _tier_pools(tier: str, pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """The machines of a tier with the images of ``pools``. A role that is not in ``pools`` gets the chief's image."""
    images = {pool.role: pool.image_uri for pool in pools}
    return tuple(replace(pool, image_uri=images.get(pool.role, pools[0].image_uri)) for pool in TIERS[tier])


def _shape(spec: TrainingSpec) -> dict[str, Any]:
    """The fields of a ``trainingInput`` that describe the cluster of ``spec``."""
    if spec.scale_tier != CUSTOM:
        return {"scaleTier": spec.scale_tier} if spec.scale_tier else {}
    shape: dict[str, Any] = {"scaleTier": CUSTOM}
    for pool in spec.pools:
        prefix = PREFIXES[pool.role]
        if pool.machine_type:
            shape[f"{prefix}Type"] = pool.machine_type
        if pool.role is not Role.CHIEF:
            shape[f"{prefix}Count"] = str(pool.count)
    return shape
