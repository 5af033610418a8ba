"""From the flags of ``mlengine train`` to a spec: the job file, the flags over it, the packages in it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.cli import say
from mlengine.core.errors import JobFileError, PackageError
from mlengine.core.job_file import parse
from mlengine.core.spec import Role, TrainingSpec

if TYPE_CHECKING:
    from mlengine.storage.client import Storage

_TYPES = {
    Role.CHIEF: "master_machine_type",
    Role.WORKER: "worker_machine_type",
    Role.PS: "parameter_server_machine_type",
}
_COUNTS = {
    Role.WORKER: "worker_count",
    Role.PS: "parameter_server_count",
    Role.EVALUATOR: "evaluator_count",
}
_LOCAL_DISTRIBUTED = {Role.WORKER: 2, Role.PS: 2}  # gcloud ml-engine local train --distributed


def spec_of(args: argparse.Namespace) -> TrainingSpec:
    """The job file with the flags over it; a flag replaces its whole field, user args all args, as gcloud's did.

    :raises JobFileError: for what a job file may not say.
    """
    _check_job_id(args.job)
    flags: dict[str, Any] = {
        "scaleTier": args.scale_tier and args.scale_tier.upper().replace("-", "_"),
        "pythonModule": args.module_name,
        "region": args.region,
        "runtimeVersion": args.runtime_version,
        "pythonVersion": args.python_version,
        "args": list(args.user_args) if args.user_args else None,
    }
    if args.max_running_time:
        flags["scheduling"] = {"maxRunningTime": f"{args.max_running_time.rstrip('s')}s"}
    # What flags say is read by the rules of the job file, with its errors.
    given = parse.load({"trainingInput": {key: value for key, value in flags.items() if value}}, name="the flags")
    spec = parse.load(args.config) if args.config else given
    if args.config:
        spec = parse.override(
            spec,
            args=args.user_args or None,
            module=args.module_name,
            region=args.region,
            scale_tier=flags["scaleTier"],
        )
        spec = replace(
            spec,
            runtime_version=given.runtime_version or spec.runtime_version,
            primary_name=given.primary_name if args.runtime_version else spec.primary_name,
            python_version=given.python_version or spec.python_version,
            max_running_seconds=given.max_running_seconds or spec.max_running_seconds,
        )
    spec = _with_cluster(args, spec)
    return replace(spec, labels={**spec.labels, **_labels(args.labels)})


def packages(args: argparse.Namespace, spec: TrainingSpec, storage: Storage, staging: str) -> TrainingSpec:
    """The spec with its packages in the bucket. A dry run builds and checks them too, and uploads nothing.

    :raises PackageError: if there is nothing to run, or two sources of it.
    """
    sources: list[Path | str] = [item if item.startswith("gs://") else Path(item) for item in _items(args.packages)]
    if args.package_path:
        sources.insert(0, args.package_path)
    if not sources:
        parse.check(spec)
        if not spec.package_uris and not spec.pools[0].image_uri:
            raise PackageError("no trainer", remedy="give --package-path DIR, --packages, or packageUris in --config")
        return spec
    parse.check(spec)
    from mlengine.packaging.publish import package_trainer

    packaged = package_trainer(
        sources, storage=storage, staging=staging, module=spec.module or None, dry_run=args.dry_run
    )
    state = "unchanged" if packaged.reused else f"{packaged.files} files"
    lines = [f"package {packaged.name} {packaged.version}, {state}: {packaged.uris[0]}"]
    lines += [f"  note: {note}" for note in packaged.notes]
    lines += [f"  left out: {left.path} ({left.reason})" for left in packaged.left_out]
    for line in lines:
        say(f"# {line}" if args.dry_run else line)  # a dry run prints YAML
    return parse.override(spec, package_uris=packaged.uris)


def _check_job_id(job: str) -> None:
    parse.load({"jobId": job, "trainingInput": {}}, name="JOB")


def _with_cluster(args: argparse.Namespace, spec: TrainingSpec) -> TrainingSpec:
    counts = {role: getattr(args, flag) for role, flag in _COUNTS.items() if getattr(args, flag) is not None}
    if args.distributed:
        counts = {**_LOCAL_DISTRIBUTED, **counts}
    if any(count < 0 for count in counts.values()):
        raise JobFileError("a count is negative", remedy="give 0 or more")
    if counts:
        # A cluster by flags is a CUSTOM one; the tier's machines stay.
        tier = None if args.scale_tier else "CUSTOM"
        spec = parse.override(spec, scale_tier=tier, counts=counts)
    types = {role: getattr(args, flag) for role, flag in _TYPES.items() if getattr(args, flag)}
    pools = tuple(replace(pool, machine_type=types.get(pool.role, pool.machine_type)) for pool in spec.pools)
    return replace(spec, pools=pools)


def _labels(text: str | None) -> Mapping[str, str]:
    pairs = [item.partition("=") for item in _items(text)]
    labels = {name: value for name, _, value in pairs}
    return parse.load({"labels": labels, "trainingInput": {}}, name="--labels").labels


def _items(text: str | None) -> list[str]:
    return [item for item in re.split(r",\s*", text) if item] if text else []
