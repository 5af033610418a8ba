"""Publishing a directory so that readers never see an incomplete one: ``MANIFEST.json`` is written last.

``{"format": 1, "step": int, "created": "...Z", "files": {"relative/name": {"size": int, "sha256": "hex"}}}``. Neither
Cloud Storage nor a network file system renames a tree atomically; writing one small file last works on all of them.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from trainer.errors import DamagedError, MissingError
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
    """The manifest, or ``None`` if there is none (yet).

    :raises DamagedError: the file is not a valid manifest.
    :raises StorageError: the file could not be read.
    """
    where = f"{store.root}/{_join(directory, NAME)}"
    try:
        content = json.loads(store.read(_join(directory, NAME)))
    except MissingError:
        return None
    except ValueError as error:
        raise DamagedError(f"{where} is no manifest: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise DamagedError(f"{where} is no manifest: it has no step")
    files = content.get("files")
    if not isinstance(files, dict) or not all(_is_file(entry) for entry in files.values()):
        raise DamagedError(f"{where} is no manifest: it has no files with size and sha256")
    return content


def fetch(store: Store, directory: str, target: Path) -> dict[str, Any]:
    """Copy a published directory to ``target`` and verify it. Returns its manifest.

    :raises MissingError: the directory is not published, or a file is missing.
    :raises DamagedError: a file is damaged.
    :raises StorageError: a file could not be read.
    """
    content = read(store, directory)
    if content is None:
        raise MissingError(f"{store.root}/{directory}: no {NAME}, so nothing is published here")
    for name, expected in content["files"].items():
        path = (target / name).resolve()
        if not path.is_relative_to(target.resolve()):
            raise DamagedError(f"{store.root}/{directory}: {name!r} leaves the directory")
        data = store.read(_join(directory, name))
        if len(data) != expected["size"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise DamagedError(f"{store.root}/{_join(directory, name)} is damaged: it is not what its manifest says")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return content


def withdraw(store: Store, directory: str) -> None:
    """Unpublish a directory by deleting its manifest. The other files stay."""
    store.delete(_join(directory, NAME))


def _is_file(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}" if directory else name
