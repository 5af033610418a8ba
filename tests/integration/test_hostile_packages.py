"""Tests packages in the bucket from other sources: the installer must not write outside the environment."""

from __future__ import annotations

import io
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime.venv import build_environment
from mlengine.storage.client import Storage
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration


def archive(*members: tuple[str, str]) -> bytes:
    """An sdist with additional members. Content that begins with ``->`` makes the member a link."""
    buffer = io.BytesIO(local.sdist("print('hello')"))
    with tarfile.open(fileobj=buffer) as old:
        kept = [(member, old.extractfile(member)) for member in old.getmembers()]
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as new:
            for member, content in kept:
                new.addfile(member, content)
            for name, text in members:
                info = tarfile.TarInfo(name)
                if text.startswith("->"):
                    info.type, info.linkname = tarfile.SYMTYPE, text[2:]
                    new.addfile(info)
                else:
                    info.size = len(text)
                    new.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


@pytest.mark.parametrize("kind", ["up", "link", "absolute"])
def test_an_sdist_with_paths_outside_its_folder_is_refused(
    storage: Storage, bucket: str, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    members = {
        "up": [(f"tiny-1.0/{'../' * 30}{str(outside)[1:]}/evil", "x")],
        "link": [("tiny-1.0/link", f"->{outside}"), ("tiny-1.0/link/evil", "x")],
        "absolute": [(f"{outside}/evil", "x")],
    }[kind]
    uri = local.put(storage, bucket, archive(*members))
    state = tmp_path / "state"
    state.mkdir()
    with pytest.raises(EnvironmentBuildError):
        build_environment([uri], storage, state)
    assert list(outside.iterdir()) == []
    assert list((state / "envs").iterdir()) == []


def test_a_wheel_cannot_write_outside_its_environment(storage: Storage, bucket: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    buffer = io.BytesIO(local.wheel("print('hello')"))
    with zipfile.ZipFile(buffer, "a") as wheel:
        wheel.writestr(f"{'../' * 30}{str(outside)[1:]}/evil", "x")
    uri = local.put(storage, bucket, buffer.getvalue(), "tiny-1.0-py3-none-any.whl")
    state = tmp_path / "state"
    state.mkdir()
    with suppress(EnvironmentBuildError):  # the installer may refuse the package or skip the file
        build_environment([uri], storage, state)
    assert list(outside.iterdir()) == []
