"""Tests builds that use git: same version and files as a build in the user's clone, which is not modified."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from uv import find_uv_bin

from mlengine.core.errors import PackageError
from mlengine.packaging.archive import read_archive
from mlengine.packaging.publish import PackagedTrainer, package_trainer
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration

SCM = """\
[build-system]
requires = ["setuptools>=77", "setuptools-scm>=8"]
build-backend = "setuptools.build_meta"
[project]
name = "trainer"
dynamic = ["version"]
[tool.setuptools.packages.find]
include = ["trainer*"]
[tool.setuptools_scm]
"""
HATCH_VCS = """\
[build-system]
requires = ["hatchling", "hatch-vcs"]
build-backend = "hatchling.build"
[project]
name = "trainer"
dynamic = ["version"]
[tool.hatch.version]
source = "vcs"
"""
UV_DYNAMIC = """\
[build-system]
requires = ["hatchling", "uv-dynamic-versioning"]
build-backend = "hatchling.build"
[project]
name = "trainer"
dynamic = ["version"]
[tool.hatch.version]
source = "uv-dynamic-versioning"
"""
POETRY = """\
[build-system]
requires = ["poetry-core>=2"]
build-backend = "poetry.core.masonry.api"
[project]
name = "trainer"
version = "1.0"
"""
PBR_SETUP = "import setuptools\nsetuptools.setup(setup_requires=['pbr'], pbr=True)\n"
PBR_CONFIG = "[metadata]\nname = trainer\n[files]\npackages =\n    trainer\n"
PBR_BUILD = '[build-system]\nrequires = ["setuptools>=77", "pbr>=6"]\nbuild-backend = "setuptools.build_meta"\n'
DESCRIBE = """\
import os, subprocess
from setuptools import setup
if os.path.exists("PKG-INFO"):
    version = next(line.split()[1] for line in open("PKG-INFO") if line.startswith("Version:"))
else:
    version = subprocess.check_output(["git", "describe", "--tags"], text=True).strip().lstrip("v").replace("-", "+", 1)
setup(name="trainer", version=version, packages=["trainer"])
"""


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs git in a directory, as a user without personal settings."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A Trainer")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "trainer@example.com")
        monkeypatch.setenv(f"GIT_{name}_DATE", "2026-01-01T00:00:00Z")

    def run(folder: Path, *arguments: str) -> str:
        command = ["git", "-c", "init.defaultBranch=main", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture
def clone(tmp_path: Path, git: Callable[..., str]) -> Callable[[dict[str, str]], Path]:
    """Creates a repository with a package, data that only git lists, a tag, and one commit after the tag."""

    def make(files: dict[str, str], prefix: str = "") -> Path:
        top = tmp_path / "clone"
        project = top / prefix
        files = {**files, "trainer/__init__.py": "", "trainer/task.py": "", "trainer/vocab.txt": "a"}
        for name, text in files.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(text)
        (top / "other.txt").write_text("outside of the project")
        git(top, "init", "-q")
        git(top, "add", "--all")
        git(top, "commit", "-q", "-m", "first")
        git(top, "tag", "v1.2.0")
        (project / "trainer" / "task.py").write_text("print('hello')\n")
        git(top, "commit", "-q", "--all", "-m", "second")
        return project

    return make


def by_hand(project: Path, out: Path) -> tuple[str, set[str]]:
    """The version and the files of an sdist that is built in the user's clone."""
    command = [find_uv_bin(), "build", "-q", "--sdist", "--out-dir", str(out), "--python", sys.executable]
    subprocess.run([*command, str(project)], check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "315532800"})
    [sdist] = out.glob("*.tar.gz")
    archive = read_archive(sdist.read_bytes(), sdist.name, sdist.name)
    sdist.unlink()
    return archive.version, set(archive.paths)


def contents(storage: Storage, packaged: PackagedTrainer) -> set[str]:
    uri = packaged.uris[0]
    return set(read_archive(storage.read(uri), uri.rsplit("/", 1)[1], uri).paths)


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}" for path in files}


BUILDS = {
    "setuptools-scm": ({"pyproject.toml": SCM}, "1.2.1.dev1"),
    "hatch-vcs": ({"pyproject.toml": HATCH_VCS}, "1.2.1.dev1"),
    "uv-dynamic-versioning": ({"pyproject.toml": UV_DYNAMIC}, "1.2.0.post1.dev0"),
    "pbr": ({"pyproject.toml": PBR_BUILD, "setup.py": PBR_SETUP, "setup.cfg": PBR_CONFIG}, "1.2.1.dev1"),
    "git describe": ({"setup.py": DESCRIBE}, "1.2.0+1"),
}


@pytest.mark.parametrize("tool", BUILDS)
def test_a_build_that_uses_git_gives_the_same_result_as_a_manual_build(
    storage: Storage, bucket: str, tmp_path: Path, clone: Callable[..., Path], tool: str
) -> None:
    files, version = BUILDS[tool]
    project = clone(files)
    expected = by_hand(project, tmp_path / "out")
    subprocess.run(["git", "clean", "-fdxq"], cwd=project, check=True)  # remove what the manual build has left
    before = snapshot(project)
    packaged = package_trainer(project, storage=storage, staging=bucket, module="trainer.task")
    assert (packaged.version, contents(storage, packaged)) == expected
    assert packaged.version.startswith(version)
    assert snapshot(project) == before, "the user's files and repository must not be changed"
    assert packaged.notes == ()


def test_data_files_listed_only_by_git_are_packaged(storage: Storage, bucket: str, clone: Callable[..., Path]) -> None:
    packaged = package_trainer(clone({"pyproject.toml": SCM}), storage=storage, staging=bucket)
    assert "trainer/vocab.txt" in contents(storage, packaged)
    assert {left.path for left in packaged.left_out} == {".git/"}, "the build must not exclude files"


def test_commits_tags_and_local_changes_give_another_package(
    storage: Storage, bucket: str, clone: Callable[..., Path], git: Callable[..., str]
) -> None:
    """The project is a part of a larger repository; the package contains only the project."""
    scm = SCM + 'root = ".."\nlocal_scheme = "dirty-tag"\n'
    project = clone({"pyproject.toml": scm}, "project")
    top = project.parent

    def package() -> PackagedTrainer:
        return package_trainer(project, storage=storage, staging=bucket)

    first = package()
    assert first.version == "1.2.1.dev1", "files that were not copied must not count as changed"
    assert package().reused
    git(top, "tag", "v2.0.0")
    assert package().version == "2.0.0"
    (top / "other.txt").write_text("changed")
    dirty = package()
    assert dirty.version == "2.0.1.dev0+dirty"
    assert package().reused
    git(top, "commit", "-q", "--all", "-m", "third")
    assert package().version == "2.0.1.dev1"
    git(top, "checkout", "-q", "--detach", "HEAD~1")
    assert package().version == "2.0.0"


def test_the_version_can_be_set_without_git(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "trainer").mkdir(parents=True)
    (project / "trainer" / "__init__.py").touch()
    (project / "pyproject.toml").write_text(SCM)
    with pytest.raises(PackageError) as caught:
        package_trainer(project, storage=storage, staging=bucket)
    assert "git finds no repository" in caught.value.hint
    assert "set SETUPTOOLS_SCM_PRETEND_VERSION" in caught.value.hint

    monkeypatch.setenv("SETUPTOOLS_SCM_PRETEND_VERSION", "3.4")
    packaged = package_trainer(project, storage=storage, staging=bucket)
    assert packaged.version == "3.4"
    assert any("files that only git lists" in note for note in packaged.notes)
    monkeypatch.setenv("SETUPTOOLS_SCM_PRETEND_VERSION", "3.5")
    assert package_trainer(project, storage=storage, staging=bucket).version == "3.5"


def test_missing_git_is_reported(
    storage: Storage, bucket: str, tmp_path: Path, clone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = clone({"setup.py": DESCRIBE})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError) as caught:
        package_trainer(project, storage=storage, staging=bucket)
    assert "git is not installed on this machine" in caught.value.hint


def test_a_version_that_needs_git_at_installation_is_refused(
    storage: Storage, bucket: str, clone: Callable[..., Path]
) -> None:
    """Such an sdist could be built but not installed."""
    setup = "import subprocess\nfrom setuptools import setup\n"
    setup += "done = subprocess.run(['git', 'describe', '--tags', '--abbrev=0'], capture_output=True, text=True)\n"
    setup += "setup(name='trainer', version=done.stdout.strip() or '0.0.0', packages=['trainer'])\n"
    with pytest.raises(PackageError, match=r"declares version 1\.2\.0.*declares version 0\.0\.0") as caught:
        package_trainer(clone({"setup.py": setup}), storage=storage, staging=bucket)
    assert "read the version from PKG-INFO" in caught.value.hint


def test_a_broken_repository_fails_only_builds_that_use_git(
    storage: Storage, bucket: str, clone: Callable[..., Path]
) -> None:
    project = clone({"setup.py": "from setuptools import setup\nsetup(name='t', version='1', packages=['trainer'])\n"})
    (project / ".git" / "index").write_bytes(b"broken")
    assert package_trainer(project, storage=storage, staging=bucket).version == "1"
    (project / "setup.py").write_text(DESCRIBE)
    with pytest.raises(PackageError, match="git status failed"):
        package_trainer(project, storage=storage, staging=bucket)


def test_poetry_excludes_files_that_git_ignores(
    storage: Storage, bucket: str, tmp_path: Path, clone: Callable[..., Path]
) -> None:
    project = clone({"pyproject.toml": POETRY, ".gitignore": "*.bin\n"})
    (project / "trainer" / "weights.bin").write_text("x")
    packaged = package_trainer(project, storage=storage, staging=bucket)
    assert contents(storage, packaged) == by_hand(project, tmp_path / "out")[1]
    assert "trainer/weights.bin" not in contents(storage, packaged)
