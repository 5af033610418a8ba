"""Existing packages: names, contents, and archives that would write outside of their directory."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlengine.core.errors import PackageError
from mlengine.packaging import constraint_check
from mlengine.packaging.archive import check_tags, name_and_version, read_archive
from mlengine.packaging.modules import check_module
from mlengine.packaging.source_tree import SourceTree
from mlengine.packaging.wheel_check import check_wheel


def tar(members: dict[str, str], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


def zipped(members: dict[str, str], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


SDIST = {"t-1.0/setup.py": "", "t-1.0/trainer/task.py": "x", "./t-1.0/src/../README": ""}


def test_paths_in_an_sdist_omit_its_top_directory() -> None:
    archive = read_archive(
        tar(SDIST, member("t-1.0/trainer", tarfile.DIRTYPE)), "t-1.0.tar.gz", "gs://bkt/t-1.0.tar.gz"
    )
    assert (archive.name, archive.version) == ("t", "1.0")
    assert archive.paths == {"setup.py", "trainer/task.py", "README"}
    assert read_archive(zipped(SDIST), "t-1.0.zip", "x").paths == archive.paths


def test_paths_in_a_wheel_are_kept() -> None:
    data = zipped({"trainer/task.py": "", "t-1.0.dist-info/METADATA": ""})
    assert "trainer/task.py" in read_archive(data, "t-1.0-py3-none-any.whl", "x").paths


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("trainer-0.0.0.tar.gz", ("trainer", "0.0.0")),
        ("my_trainer-1.2.post3+abc.tar.gz", ("my_trainer", "1.2.post3+abc")),
        ("my-old-trainer-2024.1.zip", ("my-old-trainer", "2024.1")),
        ("t-1.0-1-py3-none-any.whl", ("t", "1.0")),
        ("trainer.tar.gz", None),
        ("trainer-1.0.tgz", None),
        ("trainer-1.0.whl", None),
        ("task.py", None),
    ],
)
def test_names_and_versions_are_read_from_file_names(filename: str, expected: tuple[str, str] | None) -> None:
    if expected is not None:
        assert name_and_version(filename) == expected
        return
    with pytest.raises(PackageError) as caught:
        name_and_version(filename)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tar({**SDIST, "../evil": ""}), "outside"),
        (tar({**SDIST, "t-1.0/a/../../../evil": ""}), "outside"),
        (tar({**SDIST, "/etc/evil": ""}), "outside"),
        (tar({**SDIST, "t-1.0\\evil": ""}), "outside"),
        (tar(SDIST, member("t-1.0/link", tarfile.SYMTYPE, "../../etc/passwd")), "outside"),
        (tar(SDIST, member("t-1.0/link", tarfile.SYMTYPE, "/etc/passwd")), "outside"),
        (tar(SDIST, member("t-1.0/link", tarfile.LNKTYPE, "../passwd")), "outside"),
        (tar(SDIST, member("t-1.0/tty", tarfile.CHRTYPE)), "device"),
        (tar({"t-1.0/trainer/task.py": ""}), "not an sdist"),
        (tar({**SDIST, "u-1.0/setup.py": ""}), "not an sdist"),
        (tar({}), "not an sdist"),
        (tar(SDIST)[:-20], "cannot be read"),
        (tar(SDIST)[:-8] + b"12345678", "cannot be read"),
        (b"<html>404</html>", "cannot be read"),
        (b"", "cannot be read"),
        (tar(SDIST, member("t-1.0/PKG-INFO", tarfile.SYMTYPE, "missing")), "cannot be read: .*missing"),
        (tar(SDIST, member("t-1.0/PKG-INFO", tarfile.SYMTYPE, "PKG-INFO")), "cannot be read: .*recursion"),
    ],
)
def test_unsafe_archives_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(PackageError, match=rf"^gs://bkt/t.*{what}"):
        read_archive(data, "t-1.0.tar.gz", "gs://bkt/t-1.0.tar.gz")


def test_links_within_the_package_are_accepted() -> None:
    read_archive(tar(SDIST, member("t-1.0/trainer/link", tarfile.SYMTYPE, "../setup.py")), "t-1.0.tar.gz", "x")


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


METADATA = "t-1.0.dist-info/METADATA"
LZMA_PROPERTIES = b"\x05\x00\x5d\x00\x00\x80\x00"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (replaced(zipped({METADATA: "x"}, zipfile.ZIP_LZMA), LZMA_PROPERTIES, b"\x05\x00" + b"\xff" * 5), "options"),
        # The compression method, after the version and the flags: 12 is bzip2, 99 is unknown to zipfile.
        (replaced(zipped({METADATA: "x"}, zipfile.ZIP_BZIP2), b".\0\0\0\x0c\0", b".\0\0\0\x63\0"), "compression"),
    ],
)
def test_a_wheel_that_cannot_be_decoded_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(PackageError, match=rf"^gs://bkt/t\.whl cannot be read: .*{what}"):
        read_archive(data, "t-1.0-py3-none-any.whl", "gs://bkt/t.whl")


def test_constraints_that_cannot_be_decoded_are_refused() -> None:
    sdist = zipped({"t-1.0/setup.py": "", "t-1.0/constraints.txt": "six==1.17.0"}, zipfile.ZIP_LZMA)
    data = replaced(sdist, LZMA_PROPERTIES, b"\x05\x00" + b"\xff" * 5)
    with pytest.raises(PackageError, match=r"^gs://bkt/t\.zip is not a readable archive"):
        constraint_check.of_archive("t-1.0.zip", "gs://bkt/t.zip", data)


def test_metadata_is_read_as_utf_8() -> None:
    requirement = "foo @ file:///home/jörg/foo"
    text = f"Metadata-Version: 2.1\nSummary: größer\nRequires-Dist: {requirement}\nRequires-Dist: numpy\n"
    wheel = read_archive(zipped({METADATA: text}), "t-1.0-py3-none-any.whl", "x")
    assert wheel.requirements == (requirement, "numpy")
    assert read_archive(tar({**SDIST, "t-1.0/PKG-INFO": text}), "t-1.0.tar.gz", "x").requirements == wheel.requirements
    check_module("foo.task", wheel.paths, "x", wheel.requirements)
    with pytest.raises(PackageError, match=r"^/t requires foo at a local path"):
        check_wheel(wheel, SourceTree(Path("/t"), (), ()), None)


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py"])
def test_zip_sdists_are_read(name: str) -> None:
    with pytest.raises(PackageError, match="outside"):
        read_archive(zipped({name: "", "t-1.0.dist-info/METADATA": ""}), "t-1.0-py3-none-any.whl", "x")


def test_an_invalid_wheel_is_refused() -> None:
    with pytest.raises(PackageError, match="METADATA"):
        read_archive(zipped({"a.py": ""}), "t-1.0-py3-none-any.whl", "x")


def test_a_compression_bomb_in_an_sdist_is_refused() -> None:
    info = tarfile.TarInfo("t-1.0/zeros")
    info.size = 3 << 30
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("t-1.0/setup.py"))
        archive.fileobj.write(info.tobuf())
    with pytest.raises(PackageError, match=r"GiB|cannot be read"):
        read_archive(buffer.getvalue(), "t-1.0.tar.gz", "x")


def test_a_compression_bomb_in_a_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes in the archive's headers are sufficient; nothing is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
        archive.writestr("t-1.0.dist-info/METADATA", "")
    assert len(buffer.getvalue()) < 1 << 12
    monkeypatch.setattr("mlengine.packaging.archive.MAX_UNPACKED", 1 << 19)
    with pytest.raises(PackageError, match="GiB"):
        read_archive(buffer.getvalue(), "t-1.0-py3-none-any.whl", "x")


def test_an_archive_with_too_many_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlengine.packaging.archive.MAX_MEMBERS", 100)
    many = {f"t-1.0/f{number}": "" for number in range(101)}
    for data, name in ((tar({**SDIST, **many}), "t-1.0.tar.gz"), (zipped({**SDIST, **many}), "t-1.0.zip")):
        with pytest.raises(PackageError, match="100 files"):
            read_archive(data, name, "x")


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ("py3-none-any", ""),
        ("py2.py3-none-any", ""),
        ("cp312-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64", ""),
        ("cp311-cp311-linux_x86_64", ""),
        ("cp311-cp311-musllinux_1_2_aarch64", ""),
        ("py2-none-any", "is a wheel for Python 2"),
        ("cp27-cp27mu-manylinux1_x86_64", "is a wheel for Python 2"),
        ("cp311-cp311-macosx_14_0_arm64", "is a wheel for macosx_14_0_arm64, and jobs run on Linux"),
        ("cp311-cp311-win_amd64", "is a wheel for win_amd64, and jobs run on Linux"),
    ],
)
def test_a_wheel_that_no_job_can_install_is_refused(tags: str, problem: str) -> None:
    if not problem:
        check_tags(f"t-1.0-{tags}.whl", "x")
        return
    with pytest.raises(PackageError, match=f"x {problem}") as caught:
        check_tags(f"t-1.0-{tags}.whl", "x")
    assert "give the sdist" in caught.value.hint
