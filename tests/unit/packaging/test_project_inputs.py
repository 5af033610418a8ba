"""Whether a project's build uses git, and the other inputs of the project's digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.packaging.project_inputs import digest_settings, uses_git, version_variable
from mlengine.packaging.source_tree import scan

HATCHLING = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'


@pytest.mark.parametrize(
    ("name", "text", "variable"),
    [
        ("pyproject.toml", '[build-system]\nrequires = ["setuptools", "setuptools-scm[toml]>=8"]\n', "SETUPTOOLS_SCM_"),
        ("pyproject.toml", '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n', "SETUPTOOLS_SCM_"),
        ("pyproject.toml", '[tool.hatch.version]\nsource = "uv-dynamic-versioning"\n', "UV_DYNAMIC_"),
        ("pyproject.toml", "[tool.poetry-dynamic-versioning]\nenable = true\n", "POETRY_DYNAMIC_"),
        ("pyproject.toml", '[tool.pdm.version]\nsource = "scm"\n', "PDM_BUILD_SCM_VERSION"),
        ("pyproject.toml", "[tool.versioningit]\n", None),
        ("setup.py", "setup(setup_requires=['pbr'], pbr=True)\n", "PBR_VERSION"),
        ("setup.py", "setup(use_scm_version=True)\n", "SETUPTOOLS_SCM_"),
        ("setup.py", "import versioneer\n", None),
        ("setup.py", "subprocess.check_output(['git', 'describe'])\n", None),
        ("setup.py", "os.popen('git rev-parse HEAD')\n", None),
        ("hatch_build.py", "subprocess.run(('git', 'log'))\n", None),
    ],
)
def test_builds_that_use_git_are_recognised(tmp_path: Path, name: str, text: str, variable: str | None) -> None:
    (tmp_path / name).write_text(text)
    assert uses_git(tmp_path)
    assert (version_variable(tmp_path) or "").startswith(variable or "")


def test_a_build_script_that_imports_a_git_tool_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "setup.py").write_text("from get_version import version\n")
    assert not uses_git(tmp_path)
    (tmp_path / "get_version.py").write_text("version = os.popen('git describe').read()\n")
    assert uses_git(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("setup.py", "setup(url='https://github.com/me/it.git', install_requires=['x @ git+https://example.com/x'])\n"),
        ("setup.py", "exclude = ['.git', '.gitignore', 'digits']\n"),
        ("pyproject.toml", '[tool.uv.sources]\nx = { git = "https://example.com/x.git" }\n'),
        ("pyproject.toml", '[project]\nname = "x"\nkeywords = ["git"]\n'),
        ("task.py", "subprocess.run(['git', 'describe'])\n"),
    ],
)
def test_builds_that_only_mention_git_are_not_affected(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert not uses_git(tmp_path)
    assert digest_settings(scan(tmp_path)) == {}


def test_version_variables_count_only_for_builds_that_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBR_VERSION", "3.0")
    (tmp_path / "setup.py").write_text("setup()\n")
    assert digest_settings(scan(tmp_path)) == {}
    (tmp_path / "setup.py").write_text("setup(setup_requires=['pbr'], pbr=True)\n")
    assert digest_settings(scan(tmp_path)) == {"variables": {"PBR_VERSION": "3.0"}}


def test_an_ignore_file_above_the_project_counts_for_hatchling(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").write_text(HATCHLING)
    before = digest_settings(scan(root))
    (tmp_path / ".gitignore").write_text("*.bin\n")
    changed = digest_settings(scan(root))
    assert changed != before
    (root / "pyproject.toml").write_text(HATCHLING.replace("hatchling.build", "setuptools.build_meta"))
    assert digest_settings(scan(root)) == {}
