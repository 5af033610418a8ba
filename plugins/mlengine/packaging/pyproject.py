"""``pyproject.toml``, as far as packaging reads it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlengine.core.errors import PackageError


def read_pyproject(folder: Path) -> Mapping[str, Any]:
    """Its content; empty if there is none.

    :raises PackageError: if it is not TOML.
    """
    path = folder / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} is not TOML: {error}", hint="correct that line") from error


def table(data: Any, *keys: str) -> Mapping[str, Any]:
    """The table at a path of keys; empty where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def strings(value: Any) -> list[str]:
    """The strings of a list; none where there is no list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def build_backend(data: Mapping[str, Any]) -> str:
    """The top-level module of the build backend: ``hatchling``, ``poetry``; ``setuptools`` where none is named."""
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

    :raises PackageError: it is not ``package.module:function``.
    """
    scorer = table(read_pyproject(folder), "tool", "mlengine").get("scorer", "")
    if scorer and not (isinstance(scorer, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", scorer)):
        raise PackageError(
            f"{folder / 'pyproject.toml'}: [tool.mlengine] scorer is {scorer!r}",
            hint='write scorer = "package.module:function"',
        )
    return str(scorer)


def normalized(name: str) -> str:
    """The name as installers compare it: ``My_Trainer`` is ``my-trainer``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
