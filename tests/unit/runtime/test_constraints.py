"""Finding ``constraints.txt`` in archives, and merging several."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from mlengine.runtime import constraints
from mlengine.runtime.constraint_lines import ConstraintsError


def tar(path: Path, files: dict[str, bytes], mode: Literal["w:gz", "w:xz"] = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def sdist(folder: Path, name: str, text: str) -> Path:
    return tar(folder / f"{name}-1.tar.gz", {f"{name}-1/constraints.txt": text.encode()})


def read(path: Path) -> bytes | None:
    with path.open("rb") as file:
        return constraints.read(path.name, file)


def test_constraints_are_read_only_at_the_root_of_an_sdist(tmp_path: Path) -> None:
    path = tar(tmp_path / "t-1.tar.gz", {"t-1/sub/constraints.txt": b"no", "t-1/constraints.txt": b"yes==1"})
    assert read(path) == b"yes==1"
    assert read(tar(tmp_path / "u-1.tar.gz", {"u-1/sub/constraints.txt": b"no"})) is None


def test_constraints_are_read_from_a_zip_but_not_from_a_wheel(tmp_path: Path) -> None:
    for name in ("t-1.zip", "t-1-py3-none-any.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("t-1/constraints.txt", "yes==1")
    assert read(tmp_path / "t-1.zip") == b"yes==1"
    assert read(tmp_path / "t-1-py3-none-any.whl") is None


def test_a_constraints_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "t-1.tar.gz", {"t-1/constraints.txt": b"#" * (constraints.MAX_BYTES + 1)})
    with pytest.raises(ConstraintsError, match=r"t-1\.tar\.gz: constraints\.txt has 4194305 bytes"):
        read(path)


@pytest.mark.parametrize("name", ["t-1.tar.gz", "t-1.zip"])
def test_a_broken_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(ConstraintsError, match=f"{name} is not a readable archive"):
        read(tmp_path / name)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    """The archives are damaged in the middle, use an unsupported compression, or are encrypted."""
    content = os.urandom(200_000)
    path = tar(tmp_path / "t-1.tar.xz", {"t-1/data": content, "t-1/constraints.txt": b"yes==1"}, mode="w:xz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(100) + whole[len(whole) // 2 + 100 :])
    with zipfile.ZipFile(tmp_path / "t-1.zip", "w") as archive:
        archive.writestr("t-1/constraints.txt", "yes==1")
    stored = (tmp_path / "t-1.zip").read_bytes()
    entry = stored.index(b"PK\x01\x02")
    for name, field, value in (("odd-1.zip", 10, 99), ("secret-1.zip", 8, 1)):
        changed = bytearray(stored)
        changed[entry + field] = value
        if field == 8:  # the flag is repeated in the file's local header
            changed[6] = value
        (tmp_path / name).write_bytes(changed)
    for name in ("t-1.tar.xz", "odd-1.zip", "secret-1.zip"):
        with pytest.raises(ConstraintsError, match=f"{name} is not a readable archive"):
            read(tmp_path / name)


def test_constraints_of_all_packages_apply(tmp_path: Path) -> None:
    packages = [
        sdist(tmp_path, "a", "six==1.17.0\nb==3\n"),
        tar(tmp_path / "b-1.tar.gz", {"b-1/x": b""}),
        tar(tmp_path / "c-1.tar.gz", {"./c-1/constraints.txt": b"six==1.17\nclick==8.1.8\n-e ./a\n"}),
    ]
    # a and b are installed from their own packages, so constraints on them are ignored.
    assert constraints.of_packages(packages).text == "six==1.17.0\nsix==1.17\nclick==8.1.8\n"


def test_contradictions_are_named(tmp_path: Path) -> None:
    packages = [sdist(tmp_path, "a", "six==1.17.0\n"), sdist(tmp_path, "b", "click==8.1.8\nSix==1.16.0\n")]
    with pytest.raises(ConstraintsError) as caught:
        constraints.of_packages(packages)
    assert str(caught.value) == (
        "b-1.tar.gz: constraints.txt:2 has Six==1.16.0, and a-1.tar.gz: constraints.txt:1 has six==1.17.0"
    )
    assert "change one of the files" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "six==1.16.0 ; python_version < '3'\nsix==1.17.0 ; python_version >= '3'\n",  # only one of the markers is true
        "six>=1.16\nsix==1.17.0\n",
        "six==1.17.*\nsix==1.17.0\n",
        "torch==2.3.0\ntorch==2.3.0+cpu\n",
    ],
)
def test_constraints_that_may_be_compatible_are_left_to_the_installer(tmp_path: Path, text: str) -> None:
    assert constraints.of_packages([sdist(tmp_path, "a", text)]).text == text


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("My_Trainer-1.0.tar.gz", "my-trainer"),
        ("my.trainer-1.0.post1.zip", "my-trainer"),
        ("my_trainer-1.0-py3-none-any.whl", "my-trainer"),
        ("tf-models-official-2.0.tar.gz", "tf-models-official"),
    ],
)
def test_the_package_name_is_read_from_a_file_name(filename: str, name: str) -> None:
    assert constraints.package_name(filename) == name
