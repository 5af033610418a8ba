"""Tests whether the module that a job file names is in the packages in the bucket."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from mlengine.core.errors import ObjectMissingError, PackageError
from mlengine.packaging.modules import check_module_in_packages
from mlengine.packaging.publish import package_trainer
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration


@pytest.fixture
def uris(storage: Storage, bucket: str, tmp_path: Path) -> tuple[str, ...]:
    """A trainer and a helper in the bucket."""
    for name, module in (("hello", "main.py"), ("helper", "words.py")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / module).touch()
    trainer = package_trainer(tmp_path / "hello", storage=storage, staging=bucket, requirements=["torch>=2"])
    return (*trainer.uris, *package_trainer(tmp_path / "helper", storage=storage, staging=bucket).uris)


def test_a_module_is_found_in_any_of_the_packages(storage: Storage, uris: tuple[str, ...]) -> None:
    for module in ("hello.main", "helper.words", "torch.distributed.run"):
        check_module_in_packages(module, uris, storage)


def test_a_misspelt_module_is_found_before_the_submission(storage: Storage, uris: tuple[str, ...]) -> None:
    with pytest.raises(PackageError, match=r"no module hello\.mian in gs://") as caught:
        check_module_in_packages("hello.mian", uris, storage)
    assert "hello.main" in caught.value.hint
    with pytest.raises(PackageError, match=r"no module helo\.main"):
        check_module_in_packages("helo.main", uris, storage)


def test_a_missing_package_is_named(storage: Storage, bucket: str, uris: tuple[str, ...]) -> None:
    with pytest.raises(ObjectMissingError, match=r"gone-1\.0\.tar\.gz"):
        check_module_in_packages("hello.main", [*uris, f"{bucket}/gone-1.0.tar.gz"], storage)


def test_a_package_that_is_too_large_is_not_checked(
    storage: Storage, uris: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mlengine.packaging.modules._MOST_BYTES", 10)
    check_module_in_packages("hello.mian", uris, storage)
    assert "module hello.mian is not checked" in caplog.text


def test_a_package_file_name_without_a_version_is_accepted(
    storage: Storage, bucket: str, uris: tuple[str, ...]
) -> None:
    """Installers accept this too."""
    uri = f"{bucket}/old/hello.tar.gz"
    storage.write(uri, storage.read(uris[0]))
    check_module_in_packages("hello.main", [uri], storage)
    with pytest.raises(PackageError, match=r"no module hello\.mian"):
        check_module_in_packages("hello.mian", [uri], storage)
    storage.write(f"{bucket}/old/hello.tgz", b"")
    check_module_in_packages("hello.main", [f"{bucket}/old/hello.tgz"], storage)


def test_a_wheel_of_another_system_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    wheel = tmp_path / "hello-1.0-cp311-cp311-macosx_14_0_arm64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hello/main.py", "")
        archive.writestr("hello-1.0.dist-info/METADATA", "Name: hello\nVersion: 1.0\n")
    uri = f"{bucket}/{wheel.name}"
    storage.write(uri, wheel.read_bytes())
    with pytest.raises(PackageError, match="jobs run on Linux"):
        check_module_in_packages("hello.main", [uri], storage)
    for source in (wheel, uri):
        with pytest.raises(PackageError, match="jobs run on Linux"):
            package_trainer(source, storage=storage, staging=bucket, module="hello.main")
