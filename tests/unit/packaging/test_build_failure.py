"""Hints for builds that fail are correct and useful."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.packaging.build import Build
from mlengine.packaging.build_failure import failure, how_to_include, sdist_failure
from mlengine.packaging.source_tree import scan


def failed(output: str) -> Build:
    return Build("wheel", 2, None, output)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "about.md").touch()
    (root / "setup.py").touch()
    return root


@pytest.mark.parametrize(
    "line",
    [
        "FileNotFoundError: [Errno 2] No such file or directory: 'docs/about.md'",
        "FileNotFoundError: [Errno 2] No such file or directory: '/root/.cache/uv/x/t-1.0/docs/about.md'",
        "OSError: Readme file does not exist: docs/about.md",
        "ConfigError: Description file docs/about.md does not exist.",
    ],
)
def test_a_file_missing_in_the_sdist_is_found_in_build_output(project: Path, line: str) -> None:
    error = sdist_failure(failed(f"Traceback\n{line}\n"), scan(project), "t-1.0.tar.gz", {"setup.py"})
    assert "its build reads docs/about.md" in error.message
    assert "include docs/about.md" in error.hint


def test_a_file_that_is_in_the_sdist_is_not_reported(project: Path) -> None:
    error = sdist_failure(failed("error in setup.py, line 3\n"), scan(project), "t-1.0.tar.gz", {"setup.py"})
    assert "reads" not in error.message
    assert f"uv build {project}" in error.hint


@pytest.mark.parametrize(
    ("backend", "where"),
    [
        ("setuptools.build_meta", "MANIFEST.in"),
        ("hatchling.build", "[tool.hatch.build.targets.sdist]"),
        ("uv_build", "[tool.uv.build-backend]"),
        ("poetry.core.masonry.api", "[tool.poetry]"),
        ("flit_core.buildapi", "[tool.flit.sdist]"),
        ("pdm.backend", "[tool.pdm.build]"),
        ("scikit_build_core.build", "[tool.scikit-build]"),
        ("our_own:backend", "documentation of the build backend"),
    ],
)
def test_the_hint_says_how_to_include_a_file(project: Path, backend: str, where: str) -> None:
    (project / "pyproject.toml").write_text(f'[build-system]\nbuild-backend = "{backend}"\n')
    assert where in how_to_include(project, "data.txt")


def test_useless_advice_of_uv_is_removed(tmp_path: Path) -> None:
    output = "ModuleNotFoundError: No module named 'pkg_resources.extern'\n"
    output += "hint: This error likely indicates that `x` depends on `pkg_resources`\n[tool.uv]\n"
    error = failure(failed(output), tmp_path)
    assert "hint:" not in error.message
    assert "setuptools<82" in error.hint


def test_a_build_that_fails_without_git_says_so(tmp_path: Path) -> None:
    error = failure(failed("LookupError: unable to detect version\n"), tmp_path, without_git="git is not installed")
    assert error.hint == "git is not installed"
