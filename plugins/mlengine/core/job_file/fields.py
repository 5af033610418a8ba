"""What single fields of a job file may hold, whichever service's words the file is written in."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Any

from mlengine.core.errors import StorageError
from mlengine.core.job_file.located import Located, did_you_mean
from mlengine.core.job_file.tiers import ACCELERATORS, MACHINES, looks_like_machine
from mlengine.core.layout import split_uri

MAX_REPLICAS = 1000  # of one role; more is a typing error
MAX_ACCELERATORS = 256  # to a machine
MAX_PACKAGES = 100
MAX_LABELS = 64


def machine_type(field: Located) -> str:
    """ML Engine's name or Compute Engine's."""
    name = field.text()
    if not looks_like_machine(name):
        raise field.error(f"is not a machine type: {name!r}", did_you_mean(name, [*MACHINES, "n1-standard-4"]))
    return name


def accelerator(kind: Located | None, count: Located | None) -> tuple[str | None, int]:
    """Type and count go together: one without the other is refused."""
    if kind is None or count is None:
        alone = kind or count
        if alone is None:
            return None, 0
        raise alone.error("stands alone", "an accelerator has a type and a count; write both, or neither")
    name = kind.text()
    if name not in ACCELERATORS and not re.fullmatch(r"(NVIDIA|TPU|AMD|INTEL)_[A-Z0-9_]+", name):
        raise kind.error(f"is not an accelerator: {name!r}", did_you_mean(name, ACCELERATORS))
    number = count.count(MAX_ACCELERATORS)
    return (name, number) if number else (None, 0)


def image(field: Located) -> str:
    uri = field.text()
    if not uri or uri != uri.strip() or "://" in uri or " " in uri:
        raise field.error(f"is not a container image: {uri!r}", "for example python:3.11, or HOST/PROJECT/NAME:TAG")
    return uri


def module(field: Located) -> str:
    """A dotted name, as ``python -m`` takes it."""
    name = field.text()
    if name.endswith(".py") or "/" in name:
        dotted = name.removesuffix(".py").strip("./").replace("/", ".")
        raise field.error(f"is a path, not a module: {name!r}", f"write {dotted}")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split(".")):
        raise field.error(f"is not a module: {name!r}", "write the dotted name, for example trainer.task")
    return name


def args(field: Located) -> tuple[str, ...]:
    """The user's arguments, each a text, as a command line has them."""
    found = []
    for item in field.items():
        if not isinstance(item.value, str):
            quoted = f'quote it: "{item.raw}"' if item.raw else "write one text an item"
            raise item.error(f"an argument must be a text, not {item.kind}", quoted)
        if "\0" in item.value:
            raise item.error("an argument holds a NUL character", "no process can be given it; remove it")
        found.append(item.value)
    return tuple(found)


def package_uris(field: Located) -> tuple[str, ...]:
    """Packages in the bucket, each with a name of its own, as they end in one directory on the replica."""
    uris: dict[str, str] = {}
    items = field.items()
    if len(items) > MAX_PACKAGES:
        raise field.error(f"names {len(items)} packages", f"{MAX_PACKAGES} is the most a job can have")
    for item in items:
        uri = gs_uri(item, "PackageTrainerOperator builds and uploads a package on this machine")
        basename = uri.rsplit("/", 1)[1]
        if basename in uris:
            raise item.error(f"has the same file name as {uris[basename]}", "give each package another name or version")
        uris[basename] = uri
    return tuple(uris.values())


def gs_uri(field: Located, hint: str = "") -> str:
    """An object or folder in a bucket; the bucket alone is refused.

    :param hint: what to do about a path of this machine.
    """
    uri = field.text()
    try:
        _, path = split_uri(uri)
    except StorageError as error:
        remedy = f"{error.remedy}; {hint}" if hint else error.remedy
        raise field.error(error.message, remedy) from error
    if not path.strip("/"):
        raise field.error(f"names a bucket only: {uri}", "add a path: gs://BUCKET/path")
    return uri


def labels(field: Located) -> dict[str, str]:
    """Labels as Google's services take them: at most 64, short, in lower case."""
    if not isinstance(field.value, dict):
        raise field.error(f"must be a mapping, not {field.kind}", "write 'key: value' lines, indented below it")
    if len(field.value) > MAX_LABELS:
        raise field.error(f"has {len(field.value)} labels", f"{MAX_LABELS} is the most a job can have")
    found = {}
    for key, item in field.value.items():
        value = item.text()
        if not (_label_text(key) and key[:1].isalpha()) or not (_label_text(value) or not value):
            raise item.error(
                f"not a label: {key!r}: {value!r}",
                "use up to 63 of a-z 0-9 _ - in key and value; a key begins with a letter",
            )
        found[key] = value
    return found


def env(field: Located) -> dict[str, str]:
    """``env:`` as containers have it: a list of ``name`` and ``value``."""
    found: dict[str, str] = {}
    for item in field.items():
        pair = item.fields(("name", "value"))
        if "name" not in pair:
            raise item.error("has no name", "write 'name: X' and 'value: y'")
        name = pair["name"].text()
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in found:
            raise item.error(f"not a new variable: {name!r}", "use each name once; letters, digits and _")
        found[name] = pair["value"].text() if "value" in pair else ""
    return found


def same_everywhere(values: Mapping[str, tuple[Located, Any]], what: str) -> Any:
    """The one value of a field that Vertex AI lets each pool set for itself.

    :raises JobFileError: if pools differ: every replica runs one command here, as ML Engine's did.
    """
    pairs = list(values.values())
    for field, value in pairs[1:]:
        if value != pairs[0][1]:
            raise field.error(f"{what} differs from the first pool's", f"give all pools the same {what}")
    return pairs[0][1] if pairs else None


def _label_text(text: str) -> bool:
    return 0 < len(text) <= 63 and text == text.lower() and all(c.isalnum() or c in "_-" for c in text)
