"""Builds a package dir with a generated ``pyproject.toml`` and uv's own build backend.

The backend packs every file below the package, needs no package index, and its output is reproducible.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlengine.core.errors import PackageError
from mlengine.packaging import build as builder
from mlengine.packaging.build_failure import failure
from mlengine.packaging.project_copy import copy_tree
from mlengine.packaging.source_tree import SourceTree


def build_package(tree: SourceTree, package: str, requirements: Sequence[str], work: Path) -> Path:
    """Build the sdist of a package dir below the empty directory ``work``.

    :raises PackageError: the build failed; the message has the builder's output.
    """
    source = work / "source"
    copy_tree(tree, source / package)
    write_pyproject(source, package, requirements)
    built = builder.build("sdist", source, work / "out", {source / package: tree.root, source: tree.root.parent})
    if built.archive is None:
        raise failure(built, tree.root)
    return built.archive


def write_pyproject(folder: Path, package: str, requirements: Sequence[str]) -> None:
    """Write the ``pyproject.toml`` for a package dir: with all sub-packages and data, and version 0.0.0 as with gcloud.

    Different builds are distinguished by the digest in the path of the package, not by the version.
    """
    name = package.strip("_").replace("_", "-").lower() or "trainer"
    lines = [
        "[build-system]",
        'requires = ["uv_build>=0.9,<1"]',
        'build-backend = "uv_build"',
        "",
        "[project]",
        f"name = {json.dumps(name)}",
        'version = "0.0.0"',
        f"dependencies = {json.dumps(list(requirements))}",
        "",
        "[tool.uv.build-backend]",
        f"module-name = {json.dumps(package)}",
        'module-root = ""',
    ]
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_complete(tree: SourceTree, package: str, packed: frozenset[str]) -> None:
    """Check that each file of the tree is in the sdist.

    :param packed: the files of the sdist.
    :raises PackageError: files are missing; the message lists them.
    """
    lost = sorted({f"{package}/{path}" for path in tree.paths} - packed)
    if lost:
        raise PackageError(
            f"the build of {tree.root} left out {', '.join(lost[:5])}",
            hint="rename them, without characters that build tools reserve",
        )
