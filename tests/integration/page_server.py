"""The page's application with Airflow's own login, without the rest of Airflow; and a bucket of jobs behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.revoked_token import RevokedToken
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlengine.connections import forget_connections
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage
from mlengine.validation.export import resolve
from mlengine.validation.report import load_report, store
from mlengine.web import routes
from mlengine.web.app import make_app
from tests.integration.page_lab import BACKEND, Lab

# What the page's own script sends with every change.
BUTTON = {"x-requested-by": "mlengine", "sec-fetch-site": "same-origin"}


@pytest.fixture
def lab(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a-secret-of-this-test-" * 4)
    # The list of revoked tokens is Airflow's database, which only the end-to-end tests have.
    monkeypatch.setattr(RevokedToken, "is_revoked", lambda _: False)
    # Credentials of the environment, which the server of these tests does not ask for.
    forget_connections()
    monkeypatch.setattr(routes, "_storage", lambda: storage)
    monkeypatch.setattr(routes, "triggered_by", lambda runs: {run: "ann" for run in runs if run[1] == "manual"})
    routes.clear_caches()
    BACKEND.jobs.clear()
    BACKEND.calls.clear()
    yield Lab(storage, bucket)
    routes.clear_caches()


@pytest.fixture
def visit(lab: Lab) -> Callable[..., TestClient]:
    """A browser, logged in as somebody of a role; not logged in without one."""
    manager = create_auth_manager()
    main = FastAPI()
    main.mount("/mlengine", make_app())

    def make(role: str | None = "USER", name: str = "ann") -> TestClient:
        client = TestClient(main, base_url="http://airflow.test/mlengine/", raise_server_exceptions=False)
        if role:
            client.cookies.set("_token", manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role)))
        return client

    return make


def champion(lab: Lab, job_id: str, accuracy: float, version: str, began: float) -> JobDir:
    job_dir = lab.job(job_id, accuracy=accuracy, version=version, began=began)
    lab.storage.write(job_dir.model + "saved_model.pb", job_id.encode())
    report = load_report(lab.storage, job_dir)
    raw = {**report.to_json(), "fingerprint": resolve(lab.storage, job_dir.model).fingerprint}
    report = type(report).from_json(raw)
    store(lab.storage, report, None, None)
    lab.publish(job_dir, report)
    return job_dir
