"""A digest of a training's inputs. Trainings with equal inputs give equivalent models.

The digest counts what changes the model: package, dataset, module, arguments, cluster, runtime, environment. It does
not count the location, name or limits of a job, nor the name of a dataset version with equal content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mlengine.core.spec import JOB_DIR_ARG, TrainingSpec

FORMAT = 1


def inputs_digest(spec: TrainingSpec, package: Mapping[str, Any], dataset: Mapping[str, Any]) -> str | None:
    """The digest of a training's inputs, 40 hex digits.

    Returns ``None`` if the package or the dataset has no digest, so that inputs cannot be compared.

    :param package: a mapping with ``digest``, and ``package_uris``, which are all packages of the job.
    :param dataset: a mapping with ``digest`` and ``uri``. An argument that equals this URI counts as the dataset's
        content. Other URIs among the arguments are compared as strings: their content is assumed not to change.
    """
    if not package.get("digest") or not dataset.get("digest") or not dataset.get("uri"):
        return None
    if tuple(package.get("package_uris") or spec.package_uris) != spec.package_uris:
        return None
    data = f"dataset:{dataset['digest']}"
    content = {
        "format": FORMAT,
        "package": package["digest"],
        "dataset": dataset["digest"],
        "module": spec.module,
        "args": [_content(arg, str(dataset["uri"]), data) for arg in spec.args],
        "cluster": [asdict(pool) | {"role": pool.role.value} for pool in spec.pools],
        "primary": spec.primary_name,
        "single_replica_tf_config": spec.single_replica_tf_config,
        "expand_variables": spec.expand_variables,
        "runtime": [spec.runtime_version, spec.python_version],
        "env": dict(spec.env),
    }
    if spec.job_dir_arg != JOB_DIR_ARG:  # with the default, the same digest as before this field existed
        content["job_dir_arg"] = spec.job_dir_arg
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def _content(arg: str, uri: str, data: str) -> str:
    """Replace the URI in ``--dataset gs://…/2026-11-01`` and ``--dataset=gs://…/2026-11-01/`` by ``data``."""
    flag, equals, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    return f"{flag}{equals}{data}" if value.rstrip("/") == uri.rstrip("/") else arg
