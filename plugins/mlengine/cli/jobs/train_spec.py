"""Builds a spec from the flags of ``mlengine jobs train``: job file, overriding flags, packages and dataset."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.cli.options import unique
from mlengine.cli.output import say
from mlengine.core import limits
from mlengine.core.errors import (
    DatasetError,
    JobFileError,
    PackageError,
    StorageForbiddenError,
    StorageUnavailableError,
)
from mlengine.core.job_file import fields, parse, worker_pools
from mlengine.core.job_file.located import Located, from_python
from mlengine.core.layout import dataset_dir
from mlengine.core.plural import number_of
from mlengine.core.spec import Role, TrainingSpec
from mlengine.core.xcoms import DatasetXCom

if TYPE_CHECKING:
    from mlengine.storage.client import Storage

# The flag that replaces each field of a trainingInput.
_FLAGS = {
    "scaleTier": "scale_tier",
    "masterType": "master_machine_type",
    "workerType": "worker_machine_type",
    "parameterServerType": "parameter_server_machine_type",
    "workerCount": "worker_count",
    "parameterServerCount": "parameter_server_count",
    "evaluatorCount": "evaluator_count",
    "pythonModule": "module_name",
    "region": "region",
    "jobDir": "job_dir",
    "runtimeVersion": "runtime_version",
    "pythonVersion": "python_version",
    "useChiefInTfConfig": "use_chief_in_tf_config",
}
_TYPES = {
    Role.CHIEF: "masterType",
    Role.WORKER: "workerType",
    Role.PS: "parameterServerType",
}
_COUNTS = {
    Role.WORKER: "workerCount",
    Role.PS: "parameterServerCount",
    Role.EVALUATOR: "evaluatorCount",
}
# Fields that Vertex AI's format does not have.
_ML_ENGINE_ONLY = ("runtimeVersion", "useChiefInTfConfig")
_DATASET_URI = re.compile(r"(?P<bucket>gs://.+)/datasets/(?P<name>[^/]+)/(?P<version>[^/]+)")
_LOCAL_DISTRIBUTED = {"workerCount": 2, "parameterServerCount": 2}  # gcloud ml-engine local train --distributed


def spec_of(args: argparse.Namespace) -> TrainingSpec:
    """The job file, overridden by the flags. A flag replaces the field, and user args replace all args, as with gcloud.

    Flags and job file are checked together, because one may complete the other.

    :raises JobFileError: a flag or a field of the file is invalid; the error names the flag, or the file's line.
    """
    from_python(args.job, "JOB").check(limits.job_id(args.job))
    given = _given(args)
    root = parse.locate(args.config) if args.config else from_python({"trainingInput": {}}, "the command line")
    if isinstance(root.value, dict) and worker_pools.is_vertex(root.value):
        spec = _over_worker_pools(parse.load(args.config), given)
    else:
        spec = parse.load(args.config or {"trainingInput": {}}, given=given)
    if args.job_dir_arg is not None:
        spec = replace(spec, job_dir_arg=args.job_dir_arg)
    return replace(spec, labels={**spec.labels, **_labels(args.labels)})


def _given(args: argparse.Namespace) -> dict[str, Located]:
    """The values of the given flags, by field. Errors name the flag."""
    found = {
        field: from_python(value, _flag(name))
        for field, name in _FLAGS.items()
        if (value := getattr(args, name)) not in {None, ""}
    }
    if "scaleTier" in found:
        tier = str(args.scale_tier).upper().replace("-", "_")
        found["scaleTier"] = replace(found["scaleTier"], value=tier)
    if args.distributed:
        counts = {field: from_python(count, "--distributed") for field, count in _LOCAL_DISTRIBUTED.items()}
        found = {**counts, **found}
    if args.max_running_time is not None:
        seconds = args.max_running_time if args.max_running_time.endswith("s") else f"{args.max_running_time}s"
        limit = replace(from_python(seconds, "--max-running-time"), raw=args.max_running_time)
        found["scheduling"] = Located({"maxRunningTime": limit}, limit.where)
    if args.user_args:
        found["args"] = from_python(list(args.user_args), "--")
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _over_worker_pools(spec: TrainingSpec, given: Mapping[str, Located]) -> TrainingSpec:
    """A job file in Vertex AI's format, overridden by the flags.

    :raises JobFileError: a flag is invalid, or has no meaning in this format.
    """
    for field in _ML_ENGINE_ONLY:
        if field in given:
            raise given[field].error("does not apply to a job file with workerPoolSpecs", "remove the flag")
    counts = {role: given[field].integer(limits.replica_count) for role, field in _COUNTS.items() if field in given}
    args = given.get("args")
    module = given.get("pythonModule")
    spec = parse.override(
        spec,
        args=fields.args(args) if args else None,
        module=fields.module(module) if module else None,
        region=given["region"].text() if "region" in given else None,
        scale_tier=given["scaleTier"].text() if "scaleTier" in given else None,
        counts=counts or None,
    )
    types = {role: fields.machine_type(given[field]) for role, field in _TYPES.items() if field in given}
    for role in types:
        if spec.pool(role) is None:
            raise given[_TYPES[role]].error(
                f"is given, but the cluster has no {role.value}", "also set the number of replicas"
            )
    more: dict[str, Any] = {
        "pools": tuple(replace(pool, machine_type=types.get(pool.role, pool.machine_type)) for pool in spec.pools)
    }
    if "jobDir" in given:
        more["job_dir"] = fields.gs_uri(given["jobDir"])
    if "pythonVersion" in given:
        more["python_version"] = given["pythonVersion"].version()
    if "scheduling" in given:
        more["max_running_seconds"] = given["scheduling"].value["maxRunningTime"].seconds() or None
    return replace(spec, **more)


def packages(
    args: argparse.Namespace, spec: TrainingSpec, storage: Storage, staging: str, python: str | None = None
) -> tuple[TrainingSpec, dict[str, Any]]:
    """The spec with the URIs of its packages, and the recorded properties of the package, such as the trainer's scorer.

    A dry run also builds and checks the packages, but uploads nothing.

    :param python: the trainer's Python version, if it is known.
    :raises PackageError: there is no trainer, or more than one.
    """
    sources: list[Path | str] = [item if item.startswith("gs://") else Path(item) for item in _items(args.packages)]
    if args.package_path:
        sources.insert(0, args.package_path)
    parse.check(spec)
    if not sources:
        if not spec.package_uris and not spec.pools[0].image_uri:
            raise PackageError(
                "no trainer", hint="pass --package-path DIR or --packages, or set packageUris in --config"
            )
        _check_module(args, spec, storage)
        return spec, {}
    from mlengine.packaging.publish import package_trainer

    packaged = package_trainer(
        sources, storage=storage, staging=staging, module=spec.module or None, dry_run=args.dry_run, python=python
    )
    state = "unchanged" if packaged.reused else number_of(packaged.files, "file")
    lines = [f"package {packaged.name} {packaged.version}, {state}: {packaged.uris[0]}"]
    lines += [f"  note: {note}" for note in packaged.notes]
    lines += [f"  excluded: {left.path} ({left.reason})" for left in packaged.left_out]
    for line in lines:
        say(f"# {line}" if args.dry_run else line)  # the output of a dry run is YAML
    inputs = {"package": dict(packaged.to_json())} if packaged.scorer else {}
    return parse.override(spec, package_uris=packaged.uris), inputs


def dataset_of(given: str | None, storage: Storage, bucket: str) -> DatasetXCom | None:
    """The dataset version of ``--dataset``, as the dataset task of a DAG returns it; ``None`` if it is not given.

    :param given: ``NAME``, ``NAME@VERSION``, or ``gs://BUCKET/datasets/NAME/VERSION``.
    :param bucket: the bucket in which NAME is searched.
    :raises DatasetError: there is no such version; the hint lists those that exist.
    """
    if not given:
        return None
    from mlengine.datasets.catalog import load_manifest, resolve

    name, versioned, version = given.partition("@")
    if given.startswith("gs://"):
        bucket, name, version = _dataset_version(given)
    elif not versioned:
        version = resolve(storage, bucket, name)
    manifest = load_manifest(storage, bucket, name, version)
    uri = dataset_dir(bucket, name, manifest.version)
    rows = manifest.train.rows
    return {"dataset": name, "version": manifest.version, "uri": uri, "digest": manifest.digest, "rows": rows}


def _dataset_version(uri: str) -> tuple[str, str, str]:
    """The bucket, name and version in ``gs://BUCKET/datasets/NAME/VERSION``.

    :raises DatasetError: ``uri`` is not the URI of a dataset version.
    """
    match = _DATASET_URI.fullmatch(uri.rstrip("/"))
    if match is None:
        raise DatasetError(
            f"--dataset: not the URI of a dataset version: {uri}", hint="write gs://BUCKET/datasets/NAME/VERSION"
        )
    return match["bucket"], match["name"], match["version"]


def _check_module(args: argparse.Namespace, spec: TrainingSpec, storage: Storage) -> None:
    """Check that the packages in the bucket contain the module.

    :raises PackageError: the packages do not contain the module.
    :raises StorageError: the packages cannot be read; in a dry run, only if they do not exist.
    """
    from mlengine.packaging.job_module import check_job_module

    try:
        check_job_module(spec, storage, unique("--set", args.set))
    except (StorageForbiddenError, StorageUnavailableError) as error:
        if not args.dry_run:
            raise
        say(f"# module {spec.module} was not checked, because the packages cannot be read: {error.message}")


def _labels(text: str | None) -> Mapping[str, str]:
    """The labels in ``KEY=VALUE,…``.

    :raises JobFileError: the text has another form, or the labels are invalid.
    """
    labels: dict[str, str] = {}
    for item in _items(text):
        name, equals, value = item.partition("=")
        if not equals or name in labels:
            what = "is given twice" if equals else "has no value"
            raise JobFileError(f"--labels: {name!r} {what}", hint="write KEY=VALUE,KEY=VALUE; a value may be empty")
        labels[name] = value
    return fields.labels(from_python(labels, "--labels"))


def _items(text: str | None) -> list[str]:
    return [item for item in re.split(r",\s*", text) if item] if text else []
