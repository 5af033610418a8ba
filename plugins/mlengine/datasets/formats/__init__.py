"""File formats of dataset versions. Each module has one :class:`~mlengine.datasets.formats.base.Format`."""

from __future__ import annotations

from importlib import import_module

from mlengine.core.dataset import FILE_FORMATS
from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.base import Format

__all__ = ["Format", "format_named", "format_of"]


def format_named(name: str) -> Format:
    """The format with this name.

    :raises DatasetError: there is no such format.
    """
    if name not in FILE_FORMATS:
        raise DatasetError(f"not a file format: {name!r}", hint=f"use one of {', '.join(FILE_FORMATS)}")
    found: Format = import_module(f"mlengine.datasets.formats.{name}").FORMAT
    return found


def format_of(paths: list[str], where: str) -> Format:
    """The format of files with these paths, derived from their suffixes; ``files`` if no other format has them.

    :raises DatasetError: the files have different formats.
    """
    formats = [format_named(name) for name in FILE_FORMATS if name != "files"]
    found: dict[str, str] = {}
    for path in paths:
        name = next((one.name for one in formats if one.owns(path)), "files")
        found.setdefault(name, path)
    if len(found) > 1:
        listed = ", ".join(f"{path} ({name})" for name, path in found.items())
        raise DatasetError(
            f"{where} has files of different formats: {listed}",
            hint="keep only the data files of one format there, or pass --format",
        )
    return format_named(next(iter(found), "files"))
