"""A package that the image's Python cannot install is refused before it is paid for."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Any

import pytest

from mlengine.backends.vertex import python_version
from mlengine.core.errors import BackendError, ObjectMissingError

SDIST, WHEEL = "gs://bkt/t-1.0.tar.gz", "gs://bkt/t-1.0-py3-none-any.whl"


def metadata(requires: str | None) -> bytes:
    line = f"Requires-Python: {requires}\n" if requires else ""
    return f"Metadata-Version: 2.1\nName: t\nVersion: 1.0\n{line}\nRequires-Python: >=9 in the description\n".encode()


def sdist(requires: str | None) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        for name, text in (("t-1.0/t.egg-info/PKG-INFO", metadata(">=9")), ("t-1.0/PKG-INFO", metadata(requires))):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return sink.getvalue()


def wheel(requires: str | None) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("t-1.0.dist-info/METADATA", metadata(requires))
    return sink.getvalue()


class Objects(dict[str, bytes]):
    def read(self, uri: str) -> bytes:
        if uri not in self:
            raise ObjectMissingError(f"no object {uri}")
        return self[uri]


def body(image: str) -> dict[str, Any]:
    return {"jobSpec": {"workerPoolSpecs": [{"containerSpec": {"imageUri": image}}, {}]}}


@pytest.mark.parametrize(("data", "uri"), [(sdist(">=3.12"), SDIST), (wheel(">=3.12"), WHEEL)])
def test_what_it_cannot_install_is_refused(data: bytes, uri: str) -> None:
    with pytest.raises(BackendError, match=r"requires Python >=3\.12, and the image has 3\.11") as caught:
        python_version.check("j", body("python:3.11-slim"), (uri,), Objects({uri: data}))
    assert "pythonVersion" in caught.value.remedy
    python_version.check("j", body("python:3.12-slim"), (uri,), Objects({uri: data}))


@pytest.mark.parametrize("requires", [None, ">=3.10", ">=3.11.4", "<3.12", "==3.11.*", "nonsense", "~=3.11"])
def test_what_it_can_install_goes_through(requires: str | None) -> None:
    python_version.check(
        "j", body("mirror.example/python:3.11.9-bookworm"), (SDIST,), Objects({SDIST: sdist(requires)})
    )


def test_an_image_nobody_knows_is_left_to_its_owner() -> None:
    python_version.check("j", body("docker.example/mine:3.11"), (SDIST,), Objects())


def test_a_package_that_cannot_be_read_is_left_to_the_container(caplog: pytest.LogCaptureFixture) -> None:
    python_version.check("j", body("python:3.11"), (SDIST, WHEEL), Objects({SDIST: b"no archive", WHEEL: b""}))
    assert caplog.text.count("is not known") == 2


def test_a_package_that_is_not_there_is_refused() -> None:
    with pytest.raises(BackendError, match="there is no package gs://bkt/t-1"):
        python_version.check("j", body("python:3.11"), (SDIST,), Objects())
