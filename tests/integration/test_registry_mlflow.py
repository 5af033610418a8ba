"""Tests that MLflow's registry follows the champion, with a real MLflow server on loopback and MLflow's own client.

Both come from ``mlflow-skinny``, which contains the server's code but not Flask; the tests' lock file adds Flask.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlengine.champions.history import current
from mlengine.core.errors import RegistryError
from mlengine.promotion.publish import rollback
from mlengine.promotion.registries import Registered
from mlengine.promotion.registries.follow import follow
from mlengine.promotion.registries.mlflow import MlflowRegistry
from mlengine.storage.client import Storage
from mlengine.testing.airflow_home import free_port
from tests.integration.test_champions import Bench

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, url = tmp_path_factory.mktemp("mlflow"), f"http://127.0.0.1:{free_port()}"
    command = ["server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--host", "127.0.0.1"]
    command += ["--port", url.rsplit(":", 1)[1], "--workers", "1", "--artifacts-destination", str(folder / "artifacts")]
    # The server's jobs would need huey, which is not installed; no test uses them.
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command], cwd=folder, env=env, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            _wait(url, process, folder / "log")
            yield url
        finally:
            os.killpg(process.pid, 15)
            process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, f"mlflow's server ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"mlflow's server does not answer: {log.read_text()}"
        try:
            opener.open(f"{url}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return


@pytest.fixture
def bench(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return Bench(storage, bucket)


def registry(url: str, bench: Bench) -> MlflowRegistry:
    return MlflowRegistry(tracking_uri=url, model_name=bench.bucket.removeprefix("gs://"))  # unique to this test


def aliased(url: str, bench: Bench) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=url, registry_uri=url)
    return client.get_model_version_by_alias(bench.bucket.removeprefix("gs://"), "champion")


def test_invalid_characters_in_a_metric_name_are_replaced(server: str, bench: Bench) -> None:
    bench.publish(bench.job("a", main_metric="recall@precision=0.9", metrics={"recall@precision=0.9": 0.7}))
    follow(bench.storage, bench.bucket, "mnist", [registry(server, bench)])
    assert aliased(server, bench).tags["mlengine.recall_precision_0.9"] == "0.7"


def test_the_alias_follows_the_champion(server: str, bench: Bench) -> None:
    def register() -> tuple[Registered, ...]:
        return follow(bench.storage, bench.bucket, "mnist", [registry(server, bench)]).registered

    bench.publish(bench.job("a"))
    name = bench.bucket.removeprefix("gs://")
    assert register() == (Registered("mlflow", name, "1", True),)
    assert register() == (Registered("mlflow", name, "1", False),)
    bench.publish(bench.job("b", accuracy=0.985))
    assert register() == (Registered("mlflow", name, "2", True),)
    version = aliased(server, bench)
    assert (int(version.version), version.source) == (2, f"{bench.bucket}/mnist/b/model")
    assert {name: version.tags[name] for name in ("mlengine.job", "mlengine.accuracy", "mlengine.dataset")} == {
        "mlengine.job": "b",
        "mlengine.accuracy": "0.985",
        "mlengine.dataset": "mnist 2026-11-01",
    }
    rollback(bench.storage, bench.bucket, "mnist", by="anna", why="wrong on sevens")
    assert register() == (Registered("mlflow", name, "1", False),)
    assert int(aliased(server, bench).version) == 1


def test_a_refusal_is_reported_with_mlflows_message(server: str, bench: Bench) -> None:
    bench.publish(bench.job("a"))
    wrong = MlflowRegistry(tracking_uri=server, model_name="a/b:c")
    with pytest.raises(RegistryError, match="MLflow rejected a: INVALID_PARAMETER_VALUE") as caught:
        follow(bench.storage, bench.bucket, "mnist", [wrong])
    assert not caught.value.retryable
    assert current(bench.storage, bench.bucket, "mnist") is not None


def test_an_unreachable_server_is_a_retryable_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    bench.publish(bench.job("a"))
    with pytest.raises(RegistryError, match="MLflow") as caught:
        follow(bench.storage, bench.bucket, "mnist", [registry(f"http://127.0.0.1:{free_port()}", bench)])
    assert caught.value.retryable


def test_without_a_server_nothing_is_registered(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a server, MLflow's client would create a database in the working directory."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    bench.publish(bench.job("a"))
    with pytest.raises(RegistryError, match="no MLflow server") as caught:
        follow(bench.storage, bench.bucket, "mnist", [MlflowRegistry()])
    assert not caught.value.retryable
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_server_address_does_not_block_other_registries(bench: Bench, server: str) -> None:
    bench.publish(bench.job("a"))
    with pytest.raises(RegistryError, match="foo"):
        follow(bench.storage, bench.bucket, "mnist", [MlflowRegistry(tracking_uri="foo://x"), registry(server, bench)])
    assert int(aliased(server, bench).version) == 1
