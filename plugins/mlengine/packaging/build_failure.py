"""Error messages for failed builds: the end of the builder's output, and a matching hint."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from mlengine.core.errors import PackageError
from mlengine.packaging.build import Build
from mlengine.packaging.pyproject import build_backend, read_pyproject
from mlengine.packaging.source_tree import SourceTree

_LINES = 30  # lines of the builder's output at the end of an error message
_NO_FILE = re.compile(r"(?:No such file or directory|\[Errno 2\][^'\"\n]*): ['\"]?([^'\"\n]+)['\"]?")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named ['\"]([\w.]+)['\"]")
# Mistakes in a project that fail every build of its wheel, on any machine.
_NO_PACKAGE = re.compile(r"Unable to determine which files to ship inside the wheel")  # hatchling
_MISTAKE = re.compile(rf"{_NO_PACKAGE.pattern}|Forced include not found|can't copy '[^'\n]*': doesn't exist")
_NO_REPOSITORY = re.compile(r"fatal: not a git repository")
# The hint for builds from an sdist that run git.
NO_GIT = (
    "there is no git repository where the sdist is installed: read the version from PKG-INFO, as setuptools-scm and "
    "hatch-vcs do"
)
_UV_HINT = re.compile(r"^hint: (?:This error likely indicates that|Build failures usually indicate)")
# How to include a file in an sdist.
_INCLUDE = {
    "setuptools": "add the line 'include {path}' to MANIFEST.in",
    "hatchling": "add it to 'include' of [tool.hatch.build.targets.sdist] in pyproject.toml",
    "uv_build": "add it to 'source-include' of [tool.uv.build-backend] in pyproject.toml",
    "poetry": 'add {{ path = "{path}", format = "sdist" }} to \'include\' of [tool.poetry] in pyproject.toml',
    "flit_core": "add it to 'include' of [tool.flit.sdist] in pyproject.toml",
    "pdm": "add it to 'source-includes' of [tool.pdm.build] in pyproject.toml",
    "scikit_build_core": "add it to 'sdist.include' of [tool.scikit-build] in pyproject.toml",
    "maturin": 'add {{ path = "{path}", format = "sdist" }} to \'include\' of [tool.maturin] in pyproject.toml',
}


def failure(built: Build, origin: Path, *, tree: SourceTree | None = None, without_git: str = "") -> PackageError:
    """The error for a failed build of the user's directory ``origin``.

    :param tree: the files that the build had.
    :param without_git: the reason why the build has no git repository, if it needs one.
    """
    what, output = f"uv build --{built.kind} ended with code {built.code}", _tail(built.output)
    hint = _missing_module(built.output) or without_git or (_missing_source(built.output, tree) if tree else "")
    if hint:
        return PackageError(f"{origin} could not be built ({what}):\n{output}", hint=hint)
    return PackageError(
        f"{origin} could not be built ({what}):\n{output}",
        hint=f"correct the problem that the build reports; to build again: uv build --{built.kind} {origin}",
    )


def sdist_failure(built: Build, tree: SourceTree, sdist: str, packed: Collection[str]) -> PackageError:
    """The error for an sdist that cannot be installed because it lacks a file that its own build reads.

    :param sdist: the file name of the sdist.
    :param packed: the files in the sdist.
    """
    output = _tail(built.output)
    lost = _missing_from_sdist(output, tree.paths - set(packed))
    if lost is not None:
        return PackageError(
            f"{sdist} cannot be installed: its build reads {lost}, which is in {tree.root} "
            f"but not in the sdist:\n{output}",
            hint=f"include it: {how_to_include(tree.root, lost)}",
        )
    hint = _missing_module(built.output) or _missing_git(built.output) or _missing_package(built.output)
    hint = hint or "correct the problem that the build reports"
    return PackageError(
        f"the sdist {sdist} of {tree.root} cannot be installed: building a wheel from it failed:\n{output}",
        hint=f"{hint}; to build again: uv build {tree.root}",
    )


def fails_anywhere(output: str) -> bool:
    """Whether the build of a wheel fails on any machine, not only on those without a compiler or headers."""
    return _MISTAKE.search(output) is not None


def how_to_include(root: Path, path: str) -> str:
    """A hint that says how to include the file ``path`` in a project's sdist."""
    hint = _INCLUDE.get(build_backend(read_pyproject(root)))
    return (
        hint.format(path=path) if hint else f"include {path} in the sdist: see the documentation of the build backend"
    )


def _tail(output: str) -> str:
    """The end of the output, without uv's hints about the cause if this module has a better one."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    cut = next((number for number, line in enumerate(lines) if _UV_HINT.match(line)), len(lines))
    return "\n".join(f"    {line}" for line in lines[:cut][-_LINES:])


def _missing_module(output: str) -> str:
    found = _NO_MODULE.search(output)
    if found is None:
        return ""
    module = found[1].partition(".")[0]
    if module == "pkg_resources":
        return (
            'setuptools 82 removed pkg_resources: write requires = ["setuptools<82"] in [build-system] of '
            "pyproject.toml (create the file if there is none), or use importlib.metadata and importlib.resources"
        )
    return (
        f"the build imports {module}: add the package that provides it to 'requires' of [build-system] in "
        "pyproject.toml"
    )


def _missing_package(output: str) -> str:
    if not _NO_PACKAGE.search(output):
        return ""
    return (
        "no directory has the project's name: write "
        'packages = ["DIRECTORY"] in [tool.hatch.build.targets.wheel] of pyproject.toml'
    )


def _missing_git(output: str) -> str:
    return NO_GIT if _NO_REPOSITORY.search(output) else ""


def _missing_source(output: str, tree: SourceTree) -> str:
    """A hint for a file that is missing in the copy of the directory."""
    for name in _NO_FILE.findall(output):
        path = Path(os.path.normpath(tree.root / name))
        if not path.is_relative_to(tree.root):
            return f"{path} is outside of the project, so the job's machine will not have it: move it into {tree.root}"
        relative = path.relative_to(tree.root).as_posix()
        for left in tree.left_out:
            if f"{relative}/".startswith(f"{left.path.rstrip('/')}/"):
                return f"{left.path} is not packaged ({left.reason}), so the build cannot read it: move it elsewhere"
    return ""


def _missing_from_sdist(output: str, candidates: Collection[str]) -> str | None:
    """The file that is missing in the sdist and named in the last lines of the output, if there is one."""
    words = set(re.split(r"[\s'\"`,;:()\[\]]+", output))
    named = {word.rstrip(".") for word in words} | words
    best = [path for path in candidates if any(_is_path(word, path) for word in named)]
    return max(best, key=len, default=None)


def _is_path(word: str, path: str) -> bool:
    """Whether ``word`` is ``path``, possibly with leading directories, or the file name of ``path``."""
    return word == path or word.endswith(f"/{path}") or ("/" not in word and word == PurePosixPath(path).name)
