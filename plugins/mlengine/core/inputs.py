"""What a training is made of: two trainings with equal inputs would give equal models, or as good as that.

The digest counts what changes the model: package, dataset, module, arguments, cluster, runtime, environment. It does
not count where it runs, what it is called, how long it may take, nor in which version's folder equal data lies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mlengine.core.spec import TrainingSpec

FORMAT = 1


def inputs_digest(spec: TrainingSpec, package: Mapping[str, Any], dataset: Mapping[str, Any]) -> str | None:
    """40 hex digits; ``None`` if it is not known what goes in, so that nothing can be said to be equal.

    :param package: with ``digest``, and ``package_uris``: all that the job installs.
    :param dataset: with ``digest`` and ``uri``. An argument that is that URI counts as the content it stands for.

    Does not look behind other URIs among the arguments: what lies there is the caller's word.
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
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def _content(arg: str, uri: str, data: str) -> str:
    """``--dataset gs://…/2026-11-01`` and ``--dataset=gs://…/2026-11-01/`` name content, not a place."""
    flag, equals, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    return f"{flag}{equals}{data}" if value.rstrip("/") == uri.rstrip("/") else arg
