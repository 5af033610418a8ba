"""Tests projects of all kinds, built by their own backends from a user's directory and its surroundings."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from mlengine.core.errors import PackageError
from mlengine.packaging.archive import read_archive
from mlengine.packaging.publish import PackagedTrainer, package_trainer
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration

SETUPTOOLS = '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
HATCHLING = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
UV_BUILD = '[build-system]\nrequires = ["uv_build>=0.9,<1"]\nbuild-backend = "uv_build"\n'
POETRY_CORE = '[build-system]\nrequires = ["poetry-core>=2"]\nbuild-backend = "poetry.core.masonry.api"\n'
PROJECT = '[project]\nname = "{name}"\nversion = "1.0"\n'


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def trainer(root: Path, files: dict[str, str]) -> Path:
    return write(root, {"trainer/__init__.py": "", "trainer/task.py": "print('hello')\n", **files})


def contents(storage: Storage, packaged: PackagedTrainer, number: int = 0) -> frozenset[str]:
    uri = packaged.uris[number]
    return read_archive(storage.read(uri), uri.rsplit("/", 1)[1], uri).paths


def sdist_by_hand(root: Path, out: Path) -> set[str]:
    """The files that ``uv build --sdist`` puts into an sdist in the user's own directory."""
    command = [find_uv_bin(), "build", "-q", "--sdist", "--out-dir", str(out), "--python", sys.executable, str(root)]
    subprocess.run(command, check=True)
    [sdist] = out.glob("*.tar.gz")
    return set(read_archive(sdist.read_bytes(), sdist.name, sdist.name).paths)


READS_REQUIREMENTS = """\
from setuptools import find_packages, setup
setup(
    name="old", version="1.0", packages=find_packages(),
    install_requires=open("requirements.txt").read().split(),
)
"""


def test_a_file_read_by_setup_py_but_missing_in_the_sdist_is_named(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    root = trainer(tmp_path / "old", {"setup.py": READS_REQUIREMENTS, "requirements.txt": "six\n"})
    with pytest.raises(
        PackageError, match=r"reads requirements\.txt, which is in .*old but not in the sdist"
    ) as caught:
        package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    assert "FileNotFoundError" in caught.value.message
    assert "'include requirements.txt' to MANIFEST.in" in caught.value.hint
    assert storage.ls(bucket) == []

    write(root, {"MANIFEST.in": "include requirements.txt\n"})
    assert package_trainer(root, storage=storage, staging=bucket, module="trainer.task").version == "1.0"


def test_a_file_outside_the_project_cannot_be_used_by_the_build(storage: Storage, bucket: str, tmp_path: Path) -> None:
    write(tmp_path, {"VERSION": "7"})
    setup = "from setuptools import setup\nsetup(name='t', version=open('../VERSION').read(), packages=['trainer'])\n"
    root = trainer(tmp_path / "project", {"setup.py": setup})
    with pytest.raises(PackageError) as caught:
        package_trainer(root, storage=storage, staging=bucket)
    assert f"{tmp_path / 'VERSION'} is outside of the project" in caught.value.hint


def test_an_excluded_file_that_the_build_needs_is_named_with_the_reason(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    setup = "from setuptools import setup\nsetup(name='t', version=open('.env').read(), packages=['trainer'])\n"
    root = trainer(tmp_path / "project", {"setup.py": setup, ".env": "1.0"})
    with pytest.raises(PackageError) as caught:
        package_trainer(root, storage=storage, staging=bucket)
    assert ".env is not packaged (looks like a secret)" in caught.value.hint


def test_a_module_missing_in_the_wheel_is_an_error(storage: Storage, bucket: str, tmp_path: Path) -> None:
    pyproject = SETUPTOOLS + PROJECT.format(name="t") + '[tool.setuptools]\npackages = ["trainer"]\n'
    pyproject += "include-package-data = false\n"
    files = {"pyproject.toml": pyproject, "MANIFEST.in": "graft trainer\n"}
    root = trainer(tmp_path / "t", {**files, "trainer/sub/__init__.py": "", "trainer/sub/deep.py": ""})
    with pytest.raises(PackageError, match=r"no module trainer\.sub\.deep in t-1\.0-py3-none-any\.whl") as caught:
        package_trainer(root, storage=storage, staging=bucket, module="trainer.sub.deep")
    assert "trainer.task" in caught.value.hint


def test_data_files_missing_in_a_build_are_listed(storage: Storage, bucket: str, tmp_path: Path) -> None:
    pyproject = SETUPTOOLS + PROJECT.format(name="t") + '[tool.setuptools]\npackages = ["trainer"]\n'
    pyproject += 'package-dir = { "" = "src" }\n'
    files = {"src/trainer/__init__.py": "", "src/trainer/task.py": "", "src/trainer/vocab.txt": "a", "notes.txt": ""}
    root = write(tmp_path / "t", {"pyproject.toml": pyproject, **files})
    packaged = package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    assert [(left.path, "wheel" in left.reason) for left in packaged.left_out] == [("src/trainer/vocab.txt", True)]


def test_a_requirement_at_a_local_path_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    write(tmp_path / "lib", {"pyproject.toml": SETUPTOOLS + PROJECT.format(name="lib"), "lib.py": ""})
    setup = "import pathlib\nfrom setuptools import setup\n"
    setup += f"setup(name='t', version='1', packages=['trainer'], install_requires=['lib @ file://{tmp_path}/lib'])\n"
    root = trainer(tmp_path / "t", {"setup.py": setup})
    with pytest.raises(PackageError, match="requires lib at a local path") as caught:
        package_trainer(root, storage=storage, staging=bucket)
    assert "require lib by name, and package both" in caught.value.hint


def test_a_package_that_needs_a_compiler_is_packaged_with_a_note(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """The job's image may have a compiler or headers that this machine lacks."""
    setup = "from setuptools import Extension, setup\n"
    setup += "setup(name='t', version='1', packages=['trainer'], ext_modules=[Extension('fast', ['fast.c'])])\n"
    root = trainer(tmp_path / "t", {"setup.py": setup, "fast.c": "#include <no_such_header_here.h>\n"})
    packaged = package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    notes = "\n".join(packaged.notes)
    assert "this machine could not build a wheel of it" in notes
    assert "fast.c" in notes, "the note has the compiler's error, not uv's"
    assert "fast.c" in contents(storage, packaged)


NAMED_OTHERWISE = HATCHLING + PROJECT.format(name="my-app")
DATA_FILES = """\
from setuptools import setup
setup(name="t", version="1", packages=["trainer"], data_files=[("data", ["vocab.txt"])])
"""


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ({"pyproject.toml": NAMED_OTHERWISE}, "Unable to determine which files", 'write packages = ["DIRECTORY"]'),
        (
            {"pyproject.toml": f"{NAMED_OTHERWISE}[tool.hatch.build.targets.wheel.force-include]\n'no' = 'no'\n"},
            "Forced include not found",
            "correct the problem",
        ),
        ({"setup.py": DATA_FILES}, r"can't copy 'vocab\.txt'", "correct the problem"),
    ],
)
def test_a_wheel_that_no_machine_can_build_is_an_error(
    storage: Storage, bucket: str, tmp_path: Path, files: dict[str, str], message: str, hint: str
) -> None:
    root = trainer(tmp_path / "t", files)
    with pytest.raises(PackageError, match=f"(?s)cannot be installed: .*{message}") as caught:
        package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    assert hint in caught.value.hint
    assert storage.ls(bucket) == []


def test_a_missing_pkg_resources_gives_a_useful_hint(storage: Storage, bucket: str, tmp_path: Path) -> None:
    setup = "import pkg_resources\nfrom setuptools import setup\nsetup(name='t', version='1', packages=['trainer'])\n"
    root = trainer(tmp_path / "my-trainer", {"setup.py": setup})
    with pytest.raises(PackageError, match="No module named 'pkg_resources'") as caught:
        package_trainer(root, storage=storage, staging=bucket)
    assert "setuptools<82" in caught.value.hint
    assert "--no-build-isolation" not in str(caught.value), "uv's own advice must not be shown because it cannot help"

    write(root, {"pyproject.toml": '[build-system]\nrequires = ["setuptools<82"]\n'})
    assert package_trainer(root, storage=storage, staging=bucket).version == "1"


def test_build_errors_name_the_users_directory(storage: Storage, bucket: str, tmp_path: Path) -> None:
    setup = "import os, sys\nprint('directory', os.getcwd(), os.path.basename(os.getcwd()))\nimport numpy\n"
    root = trainer(tmp_path / "my-project", {"setup.py": setup})
    with pytest.raises(PackageError, match="No module named 'numpy'") as caught:
        package_trainer(root, storage=storage, staging=bucket)
    assert "add the package that provides it to 'requires' of [build-system]" in caught.value.hint
    assert f"directory {root} my-project" in caught.value.message
    assert "mlengine-package" not in str(caught.value)


@pytest.mark.parametrize("layout", ["trainer", "src/trainer"])
def test_a_package_dir_in_a_project_is_built_with_the_project(
    storage: Storage, bucket: str, tmp_path: Path, layout: str
) -> None:
    where = "'': 'src'" if layout.startswith("src") else ""
    setup = "from setuptools import find_packages, setup\n"
    setup += "setup(name='parent', version='2.5', install_requires=['six>=1.10'], "
    setup += f"packages=['trainer'], package_dir={{{where}}})\n"
    files = {f"{layout}/__init__.py": "", f"{layout}/task.py": ""}
    root = write(tmp_path / "project", {**files, "setup.py": setup})
    packaged = package_trainer(root / layout, storage=storage, staging=bucket, module="trainer.task")
    assert (packaged.name, packaged.version) == ("parent", "2.5")
    assert any("whose build and requirements are used" in note for note in packaged.notes)
    with tarfile.open(fileobj=io.BytesIO(storage.read(packaged.uris[0]))) as archive:
        assert any(member.name.endswith("requires.txt") for member in archive.getmembers())
    again = package_trainer(root / layout, storage=storage, staging=bucket, module="trainer.task")
    assert (again.reused, again.uris) == (True, packaged.uris)
    assert again.notes == packaged.notes

    alone = package_trainer(root / layout, storage=storage, staging=bucket, requirements=["six"])
    assert (alone.name, alone.version) == ("trainer", "0.0.0"), "own requirements must be part of the build"


def test_a_package_dir_that_its_project_excludes_is_packaged_alone(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    setup = "from setuptools import setup\nsetup(name='dags', version='2.5', packages=['dags'])\n"
    root = trainer(tmp_path / "project", {"setup.py": setup, "dags/__init__.py": ""})
    packaged = package_trainer(root / "trainer", storage=storage, staging=bucket, module="trainer.task")
    assert (packaged.name, packaged.version) == ("trainer", "0.0.0")
    assert any("does not include it" in note for note in packaged.notes)
    again = package_trainer(root / "trainer", storage=storage, staging=bucket, module="trainer.task")
    assert (again.reused, again.uris, again.notes) == (True, packaged.uris, packaged.notes)

    write(root, {"setup.py": setup.replace("['dags']", "['dags', 'trainer']")})
    now = package_trainer(root / "trainer", storage=storage, staging=bucket, module="trainer.task")
    assert now.name == "dags", "a changed build file must be taken into account"


def test_a_project_that_cannot_be_built_names_the_package_dir(storage: Storage, bucket: str, tmp_path: Path) -> None:
    root = trainer(tmp_path / "project", {"setup.py": "raise SystemExit('no build today')\n"})
    with pytest.raises(PackageError, match=r"(?s)trainer is part of the project .*no build today") as caught:
        package_trainer(root / "trainer", storage=storage, staging=bucket)
    assert "to package trainer alone" in caught.value.hint


APP = UV_BUILD + PROJECT.format(name="app") + 'dependencies = ["acme-lib>=1"]\n'
LIB = UV_BUILD + PROJECT.format(name="acme_lib")
MODULES = {"src/app/__init__.py": "", "src/app/task.py": "import acme_lib\nprint(acme_lib.NAME)\n"}


def run_installed(storage: Storage, packaged: PackagedTrainer, work: Path, module: str) -> str:
    """Install the packages from the bucket without an index, and run the module."""
    files = []
    for uri in packaged.uris:
        files.append(str(work / uri.rsplit("/", 1)[1]))
        storage.download(uri, Path(files[-1]))
    subprocess.run([find_uv_bin(), "venv", "-q", "--python", sys.executable, str(work / "env")], check=True)
    python = str(work / "env" / "bin" / "python")
    wheels = []
    for file in files:  # built with an index, installed without one
        command = [find_uv_bin(), "build", "-q", "--wheel", "--out-dir", str(work / "wheels"), "--python", python, file]
        subprocess.run(command, check=True)
    wheels = sorted(str(path) for path in (work / "wheels").glob("*.whl"))
    subprocess.run([find_uv_bin(), "pip", "install", "-q", "--offline", "--python", python, *wheels], check=True)
    return subprocess.run([python, "-m", module], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("kind", ["workspace", "path", "poetry"])
def test_local_requirements_are_packaged_with_the_trainer(
    storage: Storage, bucket: str, tmp_path: Path, kind: str
) -> None:
    pyproject = {
        "workspace": APP + "[tool.uv.sources]\nacme-lib = { workspace = true }\n",
        "path": APP + '[tool.uv.sources]\nacme-lib = { path = "../lib", editable = true }\n',
        "poetry": APP.replace(UV_BUILD, POETRY_CORE)
        + '[tool.poetry.dependencies]\nacme-lib = { path = "../lib", develop = true }\n',
    }[kind]
    root = tmp_path / "ws"
    if kind == "workspace":
        write(root, {"pyproject.toml": '[tool.uv.workspace]\nmembers = ["packages/*"]\n'})
    app = write(root / "packages" / "app", {**MODULES, "pyproject.toml": pyproject})
    write(root / "packages" / "lib", {"pyproject.toml": LIB, "src/acme_lib/__init__.py": "NAME = 'private'\n"})
    packaged = package_trainer(app, storage=storage, staging=bucket, module="app.task")
    assert [uri.rsplit("/", 1)[1] for uri in packaged.uris] == ["app-1.0.tar.gz", "acme_lib-1.0.tar.gz"]
    assert any("packages/lib, which is packaged too" in note for note in packaged.notes)
    assert run_installed(storage, packaged, tmp_path, "app.task") == "private\n"
    assert package_trainer(app, storage=storage, staging=bucket, module="app.task").reused

    write(root / "packages" / "lib", {"src/acme_lib/__init__.py": "NAME = 'other'\n"})
    changed = package_trainer(app, storage=storage, staging=bucket, module="app.task")
    assert changed.digest != packaged.digest


@pytest.mark.parametrize("where", ["above", "root"])
def test_hatchling_respects_ignore_files_as_in_a_manual_build(
    storage: Storage, bucket: str, tmp_path: Path, where: str
) -> None:
    pyproject = HATCHLING + PROJECT.format(name="trainer")
    root = trainer(tmp_path / "home" / "project", {"pyproject.toml": pyproject, "trainer/weights.bin": "x"})
    ignore = root.parent / ".gitignore" if where == "above" else root / ".gitignore"
    ignore.write_text("*.bin\n")
    packaged = package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    assert contents(storage, packaged) == sdist_by_hand(root, tmp_path / "out")
    assert "trainer/weights.bin" not in contents(storage, packaged)
    assert "trainer/weights.bin" in {left.path for left in packaged.left_out}

    ignore.write_text("")
    changed = package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    assert "trainer/weights.bin" in contents(storage, changed)


def test_an_ignore_file_in_the_temporary_directory_is_not_used(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = write(tmp_path / "scratch", {".gitignore": "*.bin\n"})
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    pyproject = HATCHLING + PROJECT.format(name="trainer")
    root = trainer(tmp_path / "project", {"pyproject.toml": pyproject, "trainer/weights.bin": "x"})
    packaged = package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    assert "trainer/weights.bin" in contents(storage, packaged)


def test_a_dry_run_names_the_packages_and_uploads_nothing(storage: Storage, bucket: str, tmp_path: Path) -> None:
    root = trainer(tmp_path / "work", {"pyproject.toml": SETUPTOOLS + PROJECT.format(name="My.Trainer")})
    alone = write(tmp_path / "helper", {"__init__.py": "", "words.py": ""})
    sources = [root, alone]
    planned = package_trainer(sources, storage=storage, staging=bucket, module="trainer.task", dry_run=True)
    assert storage.ls(bucket) == []
    made = package_trainer(sources, storage=storage, staging=bucket, module="trainer.task")
    assert planned.uris == made.uris
    with pytest.raises(PackageError, match=r"no module trainer\.tsk"):
        package_trainer(root, storage=storage, staging=bucket, module="trainer.tsk", dry_run=True)
    with pytest.raises(PackageError, match=r"no module trainer\.tsk"):
        package_trainer(made.uris[0], storage=storage, staging=bucket, module="trainer.tsk", dry_run=True)


def test_a_dry_run_needs_no_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setattr("mlengine.storage.retries.CONNECT_DEADLINE", 0.1)
    alone = write(tmp_path / "helper", {"__init__.py": "", "words.py": ""})
    sources: list[Path | str] = [alone, "gs://bucket/other-1.0.tar.gz"]
    planned = package_trainer(sources, storage=Storage(), staging="gs://bucket", dry_run=True)
    assert planned.uris[1] == "gs://bucket/other-1.0.tar.gz"
    assert any("not checked" in note for note in planned.notes)
