"""Reads the dependencies of a package from its metadata: its requirements, and those of its extras."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import IO, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlengine.runtime.requires_python import metadata_files


@dataclass(frozen=True)
class Dependencies:
    """The dependencies of one package.

    :param requirements: the requirements in the metadata, with their markers; those that cannot be parsed are left out.
    :param extras: the extras that the package declares.
    """

    requirements: tuple[Requirement, ...] = ()
    extras: frozenset[str] = frozenset()

    def with_extra(self, extra: str | None, python: str | None = None) -> list[Requirement]:
        """The requirements on Linux, with those of an extra if the package declares it.

        :param python: a version such as ``3.11``; ``None`` for the version of this process.
        """
        environment = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"}
        if python:
            environment |= {"python_version": python, "python_full_version": f"{python}.99"}
        extras = ["", extra] if extra in self.extras else [""]
        return [
            one
            for one in self.requirements
            if one.marker is None or any(one.marker.evaluate({**environment, "extra": name or ""}) for name in extras)
        ]


def declared(filename: str, file: IO[bytes]) -> Dependencies:
    """The dependencies of an sdist or a wheel.

    Sdists of older build backends have them only in ``pyproject.toml``, so both metadata and ``pyproject.toml`` are
    read.

    :raises UnreadableArchiveError: the file is not an archive, or is damaged.
    """
    files = dict(metadata_files(filename, file))
    requirements: dict[str, None] = {}
    extras: set[str] = set()
    for texts in _nearest(files):
        requirements |= dict.fromkeys(texts[0])
        extras.update(canonicalize_name(name) for name in texts[1])
    return Dependencies(tuple(dict.fromkeys(_parsed(requirements))), frozenset(extras))


def of_path(package: Path) -> Dependencies:
    """The dependencies of the package in a file; see :func:`declared`."""
    return declared(package.name, io.BytesIO(package.read_bytes()))


def path_with_extra(package: Path, extra: str) -> str:
    """The package as an argument of pip or uv, with the extra if the package declares it."""
    return f"{package}[{extra}]" if extra in of_path(package).extras else str(package)


def _nearest(files: dict[str, bytes]) -> Iterator[tuple[list[str], list[str]]]:
    """The requirements and extras in the metadata that is nearest to the root, and in ``pyproject.toml``."""
    core = [name for name in files if not name.endswith("pyproject.toml")]
    if core:
        message = HeaderParser().parsestr(files[min(core, key=lambda name: name.count("/"))].decode("utf-8", "replace"))
        yield message.get_all("Requires-Dist", []), message.get_all("Provides-Extra", [])
    for name, content in files.items():
        if name.endswith("pyproject.toml"):
            yield _of_pyproject(content)


def _of_pyproject(content: bytes) -> tuple[list[str], list[str]]:
    try:
        project: dict[str, Any] = tomllib.loads(content.decode()).get("project", {})
        optional: dict[str, list[str]] = project.get("optional-dependencies", {})
        requirements = [str(one) for one in project.get("dependencies", ())]
        for extra, texts in optional.items():
            requirements += [_with_marker(str(text), extra) for text in texts]
    except (ValueError, AttributeError, TypeError):
        return [], []
    return requirements, list(optional)


def _with_marker(requirement: str, extra: str) -> str:
    name, semicolon, marker = requirement.partition(";")
    condition = f'extra == "{extra}"'
    return f"{name.strip()}; ({marker.strip()}) and {condition}" if semicolon else f"{requirement}; {condition}"


def _parsed(texts: Iterable[str]) -> Iterator[Requirement]:
    for text in texts:
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue
