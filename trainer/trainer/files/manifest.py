"""Publishing a directory of files so that no reader sees half of it: ``MANIFEST.json`` is written last.

``{"format": 1, "step": int, "created": "...Z", "files": {"relative/name": {"size": int, "sha256": "hex"}}}``. Neither
Cloud Storage nor a network file system renames a tree atomically; one small file that appears last works on all.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from trainer.errors import MissingError, StorageError
from trainer.files.storage import Store

NAME = "MANIFEST.json"


def publish(store: Store, directory: str, source: Path, *, step: int) -> None:
    """Copy every file below ``source`` to ``directory``, then the manifest."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name, data = path.relative_to(source).as_posix(), path.read_bytes()
        files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        store.write(_join(directory, name), data)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    content = {"format": 1, "step": step, "created": created, "files": files}
    store.write(_join(directory, NAME), json.dumps(content, indent=1).encode())


def read(store: Store, directory: str) -> dict[str, Any] | None:
    """The manifest, ``None`` if there is none (yet).

    :raises StorageError: what is there is no manifest.
    """
    try:
        content = json.loads(store.read(_join(directory, NAME)))
        return dict(content) if isinstance(content["files"], dict) else None
    except MissingError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{store.root}/{_join(directory, NAME)} is no manifest: {error}") from error


def fetch(store: Store, directory: str, target: Path) -> dict[str, Any]:
    """Copy a published directory to ``target``, verified; returns its manifest.

    :raises StorageError: not published, or a file is missing or damaged.
    """
    content = read(store, directory)
    if content is None:
        raise MissingError(f"{store.root}/{directory}: no {NAME}, so nothing is published here")
    for name, expected in content["files"].items():
        path = (target / name).resolve()
        if not path.is_relative_to(target.resolve()):
            raise StorageError(f"{store.root}/{directory}: {name!r} leaves the directory")
        data = store.read(_join(directory, name))
        if len(data) != expected["size"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise StorageError(f"{store.root}/{_join(directory, name)} is damaged: it is not what its manifest says")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return content


def withdraw(store: Store, directory: str) -> None:
    """Take a published directory back, its manifest first."""
    store.delete(_join(directory, NAME))


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}" if directory else name
