"""The package for each kind of source that a user can name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.core.errors import PackageError
from mlengine.packaging.sources import find_sources

HATCH = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n[project]\nname = "{name}"\n'
SETUPTOOLS = '[build-system]\nrequires = ["setuptools"]\n'


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "project" / "trainer"
    root.mkdir(parents=True)
    (root / "__init__.py").touch()
    return root


@pytest.mark.parametrize(
    ("name", "text", "is_parent"),
    [
        ("setup.py", "", True),
        ("pyproject.toml", SETUPTOOLS, True),
        ("pyproject.toml", '[project]\nname = "app"\n[tool.uv]\npackage = true\n', True),
        ("pyproject.toml", '[project]\nname = "an-application"\ndependencies = ["apache-airflow"]\n', False),
        ("pyproject.toml", "[tool.ruff]\n", False),
        ("pyproject.toml", HATCH.format(name="Trainer"), True),
        ("pyproject.toml", HATCH.format(name="dags"), False),
        ("pyproject.toml", HATCH.format(name="x") + '[tool.hatch.build.targets.wheel]\npackages = ["trainer"]\n', True),
        ("pyproject.toml", HATCH.format(name="x") + '[tool.hatch.build.targets.wheel]\npackages = ["lib"]\n', False),
    ],
)
def test_the_project_around_a_package_dir_is_recognised(package: Path, name: str, text: str, is_parent: bool) -> None:
    (package.parent / name).write_text(text)
    [source] = find_sources([package], ()).items
    assert source.parent == (package.parent if is_parent else None)
    [source] = find_sources([package], ["numpy"]).items
    assert source.parent is None, "with own requirements, the package dir must be packaged alone"


def test_a_source_folder_belongs_to_the_project_above_it(tmp_path: Path) -> None:
    package = tmp_path / "src" / "trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "setup.py").touch()
    [source] = find_sources([package], ()).items
    assert source.parent == tmp_path


def test_a_requirement_named_by_the_user_is_not_packaged_twice(tmp_path: Path) -> None:
    app, lib = tmp_path / "app", tmp_path / "lib"
    for folder, text in (
        (app, '[project]\nname = "app"\ndependencies = ["lib"]\n[tool.uv.sources]\nlib = { path = "../lib" }\n'),
        (lib, '[project]\nname = "lib"\n'),
    ):
        folder.mkdir()
        (folder / "pyproject.toml").write_text(text)
    assert [item.location for item in find_sources([app], ()).items] == [app, lib]
    assert [item.location for item in find_sources([app, lib], ()).items] == [app, lib]
    archive = "gs://bucket/lib-2.0-py3-none-any.whl"
    assert [item.location for item in find_sources([app, archive], ()).items] == [app, archive]


@pytest.mark.parametrize("named", ["lib-1.0.tar.gz", "./lib-1.0.tar.gz", "lib-1.0-py3-none-any.whl"])
def test_an_archive_in_the_current_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(named).touch()
    assert [item.location for item in find_sources([named], ()).items] == [Path(named)]
    project = '[project]\nname = "app"\ndependencies = ["lib"]\n[tool.uv.sources]\nlib = { path = "../lib" }\n'
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(project)
    assert [item.location for item in find_sources([app, named], ()).items] == [app, Path(named)]


def test_a_source_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(PackageError, match=r"trainer-1\.0\.tar\.gz cannot be read: File name too long"):
        find_sources([f"{'x' * 300}trainer-1.0.tar.gz"], ())


def test_an_empty_list_of_sources_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no source"):
        find_sources([], ())
    with pytest.raises(PackageError, match=" does not exist"):
        find_sources([tmp_path / "absent"], ())
