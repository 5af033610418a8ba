"""Reads the parts of ``pyproject.toml`` that packaging needs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlengine.core.errors import PackageError


def read_pyproject(folder: Path) -> Mapping[str, Any]:
    """The content of ``pyproject.toml``; empty if the file does not exist.

    :raises PackageError: the file is not valid TOML.
    """
    path = folder / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} is not TOML: {error}", hint="correct that line") from error


def table(data: Any, *keys: str) -> Mapping[str, Any]:
    """The table at a path of keys; empty if it does not exist."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def strings(value: Any) -> list[str]:
    """The strings in a list; empty if ``value`` is not a list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def build_backend(data: Mapping[str, Any]) -> str:
    """The top-level module of the build backend, such as ``hatchling`` or ``poetry``; ``setuptools`` by default."""
    backend = table(data, "build-system").get("build-backend")
    return re.split(r"[.:]", backend)[0] if isinstance(backend, str) and backend else "setuptools"


def project_name(data: Mapping[str, Any]) -> str | None:
    """The name in ``[project]`` or ``[tool.poetry]``, if there is one."""
    for keys in (("project",), ("tool", "poetry")):
        name = table(data, *keys).get("name")
        if isinstance(name, str) and name:
            return name
    return None


def scorer_of(folder: Path) -> str:
    """The scorer that ``[tool.mlengine]`` names; empty if there is none.

    :raises PackageError: the scorer is not ``package.module:function``.
    """
    scorer = table(read_pyproject(folder), "tool", "mlengine").get("scorer", "")
    if scorer and not (isinstance(scorer, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", scorer)):
        raise PackageError(
            f"{folder / 'pyproject.toml'}: [tool.mlengine] scorer is {scorer!r}",
            hint='write scorer = "package.module:function"',
        )
    return str(scorer)


def normalized(name: str) -> str:
    """The normalized name of a distribution: ``my-trainer`` for ``My_Trainer``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
