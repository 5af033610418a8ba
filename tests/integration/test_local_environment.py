"""Tests the trainer's environment: built once and completely, with its sdist's constraints and uv's error messages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.errors import EnvironmentBuildError
from mlengine.core.job import FailureCause, JobState
from mlengine.runtime import processes, venv
from mlengine.runtime.env_allowlist import MARK
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.packages import UNUSED_DAYS, remove_unused
from mlengine.runtime.venv import build_environment, find_environment, lock_path
from mlengine.storage.client import Storage
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
SAY = "print('hello')"
WHEEL = "tiny-1.0-py3-none-any.whl"


def test_equal_packages_share_one_environment(storage: Storage, bucket: str, tmp_path: Path) -> None:
    data = local.wheel(SAY)
    uris = [local.put(storage, place, data, WHEEL) for place in (bucket, f"{bucket}/elsewhere")]
    messages: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        made = list(
            pool.map(lambda uri: build_environment([uri], storage, tmp_path, say=messages.append), [*uris, *uris])
        )
    assert len({it.digest for it in made}) == 1
    assert sum("building environment" in text for text in messages) == 1
    assert made[0].lock == ["tiny==1.0"]
    done = subprocess.run([made[0].python, "-m", "tiny.task"], capture_output=True, text=True, check=True)
    assert done.stdout == "hello\n"
    # Compiled once during installation, rather than by each replica.
    assert list(made[0].root.glob("lib/python*/site-packages/tiny/__pycache__/task.*.pyc"))
    changed = local.put(storage, bucket, local.wheel("print('changed')"), WHEEL)
    assert build_environment([changed], storage, tmp_path).digest != made[0].digest


def test_packages_that_are_no_longer_used_are_removed_after_a_build(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    uris = [local.put(storage, f"{bucket}/{number}", local.wheel(f"print({number})"), WHEEL) for number in range(3)]
    folder, month_ago = tmp_path / "packages", time.time() - (UNUSED_DAYS + 1) * 86400
    first = build_environment([uris[0]], storage, tmp_path)
    (unused,) = folder.iterdir()
    foreign = folder / "notes"
    foreign.mkdir()
    build_environment([uris[1]], storage, tmp_path)
    assert unused.exists()
    (used,) = set(folder.iterdir()) - {unused, foreign}
    for path in (unused, used, foreign):
        os.utime(path, (month_ago, month_ago))
    assert build_environment([uris[1]], storage, tmp_path).python.exists()  # only looked up
    assert unused.exists()
    downloading = FileLock.take(tmp_path / "locks" / "packages.lock", shared=True)
    assert downloading is not None
    with downloading:
        assert remove_unused(tmp_path) == []
    build_environment([uris[2]], storage, tmp_path)
    assert not unused.exists()
    assert used.exists()
    assert foreign.exists()
    assert build_environment([uris[0]], storage, tmp_path) == first
    assert list(unused.iterdir()), "it must be downloaded again"


def test_a_package_is_installed_with_the_extra_of_its_accelerator(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    extras = '[]\n[project.optional-dependencies]\ncpu = ["iniconfig==2.0.0"]\ngpu = ["iniconfig==2.1.0"]'
    uri = local.put(storage, bucket, local.sdist(SAY, dependencies=extras), "extras/tiny-1.0.tar.gz")
    made = {
        accelerator: build_environment([uri], storage, tmp_path, env={"MLENGINE_ACCELERATOR_TYPE": accelerator})
        for accelerator in ("", "NVIDIA_L4")
    }
    assert "iniconfig==2.0.0" in made[""].lock
    assert "iniconfig==2.1.0" in made["NVIDIA_L4"].lock
    assert build_environment([uri], storage, tmp_path).digest == made[""].digest


def test_pip_in_a_shared_environment_fails_instead_of_changing_the_users_python(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    uri = local.put(storage, bucket, local.wheel(SAY), WHEEL)
    folder = build_environment([uri], storage, tmp_path).python.parent
    names = {python.name.replace("python", "pip") for python in folder.glob("python*")}
    assert {"pip", "pip3"} <= names
    for name in names:
        done = subprocess.run([folder / name, "install", "x"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "jobs share this environment" in done.stderr


def test_waiting_for_a_build_does_not_wait_until_the_environment_is_unused(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    """The builder keeps a shared lock while its job runs, so an exclusive lock is unavailable during that time."""
    uri = local.put(storage, bucket, local.wheel(SAY), WHEEL)
    made = build_environment([uri], storage, tmp_path)
    ready = made.root / "ready.json"
    ready.rename(made.root / "later.json")  # as during the build
    users = FileLock.take(lock_path(tmp_path, made.digest), shared=True)
    assert users is not None

    def is_built(text: str) -> None:
        if text.startswith("waiting for"):
            (made.root / "later.json").rename(ready)

    with users:
        assert build_environment([uri], storage, tmp_path, say=is_built, seconds=60).digest == made.digest


def test_a_broken_build_reports_the_output_of_uv_and_is_not_kept(storage: Storage, bucket: str, tmp_path: Path) -> None:
    broken = local.sdist(SAY, extra={"setup.py": "raise RuntimeError('setup is broken')"})
    uri = local.put(storage, bucket, broken)
    with pytest.raises(EnvironmentBuildError, match="setup is broken"):
        build_environment([uri], storage, tmp_path)
    assert list((tmp_path / "envs").iterdir()) == []
    local.put(storage, bucket, local.sdist(SAY))  # the same name with changed content
    assert build_environment([uri], storage, tmp_path).python.exists()


def test_a_broken_build_is_a_trainer_error(
    make_backend: Callable[..., LocalBackend], storage: Storage, bucket: str
) -> None:
    uri = local.put(storage, bucket, local.sdist(SAY, dependencies='["no-such-package-anywhere-here==1.0"]'))
    backend = make_backend()
    _, status = local.run(backend, bucket, local.spec(uri))
    assert status.failure is not None
    assert status.failure.cause is FailureCause.TRAINER
    assert "no-such-package-anywhere-here" in status.failure.message
    missing = local.spec(f"{bucket}/packages/missing-1.0.tar.gz")
    _, status = local.run(backend, bucket, missing, key="m" * 40)
    assert status.state is JobState.FAILED
    assert "no package at" in status.detail


def test_an_unreachable_index_is_not_a_trainer_error(
    make_backend: Callable[..., LocalBackend], storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{port}/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    uri = local.put(storage, bucket, local.sdist(SAY, dependencies='["iniconfig==1.1.1"]'))
    _, status = local.run(make_backend(), bucket, local.spec(uri))
    assert status.failure is not None
    assert status.failure.cause is FailureCause.SERVICE
    assert str(port) in status.failure.message


def test_constraints_in_the_sdist_pin_its_dependencies(storage: Storage, bucket: str, tmp_path: Path) -> None:
    source = local.sdist(SAY, dependencies='["iniconfig"]', extra={"constraints.txt": "iniconfig==2.0.0\n"})
    made = build_environment([local.put(storage, bucket, source)], storage, tmp_path)
    assert made.lock == ["iniconfig==2.0.0", "tiny==1.0"]


def test_the_constraints_of_every_sdist_apply(storage: Storage, bucket: str, tmp_path: Path) -> None:
    extra = local.sdist(SAY, name="extra", dependencies='["six"]', extra={"constraints.txt": "six==1.16.0\ntiny==9\n"})
    own = {"constraints.txt": "iniconfig==2.0.0\n-e .\n"}
    uris = [
        local.put(storage, bucket, local.sdist(SAY, dependencies='["iniconfig"]', extra=own)),
        local.put(storage, bucket, extra, "extra-1.0.tar.gz"),
    ]
    assert build_environment(uris, storage, tmp_path).lock == [
        "extra==1.0",
        "iniconfig==2.0.0",
        "six==1.16.0",
        "tiny==1.0",
    ]


def test_invalid_constraints_are_refused_before_the_build(storage: Storage, bucket: str, tmp_path: Path) -> None:
    uri = local.put(storage, bucket, local.sdist(SAY, extra={"constraints.txt": "six==1.16.0\n-r base.txt\n"}))
    with pytest.raises(EnvironmentBuildError, match=r"tiny-1\.0\.tar\.gz: constraints\.txt:2 includes another file"):
        build_environment([uri], storage, tmp_path)
    assert not (tmp_path / "envs").exists()


def test_a_package_for_another_python_is_refused_before_the_build(
    make_backend: Callable[..., LocalBackend], storage: Storage, bucket: str, tmp_path: Path
) -> None:
    """uv checks only the lower bound and would install the package."""
    too_old = {"PKG-INFO": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Python: >=3.7,<3.11\n"}
    uri = local.put(storage, bucket, local.sdist(SAY, extra=too_old))
    with pytest.raises(EnvironmentBuildError, match=r"tiny-1\.0\.tar\.gz requires Python >=3\.7,<3\.11") as caught:
        build_environment([uri], storage, tmp_path)
    assert not (tmp_path / "envs").exists()
    assert "--python-version" in caught.value.hint
    _, status = local.run(make_backend(), bucket, local.spec(uri))
    assert status.failure is not None
    assert status.failure.cause is FailureCause.TRAINER
    assert "requires Python >=3.7,<3.11, but the environment would have 3." in status.failure.message


def test_bytecode_is_reused_for_identical_sources(storage: Storage, bucket: str, tmp_path: Path) -> None:
    needs = '["iniconfig==2.0.0"]'
    uris = [
        local.put(
            storage, bucket, local.sdist(f"import iniconfig\nprint({n})", dependencies=needs), f"{n}/tiny-1.0.tar.gz"
        )
        for n in range(2)
    ]
    one, two = (build_environment([uri], storage, tmp_path) for uri in uris)
    compiled = [next(it.root.glob("lib/*/site-packages/iniconfig/__pycache__/__init__.*.pyc")) for it in (one, two)]
    assert compiled[0].samefile(compiled[1])
    own = [next(it.root.glob("lib/*/site-packages/tiny/__pycache__/task.*.pyc")) for it in (one, two)]
    assert own[0].read_bytes() != own[1].read_bytes()
    for made, said in ((one, "0\n"), (two, "1\n")):
        done = subprocess.run([made.python, "-m", "tiny.task"], capture_output=True, text=True, check=True)
        assert done.stdout == said


def test_an_incomplete_environment_is_not_used(storage: Storage, bucket: str, tmp_path: Path) -> None:
    uri = local.put(storage, bucket, local.wheel(SAY), WHEEL)
    made = build_environment([uri], storage, tmp_path)
    # As after a power failure: the files exist, but not the one that is written last.
    (made.root / "ready.json").unlink()
    (made.root / "rubbish").touch()
    assert find_environment(tmp_path, made.digest) is None
    again = build_environment([uri], storage, tmp_path)
    assert again == made
    assert not (made.root / "rubbish").exists()


def test_after_a_kill_of_the_builder_its_uv_process_keeps_the_lock(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    setup = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    uri = local.put(storage, bucket, local.sdist(SAY, extra={"setup.py": setup}))
    code = f"""
from pathlib import Path
from mlengine.storage.client import Storage
from mlengine.runtime.env_allowlist import MARK
from mlengine.runtime.venv import build_environment
build_environment([{uri!r}], Storage(), Path({str(tmp_path)!r}))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(venv.__file__).parents[3]), MARK: str(tmp_path)}
    builder = subprocess.Popen([sys.executable, "-c", code], env=env, start_new_session=True)
    local.until(lambda: pid_file.exists() and pid_file.read_text(), "the build")
    digest = next((tmp_path / "envs").iterdir()).name
    builder.kill()
    builder.wait()
    assert FileLock.take(lock_path(tmp_path, digest)) is None
    with pytest.raises(EnvironmentBuildError, match="still being built"):
        build_environment([uri], storage, tmp_path, seconds=0.2)
    for process in processes.of_job(tmp_path):
        os.killpg(os.getpgid(process.pid), signal.SIGKILL)
    with FileLock.take(lock_path(tmp_path, digest), wait=30.0) or pytest.fail("the lock was not released"):
        assert find_environment(tmp_path, digest) is None


def test_a_build_that_hangs_is_killed(storage: Storage, bucket: str, tmp_path: Path) -> None:
    setup = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(3600)'])"
    uri = local.put(storage, bucket, local.sdist(SAY, extra={"setup.py": setup}))
    with pytest.raises(EnvironmentBuildError, match="local_build_timeout_seconds"):
        build_environment([uri], storage, tmp_path, seconds=3.0)
    assert list((tmp_path / "envs").iterdir()) == []
    digest = next(path.stem for path in (tmp_path / "locks").glob("env-*.lock"))
    assert FileLock.take(tmp_path / "locks" / f"{digest}.lock", wait=10.0) is not None


def test_the_least_recently_used_environments_are_deleted(storage: Storage, bucket: str, tmp_path: Path) -> None:
    uris = [local.put(storage, bucket, local.wheel(f"print({n})"), f"{n}/{WHEEL}") for n in range(3)]
    first, second = (build_environment([uri], storage, tmp_path) for uri in uris[:2])
    for age, made in ((3, first), (2, second)):
        os.utime(made.root / "ready.json", (age, age))
    with FileLock.take(lock_path(tmp_path, first.digest), shared=True) or pytest.fail("the lock is taken"):
        third = build_environment([uris[2]], storage, tmp_path, keep_environments=1)
        # The first is the oldest, but a job is using it.
        assert {path.name for path in (tmp_path / "envs").iterdir()} == {first.digest, third.digest}
    mine = tmp_path / "envs" / "my-own-venv"
    mine.mkdir()
    assert venv.prune(tmp_path, 1) == [first.digest]
    assert not lock_path(tmp_path, first.digest).exists()
    assert mine.is_dir(), "a folder of the user must not be deleted"


def test_a_missing_interpreter_is_named(storage: Storage, bucket: str, tmp_path: Path) -> None:
    uri = local.put(storage, bucket, local.wheel(SAY), WHEEL)
    with pytest.raises(EnvironmentBuildError, match=r"/no/python does not run.*\n.*local_python_path"):
        build_environment([uri], storage, tmp_path, python="/no/python")
