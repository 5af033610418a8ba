"""Validation of single fields of a job file, in ML Engine's format or Vertex AI's."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Any

from mlengine.core import limits
from mlengine.core.errors import StorageError
from mlengine.core.job_file.located import Located, did_you_mean
from mlengine.core.job_file.tiers import ACCELERATORS, MACHINES, is_machine_type
from mlengine.core.layout import split_uri

# The enum of CustomJob's Scheduling.
_STRATEGIES = ("STRATEGY_UNSPECIFIED", "ON_DEMAND", "LOW_COST", "STANDARD", "SPOT", "FLEX_START")
# ML Engine's names for slices of a pod.
_PODS = {"TPU_V2_POD": "TPU_V2", "TPU_V3_POD": "TPU_V3"}


def machine_type(field: Located) -> str:
    """A machine type, by ML Engine's name or Compute Engine's."""
    name = field.text()
    if not is_machine_type(name):
        raise field.error(f"is not a machine type: {name!r}", did_you_mean(name, [*MACHINES, "n1-standard-4"]))
    return name


def accelerator(kind: Located | None, count: Located | None) -> tuple[str | None, int]:
    """The type and count of accelerators. One without the other is rejected."""
    if kind is None or count is None:
        alone = kind or count
        if alone is None:
            return None, 0
        raise alone.error("is given alone", "an accelerator has a type and a count; write both, or neither")
    name = kind.text()
    if name == "ACCELERATOR_TYPE_UNSPECIFIED" and count.integer(limits.accelerator_count) == 0:
        return None, 0
    name = _PODS.get(name, name)
    if name not in ACCELERATORS and not re.fullmatch(r"(NVIDIA|TPU|AMD|INTEL)_[A-Z0-9_]+", name):
        raise kind.error(f"is not an accelerator: {name!r}", did_you_mean(name, ACCELERATORS))
    number = count.integer(limits.accelerator_count)
    return (name, number) if number else (None, 0)


def strategy(field: Located) -> str:
    """The scheduling strategy: how the service gets the machines of a job."""
    name = field.text()
    if name not in _STRATEGIES:
        raise field.error(f"is not a strategy: {name!r}", did_you_mean(name, _STRATEGIES))
    return name


def disk(field: Located) -> None:
    """Check the boot disk of a replica.

    :raises JobFileError: a field is unknown, or has another type.
    """
    found = field.fields(("bootDiskType", "bootDiskSizeGb"))
    if "bootDiskType" in found:
        found["bootDiskType"].text()
    if "bootDiskSizeGb" in found:
        found["bootDiskSizeGb"].integer(limits.boot_disk_gb)


def encryption(field: Located) -> str | None:
    """The customer-managed key that encrypts a job.

    :raises JobFileError: the value has a field other than ``kmsKeyName``, or the wrong type.
    """
    found = field.fields(("kmsKeyName",))
    return found["kmsKeyName"].text() if "kmsKeyName" in found else None


def image(field: Located) -> str:
    uri = field.text()
    if not uri or uri != uri.strip() or "://" in uri or " " in uri:
        raise field.error(f"is not a container image: {uri!r}", "for example python:3.11, or HOST/PROJECT/NAME:TAG")
    return uri


def module(field: Located) -> str:
    """A dotted module name, as accepted by ``python -m``."""
    name = field.text()
    if name.endswith(".py") or "/" in name:
        dotted = name.removesuffix(".py").strip("./").replace("/", ".")
        raise field.error(f"is a path, not a module: {name!r}", f"write {dotted}")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split(".")):
        raise field.error(f"is not a module: {name!r}", "write the dotted name, for example trainer.task")
    return name


def args(field: Located) -> tuple[str, ...]:
    """The user's arguments, each a string, as on a command line."""
    found = []
    for item in field.items():
        if not isinstance(item.value, str):
            quoted = f'quote it: "{item.raw}"' if item.raw else "write one string per item"
            raise item.error(f"an argument must be a string, not {item.kind}", quoted)
        item.check(limits.arguments([item.value]))
        found.append(item.value)
    return tuple(found)


def package_uris(field: Located) -> tuple[str, ...]:
    """The URIs of packages in the bucket.

    File names must be unique, because a replica has all packages in one directory.
    """
    uris: dict[str, str] = {}
    items = field.items()
    field.check(limits.package_count(len(items)))
    for item in items:
        uri = gs_uri(item, "PackageTrainerOperator builds and uploads a package on this machine")
        basename = uri.rsplit("/", 1)[1]
        if basename in uris:
            raise item.error(f"has the same file name as {uris[basename]}", "give each package another name or version")
        uris[basename] = uri
    return tuple(uris.values())


def gs_uri(field: Located, hint: str = "") -> str:
    """The URI of an object or folder in a bucket. A bucket without a path is rejected.

    :param hint: what to do about a local path.
    """
    uri = field.text()
    try:
        _, path = split_uri(uri)
    except StorageError as error:
        raise field.error(error.message, f"{error.hint}; {hint}" if hint else error.hint) from error
    if not path.strip("/"):
        raise field.error(f"is a bucket without a path: {uri}", "use a directory in the bucket: gs://BUCKET/path")
    return uri


def labels(field: Located) -> dict[str, str]:
    """Labels as Google's services accept them: at most 64, short, in lower case."""
    if not isinstance(field.value, dict):
        raise field.error(f"must be a mapping, not {field.kind}", "write 'key: value' lines, indented below it")
    found = {key: item.text() for key, item in field.value.items()}
    for key, item in field.value.items():
        item.check(limits.label(key, found[key]))
    field.check(limits.labels(found))
    return found


def env(field: Located) -> dict[str, str]:
    """Environment variables from ``env:``, a list of ``name`` and ``value`` as in containers."""
    found: dict[str, str] = {}
    for item in field.items():
        pair = item.fields(("name", "value"))
        if "name" not in pair:
            raise item.error("has no name", "write 'name: X' and 'value: y'")
        name = pair["name"].text()
        if name in found:
            raise item.error(f"variable {name} is written twice", "keep one of them")
        found[name] = pair["value"].text() if "value" in pair else ""
        item.check(limits.variable(name, found[name]))
    field.check(limits.variables(found))
    return found


def same_everywhere(values: Mapping[str, tuple[Located, Any]], what: str) -> Any:
    """The value, equal in all pools, of a field that Vertex AI allows each pool to set.

    :raises JobFileError: the pools' values differ. All replicas must run the same command here, as on ML Engine.
    """
    pairs = list(values.values())
    for field, value in pairs[1:]:
        if value != pairs[0][1]:
            raise field.error(f"{what} differs from the first pool's", f"give all pools the same {what}")
    return pairs[0][1] if pairs else None
