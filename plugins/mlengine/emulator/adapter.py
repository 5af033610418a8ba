"""Builds specs whose replicas run another client's commands, and the package that contains the replica adapter.

The package has one module, :mod:`mlengine.emulator.replica`. It is installed along with the trainer's packages.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlengine.core.errors import EmulatorApiError, EmulatorError, StorageConflictError, StorageError
from mlengine.core.layout import join, split_uri
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime.rendezvous import rendezvous_variables
from mlengine.storage.client import Storage

MODULE = "mlengine_emulator_replica"
_VERSION = "1"
_CLUSTER = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}
# Variables by which frameworks find their cluster, except for those that the services set: Vertex AI documents only
# CLUSTER_SPEC. AI Platform Training (ML Engine) did not have that, and documented four others, for PyTorch.
_RENDEZVOUS = set(rendezvous_variables(_CLUSTER))
_LOCAL_ONLY = {
    "vertex": sorted(_RENDEZVOUS),
    "mlengine": sorted((_RENDEZVOUS | {"CLUSTER_SPEC"}) - {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"}),
}
FOLDER = "mlengine-emulator"  # a folder of the bucket; no model has this name


@dataclass(frozen=True)
class Task:
    """The command that one pool runs, with its environment.

    :param command: the command and its arguments.
    :param env: environment variables in the API's form, each with ``name`` and ``value``.
    """

    command: Sequence[str]
    env: Sequence[Mapping[str, str]] = field(default_factory=tuple)


def adapted(
    *,
    api: str,
    tasks: Mapping[str, Task],
    pools: Sequence[Pool],
    packages: Sequence[str],
    bucket: str,
    dirs: Mapping[str, str],
    job: Mapping[str, Any],
    storage: Storage,
    **limits: Any,
) -> TrainingSpec:
    """A spec whose replicas run ``tasks`` exactly as the client requested them.

    :param api: the API that created the job; the environment variables depend on it.
    :param tasks: the task of each role.
    :param dirs: the values of ``AIP_<name>_DIR``, by name.
    :param bucket: the bucket in which the adapter's package is stored.
    :param job: the job as the client sent it.
    :param limits: further fields of the spec.
    """
    plan = {
        "api": api,
        "pools": {role: {"command": list(task.command), "env": list(task.env)} for role, task in tasks.items()},
        "dirs": dict(dirs),
        "job": job,
        "unset": _LOCAL_ONLY[api],
        "evaluators": sum(pool.count for pool in pools if pool.role is Role.EVALUATOR),
    }
    return TrainingSpec(
        module=MODULE,
        package_uris=(*packages, publish(storage, bucket)),
        args=(json.dumps(plan),),
        pools=tuple(pools),
        source=job,
        **limits,
    )


def publish(storage: Storage, bucket: str) -> str:
    """Upload the adapter's wheel unless the bucket has it, and return its URI."""
    data = wheel()
    name = f"{MODULE}-{_VERSION}-py3-none-any.whl"
    uri = join(bucket, FOLDER, hashlib.sha256(data).hexdigest()[:16], name)
    if not storage.exists(uri):
        try:
            storage.create(uri, data)
        except StorageConflictError:
            return uri  # another process uploaded the same bytes
    return uri


def default_bucket(bucket: str | None) -> str | None:
    """The emulator's own bucket, as ``gs://NAME``.

    :raises EmulatorError: ``bucket`` is not a bucket.
    """
    if not bucket:
        return None
    try:
        name, path = split_uri(bucket)
    except StorageError as error:
        raise EmulatorError(f"not a bucket: {bucket!r}", hint="use gs://NAME") from error
    if path:
        raise EmulatorError(f"{bucket} has a path; the emulator needs a bucket", hint=f"use gs://{name}")
    return f"gs://{name}"


def bucket_of(*uris: str | None) -> str:
    """The bucket, as ``gs://BUCKET``, of the first URI that is not empty.

    :raises EmulatorApiError: there is no URI. The emulator does not choose a bucket by itself.
    """
    for uri in uris:
        if uri:
            return f"gs://{split_uri(uri)[0]}"
    raise EmulatorApiError(
        "The emulator needs a bucket for the job's logs: the job has neither an output directory nor a package.",
        status="FAILED_PRECONDITION",
        hint="set the job's baseOutputDirectory (ML Engine: jobDir), or start the emulator with --bucket",
    )


def scratch_dir(bucket: str, number: str) -> str:
    """The job directory of a job without an output directory. Only logs are stored in it."""
    return join(bucket, FOLDER, "jobs", number)


@cache
def wheel() -> bytes:
    """The adapter's wheel. Its bytes are reproducible, so that equal environments are built once."""
    source = Path(__file__).with_name("replica.py").read_bytes()
    info = f"{MODULE}-{_VERSION}.dist-info"
    files = {
        f"{MODULE}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: {_VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: mlengine\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_hash(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return sink.getvalue()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
