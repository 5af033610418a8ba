"""The job file: YAML as ML Engine took it, or as Vertex AI takes it, to a :class:`TrainingSpec`.

``trainingInput:`` is read in :mod:`~mlengine.core.job_file.training_input`, ``workerPoolSpecs:`` in
:mod:`~mlengine.core.job_file.worker_pools`, ``ray:`` in :mod:`~mlengine.core.job_file.ray_section`. Errors are raised
before money is spent, with ``file:line``, the field, and a hint. Fields that only the service understands
(``network``, ``diskConfig``, …) are checked by name and passed on in ``TrainingSpec.source``.

Does not: tune hyperparameters, and use ``jobId``, which is checked and left: a job's id is made from its DAG run.
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

    :param source: a path, or the text itself (whatever has a line break, ``: `` or ``{`` in it), or plain data.
    :param name: what errors call it; by default the path, or ``job file``.
    :param given: fields of a ``trainingInput`` that replace the file's (:mod:`~mlengine.core.job_file.merge`).
    :raises JobFileError: for whatever is wrong with it. A module that is not named is not wrong yet, as it may be given
        apart (:func:`override`); ask :func:`check` when the spec is complete.
    """
    return _read(locate(source, name=name), given or {})


def locate(source: str | Path | Mapping[str, Any], *, name: str | None = None) -> Located:
    """The content of a job file with its lines, not yet checked.

    :param source: see :func:`load`.
    :raises JobFileError: it cannot be read.
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
    """JSON where it is JSON, else YAML.

    :raises JobFileError: it is neither.
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
    """Return ``spec`` if there is something to run: a module, or an image with its own command.

    :raises JobFileError: if there is neither.
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
    """What is given replaces the file's whole field, as gcloud's flags did: ``args`` replace all args, never append.

    :param scale_tier: that tier's cluster, in which each role keeps its image; ``CUSTOM`` keeps the whole cluster, for
        ``counts`` to change.
    :param counts: the same machines in other numbers, which makes a tier CUSTOM. A role that is new gets the chief's
        machine type and image.
    :raises JobFileError: for what a job file may not say either, and if the spec has no module then (:func:`check`).
    """
    given: dict[str, Any] = {"args": args, "pythonModule": module, "region": region, "packageUris": package_uris}
    given = {key: item if isinstance(item, str) else list(item) for key, item in given.items() if item is not None}
    changed = replace(spec, **training_input.plain(from_python(given, "override").fields(training_input.PLAIN)))
    if scale_tier is not None:
        tier = training_input.tier(from_python(scale_tier, "override", "scaleTier"))
        changed = replace(
            changed, scale_tier=tier, pools=spec.pools if tier == CUSTOM else _tier_pools(tier, spec.pools)
        )
    if counts is not None:
        changed = replace(changed.with_counts(counts), scale_tier=changed.scale_tier and CUSTOM)
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


def _tier_pools(tier: str, pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """The machines of a tier with the images of ``pools``; a role that they do not have runs the chief's image."""
    images = {pool.role: pool.image_uri for pool in pools}
    return tuple(replace(pool, image_uri=images.get(pool.role, pools[0].image_uri)) for pool in TIERS[tier])


def _shape(spec: TrainingSpec) -> dict[str, Any]:
    """The fields of a ``trainingInput`` that say what the cluster of ``spec`` is."""
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
