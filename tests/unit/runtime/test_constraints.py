"""Finding ``constraints.txt`` in an archive."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime import constraints


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_at_the_root_of_an_sdist_only(tmp_path: Path) -> None:
    path = tar(tmp_path / "t-1.tar.gz", {"t-1/sub/constraints.txt": b"no", "t-1/constraints.txt": b"yes==1"})
    assert constraints.read(path) == b"yes==1"
    assert constraints.read(tar(tmp_path / "u-1.tar.gz", {"u-1/sub/constraints.txt": b"no"})) is None


def test_in_a_zip_and_never_in_a_wheel(tmp_path: Path) -> None:
    for name in ("t-1.zip", "t-1-py3-none-any.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("t-1/constraints.txt", "yes==1")
    assert constraints.read(tmp_path / "t-1.zip") == b"yes==1"
    assert constraints.read(tmp_path / "t-1-py3-none-any.whl") is None


def test_a_file_too_large_to_be_one_is_not(tmp_path: Path) -> None:
    path = tar(tmp_path / "t-1.tar.gz", {"t-1/constraints.txt": b"#" * (2 << 20)})
    assert constraints.read(path) is None


@pytest.mark.parametrize("name", ["t-1.tar.gz", "t-1.zip"])
def test_a_broken_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(EnvironmentBuildError, match=f"{name} is not a readable archive"):
        constraints.read(tmp_path / name)


def test_each_package_has_its_own(tmp_path: Path) -> None:
    packages = [
        tar(tmp_path / "a-1.tar.gz", {"a-1/constraints.txt": b"a"}),
        tar(tmp_path / "b-1.tar.gz", {"b-1/x": b""}),
        tar(tmp_path / "c-1.tar.gz", {"./c-1/constraints.txt": b"c"}),
    ]
    written = constraints.write(packages, tmp_path)
    assert [path.read_bytes() for path in written] == [b"a", b"c"]
