"""``[tool.uv.sources]`` and similar tables: sources that are packaged with a project, and rejected sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.core.errors import PackageError
from mlengine.packaging.local_sources import local_requirements


def project(root: Path, name: str, text: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "1"\n{text}')
    return root.resolve()


def test_a_project_without_sources_needs_nothing(tmp_path: Path) -> None:
    assert local_requirements(project(tmp_path, "app", 'dependencies = ["numpy"]\n')).paths == ()
    (tmp_path / "old").mkdir()
    assert local_requirements(tmp_path / "old").paths == ()


def test_workspace_members_and_their_requirements_are_included(tmp_path: Path) -> None:
    root = project(tmp_path, "root", '[tool.uv.workspace]\nmembers = ["packages/*"]\nexclude = ["packages/old"]\n')
    sources = "[tool.uv.sources]\nAcme_Lib = { workspace = true }\n"
    app = project(root / "packages/app", "app", f'dependencies = ["acme-lib>=1", "numpy"]\n{sources}')
    sources = '[tool.uv.sources]\nbase = { path = "../../base" }\nunused = { path = "../nowhere" }\n'
    lib = project(root / "packages/lib", "acme.lib", f"dependencies = [\"base; python_version > '3'\"]\n{sources}")
    base = project(root / "base", "base", 'dependencies = ["app"]\n')
    assert local_requirements(app).paths == (lib, base)


LIB = 'dependencies = ["lib"]\n[tool.uv.sources]\nlib = { workspace = true }\n'


@pytest.mark.parametrize("pattern", ["packages/*", "./packages/lib/", "packages/../packages/*", "{root}/packages/*"])
def test_patterns_of_members_that_uv_accepts(tmp_path: Path, pattern: str) -> None:
    members = f'members = [".", "", "{pattern.format(root=tmp_path)}"]\nexclude = [".", "", "/"]\n'
    root = project(tmp_path, "root", f"{LIB}[tool.uv.workspace]\n{members}")
    lib = project(root / "packages/lib", "lib")
    assert local_requirements(root).paths == (lib,)
    project(tmp_path, "root", f'{LIB}[tool.uv.workspace]\nmembers = ["packages/*"]\nexclude = ["{lib}"]\n')
    with pytest.raises(PackageError, match="lib is not a member of the workspace"):
        local_requirements(root)


@pytest.mark.parametrize("key", ["members", "exclude"])
@pytest.mark.parametrize("pattern", ["packages/a**", "***"])
def test_a_pattern_that_cannot_be_used_is_named_with_its_file(tmp_path: Path, key: str, pattern: str) -> None:
    app = project(tmp_path, "app", f'[tool.uv.workspace]\n{key} = ["{pattern}"]\n')
    with pytest.raises(PackageError) as caught:
        local_requirements(app)
    assert f"{app / 'pyproject.toml'}: {key!r} of [tool.uv.workspace]" in caught.value.message
    assert repr(pattern) in caught.value.message


def test_only_the_nearest_pyproject_above_can_be_the_root_of_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("this is not TOML")
    root = project(tmp_path / "root", "root")
    lib = project(root / "packages/lib", "lib")
    app = project(root / "packages/app", "app", LIB)
    with pytest.raises(PackageError, match="lib is not a member of the workspace"):
        local_requirements(app)
    project(root, "root", '[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    assert local_requirements(app).paths == (lib,)


def test_sources_of_the_workspace_root_apply_to_its_members(tmp_path: Path) -> None:
    sources = '[tool.uv.workspace]\nmembers = ["app"]\n[tool.uv.sources]\nlib = { path = "lib" }\n'
    root = project(tmp_path, "root", sources)
    lib = project(root / "lib", "lib")
    assert local_requirements(project(root / "app", "app", 'dependencies = ["lib"]\n')).paths == (lib,)


def test_only_installed_requirements_are_included(tmp_path: Path) -> None:
    sources = '[tool.uv.sources]\na = { path = "a" }\nb = { path = "b" }\n'
    extras = '[project.optional-dependencies]\ngpu = ["a"]\ndev = ["b"]\n'
    app = project(tmp_path, "app", f'dependencies = ["app[gpu]"]\n{extras}{sources}')
    a, _ = project(tmp_path / "a", "a"), project(tmp_path / "b", "b")
    assert local_requirements(app).paths == (a,)


def test_all_sources_are_included_if_requirements_are_dynamic(tmp_path: Path) -> None:
    app = project(tmp_path, "app", 'dynamic = ["dependencies"]\n[tool.uv.sources]\na = { path = "a-1.0.tar.gz" }\n')
    (tmp_path / "a-1.0.tar.gz").touch()
    assert local_requirements(app).paths == (tmp_path / "a-1.0.tar.gz",)


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ('{ git = "https://example.com/x.git", tag = "v1" }', "lib @ git+https://example.com/x.git@v1"),
        ('{ git = "ssh://git@example.com/x", subdirectory = "py" }', "git+ssh://git@example.com/x#subdirectory=py"),
        ('{ url = "https://example.com/lib-1.0.tar.gz" }', "lib @ https://example.com/lib-1.0.tar.gz"),
    ],
)
def test_unsupported_sources_are_refused_with_a_hint(tmp_path: Path, source: str, reference: str) -> None:
    app = project(tmp_path, "app", f'dependencies = ["lib"]\n[tool.uv.sources]\nlib = {source}\n')
    with pytest.raises(PackageError, match="takes lib from") as caught:
        local_requirements(app)
    assert reference in caught.value.hint
    assert local_requirements(app, {"lib"}).paths == (), "a package named by the user must not be added again"


def test_a_missing_member_or_path_is_named(tmp_path: Path) -> None:
    app = project(tmp_path, "app", 'dependencies = ["lib"]\n[tool.uv.sources]\nlib = { workspace = true }\n')
    with pytest.raises(PackageError, match="lib is not a member of the workspace"):
        local_requirements(app)
    project(tmp_path, "app", 'dependencies = ["lib"]\n[tool.uv.sources]\nlib = { path = "../lib" }\n')
    with pytest.raises(PackageError, match="which does not exist"):
        local_requirements(app)


def test_a_local_build_requirement_is_refused(tmp_path: Path) -> None:
    build = '[build-system]\nrequires = ["setuptools", "our-plugin"]\n'
    app = project(tmp_path, "app", f'{build}[tool.uv.sources]\nour-plugin = {{ path = "plugin" }}\n')
    with pytest.raises(PackageError, match="its build requires our-plugin from path plugin"):
        local_requirements(app)


def test_path_dependencies_of_poetry_are_included(tmp_path: Path) -> None:
    entries = 'python = ">=3.9"\nnumpy = { version = ">=2", extras = ["x"] }\nlib = { path = "lib", develop = true }\n'
    app = project(tmp_path, "app", f'dependencies = ["lib", "numpy"]\n[tool.poetry.dependencies]\n{entries}')
    lib = project(tmp_path / "lib", "lib")
    assert local_requirements(app).paths == (lib,)
    (app / "pyproject.toml").write_text(f'[tool.poetry]\nname = "app"\n[tool.poetry.dependencies]\n{entries}')
    assert local_requirements(app).paths == (), "without a project table, the path is in the metadata and refused later"


def test_an_index_is_only_mentioned_in_a_note(tmp_path: Path) -> None:
    sources = '[tool.uv.sources]\ntorch = [{ index = "cpu", marker = "sys_platform == \'linux\'" }]\n'
    found = local_requirements(project(tmp_path, "app", f'dependencies = ["torch"]\n{sources}'))
    assert found.paths == ()
    assert "takes torch from the index 'cpu'" in found.notes[0]
