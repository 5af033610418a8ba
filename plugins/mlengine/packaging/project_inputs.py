"""Inputs of a project's build other than its files: git, ignore files above it, variables that set a version.

They are part of the digest, so that a package in the bucket equals what a build would produce now. Only inputs that the
project's build uses are included; otherwise every commit in a repository would cause another build.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlengine.packaging.build import version_environment
from mlengine.packaging.git_repository import NoRepository, find_repository
from mlengine.packaging.project_copy import ignore_file_above
from mlengine.packaging.pyproject import build_backend, read_pyproject, strings, table
from mlengine.packaging.source_tree import SourceTree

_GIT_TOOLS = re.compile(
    r"setuptools[-_]scm|use_scm_version|vcs[-_]versioning|hatch[-_]vcs|versioningit|dunamai|dynamic[-_]versioning"
    r"|versioneer|setuptools[-_]git|\bpbr\b|source\s*=\s*['\"](?:scm|vcs)['\"]"
)
# The command git in a build script; not in a URL or a file name.
_GIT_WORD = re.compile(r"(?<![\w.@/+-])git(?![\w.@:/+-])")
_IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
_BUILD_SCRIPTS = ("setup.py", "hatch_build.py", "pdm_build.py", "build.py", "versioneer.py")
# Variables by which the version is set without git.
_SAYS_VERSION = {
    "uv[-_]dynamic[-_]versioning": "UV_DYNAMIC_VERSIONING_BYPASS",
    "poetry[-_]dynamic[-_]versioning": "POETRY_DYNAMIC_VERSIONING_BYPASS",
    r"\bpbr\b": "PBR_VERSION",
    r"source\s*=\s*['\"]scm['\"]": "PDM_BUILD_SCM_VERSION",
    "setuptools[-_]scm|use_scm_version|hatch[-_]vcs": "SETUPTOOLS_SCM_PRETEND_VERSION",
}


def digest_settings(tree: SourceTree) -> dict[str, Any]:
    """Further inputs of a project's build, as JSON data; empty for most projects."""
    root = tree.root
    found: dict[str, Any] = {}
    if uses_git(root):
        found["variables"] = version_environment(os.environ)
        repository = find_repository(root)
        found["git"] = None if isinstance(repository, NoRepository) else repository.state()
    backend = build_backend(read_pyproject(root))
    if backend == "hatchling":
        files = (ignore_file_above(root, name) for name in (".gitignore", ".hgignore"))
        found["ignore"] = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file is not None]
    if backend == "poetry":
        repository = find_repository(root)
        found["ignored"] = [] if isinstance(repository, NoRepository) else repository.ignored(tree.paths)
    return {key: value for key, value in found.items() if value}


def uses_git(root: Path) -> bool:
    """Whether the build files of a project suggest that its build reads versions or file lists from git."""
    texts = _build_texts(root)
    return any(_GIT_TOOLS.search(text) or (is_script and _GIT_WORD.search(text)) for text, is_script in texts)


def version_variable(root: Path) -> str | None:
    """The variable that sets the project's version in place of git, if its tool has one."""
    text = "\n".join(text for text, _ in _build_texts(root))
    return next((variable for tool, variable in _SAYS_VERSION.items() if re.search(tool, text)), None)


def _build_texts(root: Path) -> Iterator[tuple[str, bool]]:
    """The files that configure a build, each with whether it is a script."""
    for name in ("pyproject.toml", "setup.cfg"):
        yield _read(root / name), False
    scripts = {root / name for name in _BUILD_SCRIPTS}
    scripts |= {root / f"{module}.py" for module in _IMPORT.findall(_read(root / "setup.py"))}
    for folder in _backend_folders(read_pyproject(root)):
        scripts |= set((root / folder).glob("*.py"))
    for script in sorted(scripts):
        yield _read(script), True


def _backend_folders(pyproject: Mapping[str, Any]) -> list[str]:
    return strings(table(pyproject, "build-system").get("backend-path"))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
