"""Tests a company's package index: pip's variables and the system's certificates apply wherever packages come from."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import JobState
from mlengine.packaging.publish import package_trainer
from mlengine.runtime.venv import build_environment
from mlengine.storage.client import Storage
from tests.support import local_jobs as local
from tests.support import private_index

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
SYSTEM_STORE = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture
def no_installer_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without settings for pip or uv, except the location of uv's cache."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")) and name != "UV_CACHE_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    return private_index.write_trainer(tmp_path / "quaint")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    with private_index.serve(private_index.write_index(tmp_path / "index")) as url:
        yield url


def output(python: Path) -> str:
    done = subprocess.run([python, "-m", "quaint_trainer"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.usefixtures("no_installer_settings")
def test_pip_settings_apply_to_builds_and_environments(
    trainer: Path, index: str, storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pins.txt").write_text("quaint-library<2\n")
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "pins.txt"))
    packaged = package_trainer(trainer, storage=storage, staging=bucket)
    pinned = build_environment(packaged.uris, storage, tmp_path / "state")
    assert output(pinned.python).startswith("private 1.0")
    # Versions that these variables pin are part of the environment's key.
    (tmp_path / "pins.txt").write_text("quaint-library>=2\n")
    assert output(build_environment(packaged.uris, storage, tmp_path / "state").python).startswith("private 2.0")


@pytest.mark.usefixtures("no_installer_settings")
def test_packages_are_installed_from_a_directory_without_an_index(
    trainer: Path, storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = private_index.write_index(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{wheels} {tmp_path}/none")
    packaged = package_trainer(trainer, storage=storage, staging=bucket)
    made = build_environment(packaged.uris, storage, tmp_path / "state")
    assert output(made.python).startswith("private 2.0")


@pytest.mark.usefixtures("no_installer_settings")
def test_pip_variables_of_a_job_apply_as_in_a_container(
    trainer: Path, index: str, storage: Storage, bucket: str, make_backend: Callable[..., LocalBackend], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", index)
        uri = package_trainer(trainer, storage=storage, staging=bucket).uris[0]
    backend = make_backend()
    spec = local.spec(uri, module="quaint_trainer", env={"PIP_INDEX_URL": index})
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED, local.texts(backend, handle)
    assert any("chief-0: private 2.0" in text for text in local.texts(backend, handle))


@pytest.mark.usefixtures("no_installer_settings")
def test_a_dependency_that_does_not_accept_this_python_is_named(
    index: str, storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index)
    uri = local.put(storage, bucket, local.sdist("", dependencies='["quaint-relic"]'))
    messages: list[str] = []
    build_environment([uri], storage, tmp_path / "state", say=messages.append)
    [warning] = [text for text in messages if "do not accept Python" in text]
    assert "quaint-relic 1.0 (>=3.6,<3.11)" in warning


@pytest.mark.usefixtures("no_installer_settings")
def test_builds_trust_the_systems_certificates(
    trainer: Path, index: str, storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build backend, which uv starts with its own environment, reports which certificates it sees."""
    monkeypatch.setenv("PIP_INDEX_URL", index)
    packaged = package_trainer(trainer, storage=storage, staging=bucket)
    assert output(build_environment(packaged.uris, storage, tmp_path / "state").python) == "private 2.0 true"


@pytest.mark.usefixtures("no_installer_settings")
def test_a_companys_certificate_authority_in_the_systems_store(
    trainer: Path, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    """Runs in a mount namespace in which the company's certificate is added to the system's."""
    authority, context = private_index.company_certificates(tmp_path)
    store = tmp_path / "store.pem"
    store.write_bytes(authority.read_bytes())
    if not _may_bind(store):
        pytest.skip("this machine has no mount namespaces for its users, or no such store")
    code = f"""
import subprocess
from pathlib import Path
from mlengine.packaging.publish import package_trainer
from mlengine.runtime.venv import build_environment
from mlengine.storage.client import Storage
packaged = package_trainer(Path({str(trainer)!r}), storage=Storage(), staging={bucket!r})
made = build_environment(packaged.uris, Storage(), Path({str(tmp_path / "state")!r}))
subprocess.run([made.python, "-m", "quaint_trainer"], check=True)
"""
    with private_index.serve(private_index.write_index(tmp_path / "index"), context) as url:
        env = {name: value for name, value in os.environ.items() if not name.endswith(("CERT_FILE", "CERT_DIR"))}
        env |= {"PYTHONPATH": str(ROOT / "plugins"), "PIP_INDEX_URL": url}
        script = f"mount --bind {store} {SYSTEM_STORE} && exec {sys.executable} -c {shlex.quote(code)}"
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script], env=env, capture_output=True, text=True, timeout=1500, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "private 2.0 true"


def _may_bind(store: Path) -> bool:
    if not SYSTEM_STORE.exists() or shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "--bind", str(store), str(SYSTEM_STORE)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
