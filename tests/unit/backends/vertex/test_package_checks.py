"""A job with a package that the image's Python cannot install is rejected before submission."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Any

import pytest

from mlengine.backends.vertex import package_checks
from mlengine.core.errors import BackendError, ObjectMissingError

MACHINE: dict[str, Any] = {"machineSpec": {"machineType": "n1-standard-4"}}
SDIST, WHEEL = "gs://bkt/t-1.0.tar.gz", "gs://bkt/t-1.0-py3-none-any.whl"


def metadata(requires: str | None) -> bytes:
    line = f"Requires-Python: {requires}\n" if requires else ""
    return f"Metadata-Version: 2.1\nName: t\nVersion: 1.0\n{line}\nRequires-Python: >=9 in the description\n".encode()


def sdist(
    requires: str | None, constraints: str | None = None, name: str = "t", metadata_text: str | None = None
) -> bytes:
    own = metadata(requires) if metadata_text is None else metadata_text.encode()
    files = {f"{name}-1.0/t.egg-info/PKG-INFO": metadata(">=9"), f"{name}-1.0/PKG-INFO": own}
    if constraints is not None:
        files[f"{name}-1.0/constraints.txt"] = constraints.encode()
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
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
    return {"jobSpec": {"workerPoolSpecs": [{**MACHINE, "containerSpec": {"imageUri": image}}, {}]}}


def test_a_wheel_for_another_python_is_refused() -> None:
    uri = "gs://bkt/t-1.0-cp38-cp38-linux_x86_64.whl"
    with pytest.raises(BackendError, match=r"cp38.*\.whl is a wheel for other versions.*image has 3\.11") as caught:
        package_checks.check("j", body("python:3.11-slim"), [uri], Objects({uri: wheel(None)}))
    assert "package the sdist" in caught.value.hint
    package_checks.check("j", body("example/mine:1"), [uri], Objects({uri: wheel(None)}))


@pytest.mark.parametrize(("data", "uri"), [(sdist(">=3.12"), SDIST), (wheel(">=3.12"), WHEEL)])
def test_a_package_that_the_image_cannot_install_is_refused(data: bytes, uri: str) -> None:
    with pytest.raises(BackendError, match=r"requires Python >=3\.12, and the image has 3\.11") as caught:
        package_checks.check("j", body("python:3.11-slim"), (uri,), Objects({uri: data}))
    assert "pythonVersion" in caught.value.hint
    package_checks.check("j", body("python:3.12-slim"), (uri,), Objects({uri: data}))


@pytest.mark.parametrize("requires", [None, ">=3.10", ">=3.11.4", "<3.12", "==3.11.*", "nonsense", "~=3.11"])
def test_a_package_that_the_image_can_install_is_accepted(requires: str | None) -> None:
    package_checks.check(
        "j", body("mirror.example/python:3.11.9-bookworm"), (SDIST,), Objects({SDIST: sdist(requires)})
    )


def test_the_image_of_each_pool_is_checked() -> None:
    pools = [{**MACHINE, "containerSpec": {"imageUri": f"python:3.{minor}-slim"}} for minor in (10, 12)]
    with pytest.raises(BackendError, match=r"requires Python <3\.12, and the image has 3\.12"):
        package_checks.check("j", {"jobSpec": {"workerPoolSpecs": pools}}, (SDIST,), Objects({SDIST: sdist("<3.12")}))


def test_a_package_for_an_unknown_image_is_not_checked() -> None:
    package_checks.check("j", body("docker.example/mine:3.11"), (SDIST,), Objects({SDIST: sdist("<3")}))


def test_constraints_that_the_start_command_would_refuse_are_refused() -> None:
    objects = Objects({SDIST: sdist(None, "six==1.17.0\n-r base.txt\n")})
    with pytest.raises(BackendError, match=r"j: t-1\.0\.tar\.gz: constraints\.txt:2 includes another file"):
        package_checks.check("j", body("docker.example/mine:1"), (SDIST,), objects)


def test_constraints_of_all_packages_are_compared() -> None:
    other = "gs://bkt/u-1.0.tar.gz"
    objects = Objects({SDIST: sdist(None, "six==1.17.0\nu==3\n"), other: sdist(None, "six==1.16.0\nt==3\n", "u")})
    with pytest.raises(BackendError, match=r"u-1\.0.*six==1\.16\.0, and t-1\.0.*six==1\.17\.0"):
        package_checks.check("j", body("python:3.11"), (SDIST, other), objects)
    objects[other] = sdist(None, "t==3\n", "u")  # constraints on packages of the job itself are ignored
    package_checks.check("j", body("python:3.11"), (SDIST, other), objects)


def test_an_image_that_ignores_constraints_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    pools = [{**MACHINE, "pythonPackageSpec": {"executorImageUri": "docker.example/executor:1"}}]
    objects = Objects({SDIST: sdist(None, "six==1.17.0\n-r base.txt\n")})
    package_checks.check("j", {"jobSpec": {"workerPoolSpecs": pools}}, (SDIST,), objects)
    assert "executor image does not read t-1.0.tar.gz: constraints.txt" in caplog.text


def test_an_unreadable_package_is_left_to_the_container(caplog: pytest.LogCaptureFixture) -> None:
    package_checks.check("j", body("python:3.11"), (SDIST, WHEEL), Objects({SDIST: b"no archive", WHEEL: b""}))
    assert caplog.text.count("is not known") == 2


def test_a_missing_package_is_refused() -> None:
    with pytest.raises(BackendError, match="there is no package gs://bkt/t-1"):
        package_checks.check("j", body("python:3.11"), (SDIST,), Objects())
