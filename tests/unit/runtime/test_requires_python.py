"""The Python versions that a package's metadata requires."""

from __future__ import annotations

import io
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from mlengine.runtime.requires_python import accepts, excluded, required, wheel_accepts


def metadata(requires: str | None) -> str:
    line = f"Requires-Python: {requires}\n" if requires else ""
    return f"Metadata-Version: 2.1\nName: t\nVersion: 1.0\n{line}\nRequires-Python: >=9 in the description\n"


def tar(files: dict[str, str]) -> io.BytesIO:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    sink.seek(0)
    return sink


def zipped(files: dict[str, str]) -> io.BytesIO:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return sink


@pytest.mark.parametrize(
    ("filename", "file"),
    [
        ("t-1.0.tar.gz", tar({"t-1.0/t.egg-info/PKG-INFO": metadata(">=9"), "t-1.0/PKG-INFO": metadata("<3.11")})),
        ("t-1.0.zip", zipped({"t-1.0/t.egg-info/PKG-INFO": metadata(">=9"), "t-1.0/PKG-INFO": metadata("<3.11")})),
        ("t-1.0-py3-none-any.whl", zipped({"t-1.0.dist-info/METADATA": metadata("<3.11"), "t/x.txt": "no"})),
        # An archive of a repository has no metadata, but its pyproject.toml may have the requirement.
        ("t-main.tar.gz", tar({"t-main/pyproject.toml": '[project]\nrequires-python = "<3.11"\n'})),
        (
            "t-1.0.tar.gz",
            tar({"t-1.0/pyproject.toml": '[project]\nrequires-python = ">=9"\n', "t-1.0/PKG-INFO": metadata("<3.11")}),
        ),
    ],
)
def test_requires_python_is_found(filename: str, file: io.BytesIO) -> None:
    assert required(filename, file) == "<3.11"


@pytest.mark.parametrize(
    "file",
    [
        tar({"t-1.0/PKG-INFO": metadata(None)}),
        tar({"t-1.0/setup.py": ""}),
        tar({"t-1.0/pyproject.toml": "no TOML"}),
        tar({"t-1.0/pyproject.toml": "[build-system]\n", "t-1.0/examples/pyproject.toml": "[project]\n"}),
    ],
)
def test_a_missing_requires_python_is_accepted(file: io.BytesIO) -> None:
    assert required("t-1.0.tar.gz", file) is None


@pytest.mark.parametrize("wanted", [">=3.7,<3.12", "==3.11.*", "~=3.11", ">=3.11.0rc1", "nonsense"])
def test_accepted_python_versions(wanted: str) -> None:
    assert accepts(wanted, "3.11.7")


@pytest.mark.parametrize("wanted", [">=3.7,<3.11", ">=3.12", "==3.10.*", "<3"])
def test_refused_python_versions(wanted: str) -> None:
    assert not accepts(wanted, "3.11.7", "3.11.0")


def test_installed_packages_for_another_python_are_named(tmp_path: Path) -> None:
    for name, requires in (("t", None), ("old", ">=3.7,<3.11"), ("new", ">=3.8")):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(metadata(requires).replace("Name: t", f"Name: {name}"))
    import_module("importlib_metadata")  # replaces the standard library's finder
    assert excluded(tmp_path, "3.11.7") == ["old 1.0 (>=3.7,<3.11)"]


@pytest.mark.parametrize(
    ("filename", "accepted"),
    [
        ("t-1.0.tar.gz", True),
        ("t.whl", True),
        ("t-1.0-py3-none-any.whl", True),
        ("t-1.0-1-py2.py3-none-any.whl", True),
        ("t-1.0-py39-none-any.whl", True),
        ("t-1.0-py312-none-any.whl", False),
        ("t-1.0-cp311-cp311-linux_x86_64.whl", True),
        ("t-1.0-cp38-cp38-linux_x86_64.whl", False),
        ("t-1.0-cp38-abi3-linux_x86_64.whl", True),
        ("t-1.0-cp313-abi3-linux_x86_64.whl", False),
        ("t-1.0-pp311-pypy311_pp73-linux_x86_64.whl", False),
    ],
)
def test_a_wheel_is_for_the_versions_in_its_name(filename: str, accepted: bool) -> None:
    assert wheel_accepts(filename, "3.11") is accepted
    assert wheel_accepts(filename, "3.11.9") is accepted
