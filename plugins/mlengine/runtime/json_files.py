"""JSON files that several processes read and write: a file is complete or absent.

Each is written to a temporary file in the same directory, flushed to the disk, and renamed or linked into place.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlengine.core.errors import BackendError

_DAMAGED = "a disk error or another program has changed this file: restore it from a backup, or move it away"


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's content; ``None`` if the file does not exist.

    :raises BackendError: the file's content is not a JSON object.
    """
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise BackendError(f"{path} is not readable: {error}", hint=_DAMAGED) from error
    if not isinstance(data, dict):
        raise BackendError(f"{path} is not a JSON object", hint=_DAMAGED)
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace the file atomically, even if the power fails."""
    partial = _write_aside(path, data)
    try:
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def create_json(path: Path, data: Mapping[str, Any]) -> bool:
    """Create the file. Return ``False`` if it exists already, even if another process has just created it."""
    partial = _write_aside(path, data)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _write_aside(path: Path, data: Mapping[str, Any]) -> Path:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("w") as file:
            json.dump(data, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    return partial


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
