"""Tests packaging end to end: real source trees, the real builder, a real Cloud Storage server, a real installer."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
from uv import find_uv_bin

from mlengine.core.errors import BucketMissingError, ObjectMissingError, PackageError
from mlengine.packaging import build
from mlengine.packaging.archive import read_archive
from mlengine.packaging.publish import package_trainer
from mlengine.packaging.source_tree import scan
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration

PYPROJECT = """\
[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"
[project]
name = "My.Trainer"
version = "3.1"
[tool.uv.build-backend]
module-name = "trainer"
module-root = ""
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    task = "import pathlib, trainer.models.deep.net as net\n"
    task += "print(net.LAYERS, pathlib.Path(__file__).with_name('data').joinpath('vocab.txt').read_text())\n"
    return write(
        tmp_path / "trainer",
        {
            "__init__.py": "",
            "task.py": task,
            "models/__init__.py": "",
            "models/deep/__init__.py": "",
            "models/deep/net.py": "LAYERS = 3\n",
            "data/vocab.txt": "words",
            "data/.env": "TOKEN=1",
        },
    )


def project(root: Path, **files: str) -> Path:
    return write(root, {"trainer/__init__.py": "", "trainer/task.py": "print('project')\n", **files})


def snapshot(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def contents(storage: Storage, uri: str) -> frozenset[str]:
    return read_archive(storage.read(uri), uri.rsplit("/", 1)[1], uri).paths


@pytest.fixture
def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Counts the builds of the real builder."""
    builds: list[Path] = []
    real = build.build

    def counted(
        kind: Literal["sdist", "wheel"], source: Path, out: Path, shown: Mapping[Path, Path | str]
    ) -> build.Build:
        builds.append(source)
        return real(kind, source, out, shown)

    monkeypatch.setattr(build, "build", counted)
    return builds


def test_a_package_dir_is_packaged_completely_and_runs_when_installed(
    storage: Storage, bucket: str, trainer: Path, tmp_path: Path
) -> None:
    before = snapshot(trainer.parent)
    packaged = package_trainer(trainer, storage=storage, staging=bucket, module="trainer.task", requirements=["six>=1"])
    assert snapshot(trainer.parent) == before, "the user's source tree must not be changed"
    [uri] = packaged.uris
    assert uri == f"{bucket}/packages/trainer/{packaged.digest}/trainer-0.0.0.tar.gz"
    assert {"trainer/models/deep/net.py", "trainer/data/vocab.txt"} <= contents(storage, uri)
    assert "trainer/data/.env" not in contents(storage, uri)
    assert [left.path for left in packaged.left_out] == ["data/.env"]
    with tarfile.open(fileobj=io.BytesIO(storage.read(uri))) as archive:
        member = archive.extractfile("trainer-0.0.0/PKG-INFO")
        assert member is not None
        assert b"Requires-Dist: six>=1" in member.read()

    sdist = tmp_path / "trainer-0.0.0.tar.gz"
    storage.download(uri, sdist)
    install = [find_uv_bin(), "pip", "install", "-q", "--no-deps", "--python", sys.executable]
    subprocess.run([*install, "--target", str(tmp_path / "site"), str(sdist)], check=True)
    run = [sys.executable, "-m", "trainer.task"]
    done = subprocess.run(run, env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True, check=True)
    assert done.stdout == "3 words\n"


def test_an_unchanged_trainer_takes_one_request_and_no_build(
    storage: Storage, bucket: str, trainer: Path, tmp_path: Path, count_builds: list[Path]
) -> None:
    first = package_trainer(trainer, storage=storage, staging=bucket, module="trainer.task")
    requests: list[str] = []
    send = storage.client._http.request

    def counted(method: str, url: str, *args: object, **kwargs: object) -> object:
        requests.append(method)
        return send(method, url, *args, **kwargs)

    storage.client._http.request = counted
    copy = tmp_path / "elsewhere" / "trainer"
    copy.parent.mkdir()
    subprocess.run(["cp", "-r", str(trainer), str(copy)], check=True)
    again = package_trainer(copy, storage=storage, staging=bucket, module="trainer.task")
    assert requests == ["GET"]
    assert len(count_builds) == 1
    assert (first.reused, again.reused) == (False, True)
    assert again.uris == first.uris

    (trainer / "data" / "vocab.txt").write_text("other words")
    other = package_trainer(trainer, storage=storage, staging=bucket)
    assert not other.reused
    assert other.uris != first.uris
    assert other.digest != package_trainer(trainer, storage=storage, staging=bucket, requirements=["six"]).digest


def test_concurrent_builds_upload_one_object(
    storage: Storage, bucket: str, trainer: Path, count_builds: list[Path]
) -> None:
    with ThreadPoolExecutor(6) as pool:
        results = list(
            pool.map(
                lambda _: package_trainer(trainer, storage=storage, staging=bucket, module="trainer.task"), range(6)
            )
        )
    assert len({result.uris for result in results}) == 1
    assert len(storage.ls(f"{bucket}/packages/")) == 1
    assert len(count_builds) >= 1


def test_a_package_deleted_from_the_bucket_is_built_again(storage: Storage, bucket: str, trainer: Path) -> None:
    first = package_trainer(trainer, storage=storage, staging=bucket)
    storage.delete(first.uris[0])
    again = package_trainer(trainer, storage=storage, staging=bucket)
    assert (again.reused, again.uris) == (False, first.uris)
    assert storage.exists(first.uris[0])


def test_a_project_is_built_with_its_own_build_system_and_name(storage: Storage, bucket: str, tmp_path: Path) -> None:
    root = project(tmp_path / "work", **{"pyproject.toml": PYPROJECT, "dist/old.tar.gz": "x", ".env": "X=1"})
    write(root, {"constraints.txt": "six==1.17.0\n"})
    before = snapshot(root)
    packaged = package_trainer(root, storage=storage, staging=f"{bucket}/team", module="trainer.task")
    assert "constraints.txt" in contents(storage, packaged.uris[0]), "the constraints must be packaged with the trainer"
    assert snapshot(root) == before
    assert (packaged.name, packaged.version) == ("my_trainer", "3.1")
    assert packaged.uris[0] == f"{bucket}/team/packages/my-trainer/{packaged.digest}/my_trainer-3.1.tar.gz"
    assert {left.path for left in packaged.left_out} == {"dist/", ".env"}
    assert package_trainer(root, storage=storage, staging=f"{bucket}/team", module="trainer.task").reused


def test_an_old_setup_py_builds_but_missing_subpackages_are_an_error(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    setup = "from setuptools import find_packages, setup\n"
    setup += "setup(name='t', version='2', packages=find_packages(include=['trainer']))\n"
    root = project(tmp_path / "t", **{"setup.py": setup, "trainer/sub/__init__.py": "", "trainer/sub/deep.py": ""})
    packaged = package_trainer(root, storage=storage, staging=bucket, module="trainer.task")
    assert (packaged.name, packaged.version) == ("t", "2")
    with pytest.raises(PackageError, match=r"no module trainer\.sub\.deep in t-2-py3-none") as caught:
        package_trainer(root, storage=storage, staging=bucket, module="trainer.sub.deep")
    assert "trainer.task" in caught.value.hint
    assert len(storage.ls(f"{bucket}/packages/")) == 1


def test_a_failed_build_reports_its_output_without_secrets(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "do-not-tell")
    setup = "import os, sys\n"
    setup += "sys.exit(f'the flux capacitor is missing at https://me:hunter2@pypi.example/x {sorted(os.environ)}')\n"
    root = project(tmp_path / "t", **{"setup.py": setup})
    with pytest.raises(PackageError, match="the flux capacitor is missing") as caught:
        package_trainer(root, storage=storage, staging=bucket)
    assert str(root) in caught.value.message
    assert "hunter2" not in str(caught.value)
    assert "FERNET" not in str(caught.value), "the build must not see the worker's secrets"
    assert storage.ls(bucket) == []


def test_a_build_that_exceeds_its_timeout_is_killed(
    storage: Storage, bucket: str, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "BUILD_SECONDS", 0.0)
    with pytest.raises(PackageError, match=r"not built within 0\.0 s"):
        package_trainer(trainer, storage=storage, staging=bucket)


def test_a_killed_task_leaves_no_build_process(storage: Storage, bucket: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    backend = "import os, pathlib, time\n"
    backend += f"pathlib.Path({str(pid_file)!r} + '.part').write_text(str(os.getpid()))\n"
    backend += f"os.rename({str(pid_file)!r} + '.part', {str(pid_file)!r})\ntime.sleep(600)\n"
    pyproject = "[build-system]\nrequires = []\nbuild-backend = 'slow'\nbackend-path = ['.']\n"
    root = project(tmp_path / "t", **{"pyproject.toml": pyproject, "slow.py": backend})

    def kill_once_it_builds() -> None:
        deadline = time.monotonic() + 60
        while not pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=kill_once_it_builds)
    # SIGINT is ignored if the tests were started in the background of a shell.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    killer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            package_trainer(root, storage=storage, staging=bucket)
    finally:
        killer.join()
        signal.signal(signal.SIGINT, before)
    stat = Path(f"/proc/{pid_file.read_text()}/stat")
    deadline = time.monotonic() + 60
    while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the build's child process is still running"
        time.sleep(0.02)


def test_built_archives_are_accepted(storage: Storage, bucket: str, trainer: Path, tmp_path: Path) -> None:
    made = package_trainer(trainer, storage=storage, staging=f"{bucket}/other")
    sdist = tmp_path / "trainer-0.0.0.tar.gz"
    storage.download(made.uris[0], sdist)

    local = package_trainer(sdist, storage=storage, staging=bucket, module="trainer.task")
    assert local.uris == (f"{bucket}/packages/trainer/{local.digest}/trainer-0.0.0.tar.gz",)
    assert local.digest == hashlib.sha256(sdist.read_bytes()).hexdigest()[:40]
    assert not local.reused
    assert package_trainer(str(sdist), storage=storage, staging=bucket).reused

    remote = package_trainer(made.uris[0], storage=storage, staging=bucket, module="trainer.task")
    assert (remote.uris, remote.reused, remote.digest) == (made.uris, True, local.digest)

    for source in (sdist, made.uris[0]):
        with pytest.raises(PackageError, match=r"no module trainer\.tsk in"):
            package_trainer(source, storage=storage, staging=bucket, module="trainer.tsk")
    with pytest.raises(ObjectMissingError):
        package_trainer(f"{bucket}/nothing-1.0.tar.gz", storage=storage, staging=bucket)


def test_a_trainer_can_be_packaged_with_another_package(
    storage: Storage, bucket: str, trainer: Path, tmp_path: Path
) -> None:
    helper = write(tmp_path / "helper", {"__init__.py": "", "words.py": ""})
    both = package_trainer([trainer, helper], storage=storage, staging=bucket, module="trainer.task")
    assert [uri.rsplit("/", 1)[1] for uri in both.uris] == ["trainer-0.0.0.tar.gz", "helper-0.0.0.tar.gz"]
    assert both.name == "trainer"
    assert both.digest != package_trainer(trainer, storage=storage, staging=bucket).digest
    with pytest.raises(PackageError, match="same file name"):
        package_trainer([trainer, trainer], storage=storage, staging=bucket)
    with pytest.raises(PackageError, match="no source"):
        package_trainer([], storage=storage, staging=bucket)


def test_invalid_sources_are_refused_before_the_build(
    storage: Storage, bucket: str, trainer: Path, count_builds: list[Path]
) -> None:
    with pytest.raises(PackageError, match=r"no module trainer\.tsk"):
        package_trainer(trainer, storage=storage, staging=bucket, module="trainer.tsk")
    with pytest.raises(PackageError, match="is a package without a __main__"):
        package_trainer(trainer, storage=storage, staging=bucket, module="trainer")
    with pytest.raises(BucketMissingError, match="there-is-no-such-bucket"):
        package_trainer(trainer, storage=storage, staging="gs://there-is-no-such-bucket")
    (trainer / "models" / "__init__.py").unlink()
    with pytest.raises(PackageError, match=r"models has no __init__\.py"):
        package_trainer(trainer, storage=storage, staging=bucket)
    with pytest.raises(PackageError, match="requirements are given"):
        package_trainer(write(trainer, {"setup.py": ""}), storage=storage, staging=bucket, requirements=["six"])
    assert count_builds == []


def test_a_bad_requirement_is_reported_by_the_builder(storage: Storage, bucket: str, trainer: Path) -> None:
    with pytest.raises(PackageError, match="numpy =!= 2"):
        package_trainer(trainer, storage=storage, staging=bucket, requirements=["numpy =!= 2"])


def test_a_tree_that_changes_while_it_is_copied_is_not_packaged(
    storage: Storage, bucket: str, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def then_edited(root: Path, *, project: bool = False) -> object:
        tree = scan(root, project=project)
        (root / "task.py").write_text("print('edited')\n")
        return tree

    monkeypatch.setattr("mlengine.packaging.publish.scan", then_edited)
    with pytest.raises(PackageError, match=r"task\.py changed while it was packaged"):
        package_trainer(trainer, storage=storage, staging=bucket)
    assert storage.ls(bucket) == []


def test_packaging_leaves_no_temporary_files(
    storage: Storage, bucket: str, trainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    package_trainer(trainer, storage=storage, staging=bucket)
    assert list(scratch.iterdir()) == []


def test_cache_hits_and_misses_use_little_cpu_time(storage: Storage, bucket: str, trainer: Path) -> None:
    """Checks the design's limits in CPU time, which depends little on the machine's other load.

    benchmarks/packaging.py has the measurements.
    """

    def cpu_seconds() -> float:
        return sum(os.times()[:4])  # includes children that have ended

    started = cpu_seconds()
    package_trainer(trainer, storage=storage, staging=bucket, module="trainer.task")
    missed = cpu_seconds()
    package_trainer(trainer, storage=storage, staging=bucket, module="trainer.task")
    assert missed - started < 3.0
    assert cpu_seconds() - missed < 0.3


def test_a_syntax_error_is_found_before_the_upload(storage: Storage, bucket: str, tmp_path: Path) -> None:
    package = tmp_path / "project" / "hello"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "task.py").write_text("import hello.words\n")
    (package / "words.py").write_text("def f(:\n    pass\n")
    pyproject = package.parent / "pyproject.toml"
    pyproject.write_text('[project]\nname = "hello"\nversion = "1"\nrequires-python = ">=3.8"\n')
    with pytest.raises(PackageError, match=r"hello/words\.py, line 1: not valid for Python"):
        package_trainer(package.parent, storage=storage, staging=bucket, module="hello.task")
    assert storage.ls(f"{bucket}/packages/") == []
    pyproject.unlink()  # then nothing specifies the Python version
    packaged = package_trainer(package, storage=storage, staging=bucket, module="hello.task", dry_run=True)
    assert any("hello/words.py, line 1" in note for note in packaged.notes)
    with pytest.raises(PackageError, match=r"hello/words\.py, line 1") as caught:
        package_trainer(package, storage=storage, staging=bucket, module="hello.task", dry_run=True, python="3.10")
    assert "the trainer runs on Python 3.10" in caught.value.hint
    # One that lists the requirements of an application, and configures no build.
    pyproject.write_text('[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.8"\n')
    with pytest.raises(PackageError, match=r"hello/words\.py, line 1") as caught:
        package_trainer(package, storage=storage, staging=bucket, module="hello.task", dry_run=True)
    assert "requires-python (>=3.8)" in caught.value.hint
