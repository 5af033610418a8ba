"""Tests the storage client of an Airflow connection: which fields mlengine reads, and which Google's provider reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlengine.storage.client import Storage
from mlengine.testing.gcs import GcsServer

pytestmark = pytest.mark.integration

_TRY = """
import sys
from mlengine.storage.client import Storage
storage = Storage.from_connection("a_connection")
storage.write(sys.argv[1] + "/a", b"1")
print(storage.client.project, "base_google" in " ".join(sys.modules), type(storage.client._credentials).__name__)
"""


def tried(bucket: str, server: GcsServer, extra: dict[str, Any], **env: str) -> list[str]:
    return _said(_TRY, server, extra, bucket, **env)


def test_an_anonymous_connection_needs_no_credentials(
    gcs_server: GcsServer, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    extra = {"is_anonymous": True, "project": "local"}
    assert tried(bucket, gcs_server, extra, AIRFLOW_HOME=str(tmp_path)) == ["local", "False", "AnonymousCredentials"]
    assert storage.read(f"{bucket}/a") == b"1"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """User credentials in the format of ``gcloud auth application-default login``; they grant access to nothing."""
    content = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    path = tmp_path / "key.json"
    path.write_text(json.dumps(content))
    return path


def test_an_empty_connection_uses_application_default_credentials(
    gcs_server: GcsServer, bucket: str, key_file: Path, tmp_path: Path
) -> None:
    found = _made(gcs_server, {"extra__google_cloud_platform__project": "p"}, key_file, tmp_path)
    assert found == ["p", "False", "Credentials"]
    assert bucket


def test_a_key_in_the_connection_is_read_by_the_google_provider(
    gcs_server: GcsServer, bucket: str, key_file: Path, tmp_path: Path
) -> None:
    found = _made(gcs_server, {"project": "p", "key_path": str(tmp_path / "none.json")}, key_file, tmp_path)
    assert found == ["the", "provider", "refused"]
    assert bucket


_USE = """
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.errors import BackendError, StorageForbiddenError
from mlengine.storage.client import Storage
for kind, call in (
    (StorageForbiddenError, lambda: Storage.from_connection("a_connection").exists("gs://bkt/x")),
    (BackendError, lambda: VertexBackend(gcp_conn_id="a_connection", region="us-central1").find("k")),
):
    try:
        call()
    except kind as error:
        assert "the key of the Airflow connection 'a_connection' cannot be read: " in error.message, error
        assert "service account key" in error.hint
print("done")
"""


@pytest.mark.parametrize(
    "extra",
    [
        {"key_path": "/none.json"},
        {"keyfile_dict": '{"type": "service_account"}'},
        {"keyfile_dict": '{"type": "service_account", "private_key": "x"}'},
    ],
)
def test_a_key_that_cannot_be_read_is_named(gcs_server: GcsServer, tmp_path: Path, extra: dict[str, Any]) -> None:
    said = _said(_USE, gcs_server, {"project": "p", **extra}, AIRFLOW_HOME=str(tmp_path))
    assert said == ["done"]


_MAKE = """
import sys
from mlengine.storage.credentials import client_of_connection
try:
    client = client_of_connection("a_connection")
    print(client.project, "base_google" in " ".join(sys.modules), type(client._credentials).__name__)
except Exception as error:
    print("the provider refused" if "base_google" in " ".join(sys.modules) else repr(error))
"""


def _made(server: GcsServer, extra: dict[str, Any], key_file: Path, home: Path) -> list[str]:
    return _said(_MAKE, server, extra, GOOGLE_APPLICATION_CREDENTIALS=str(key_file), AIRFLOW_HOME=str(home))


def _said(program: str, server: GcsServer, extra: dict[str, Any], *arguments: str, **env: str) -> list[str]:
    """Run the program in a new process, because imported modules stay loaded."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).parents[2] / "plugins"),
            "AIRFLOW_CONN_A_CONNECTION": json.dumps({"conn_type": "google_cloud_platform", "extra": extra}),
            **server.env,
            **env,
        },
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split("\n")[-2].split()
