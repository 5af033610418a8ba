"""The package that :mod:`mlengine.emulator.replica` travels in, beside the trainer's own, and the specs that use it."""

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

from mlengine.core.errors import ServiceRefusalError, StorageConflictError
from mlengine.core.layout import join, split_uri
from mlengine.core.spec import Pool, TrainingSpec
from mlengine.storage.client import Storage

MODULE = "mlengine_service_replica"
_VERSION = "1"
_FOLDER = "mlengine-service"


@dataclass(frozen=True)
class Task:
    """What one pool runs. ``env`` as the API has it: name and value."""

    command: Sequence[str]
    env: Sequence[Mapping[str, str]] = field(default_factory=tuple)


def adapted(
    *,
    face: str,
    tasks: Mapping[str, Task],
    pools: Sequence[Pool],
    packages: Sequence[str],
    bucket: str,
    dirs: Mapping[str, str],
    job: Mapping[str, Any],
    storage: Storage,
    **limits: Any,
) -> TrainingSpec:
    """A spec whose replicas run ``tasks``, by role, exactly as the client said.

    :param dirs: what ``AIP_…_DIR`` say, by the middle of the name.
    :param bucket: where the adapter's package is put, once.
    """
    plan = {
        "face": face,
        "pools": {role: {"command": list(task.command), "env": list(task.env)} for role, task in tasks.items()},
        "dirs": dict(dirs),
        "job": job,
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
    """Put the adapter's wheel into the bucket, unless it is there. Returns its URI."""
    data = wheel()
    name = f"{MODULE}-{_VERSION}-py3-none-any.whl"
    uri = join(bucket, _FOLDER, hashlib.sha256(data).hexdigest()[:16], name)
    if not storage.exists(uri):
        try:
            storage.create(uri, data)
        except StorageConflictError:
            return uri  # somebody else put the same bytes there
    return uri


def bucket_of(*uris: str | None) -> str:
    """``gs://BUCKET`` of the first URI there is.

    :raises ServiceRefusalError: if there is none: jobs leave logs somewhere, and nothing may be made up.
    """
    for uri in uris:
        if uri:
            return f"gs://{split_uri(uri)[0]}"
    raise ServiceRefusalError(
        "This service needs a bucket for the job: neither an output directory nor a package names one.",
        status="FAILED_PRECONDITION",
        remedy="give the job a base output directory (jobDir for ML Engine), or start the service with --bucket",
    )


def scratch_dir(bucket: str, number: str) -> str:
    """Where a job without an output directory leaves its logs."""
    return join(bucket, _FOLDER, "jobs", number)


@cache
def wheel() -> bytes:
    """The same bytes each time, so that the environments made with it are made once."""
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
