"""An HTTP client for the page's application, with Airflow's own login and without the rest of Airflow."""

from __future__ import annotations

from collections.abc import Callable

from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlengine.core.layout import JobDir
from mlengine.validation.export import resolve
from mlengine.validation.report import load_report, store
from mlengine.web.app import make_app
from tests.support.sample_jobs import SampleJobs

# The headers that the page's script sends with every change.
BUTTON = {"x-requested-by": "mlengine", "sec-fetch-site": "same-origin"}


def opener() -> Callable[..., TestClient]:
    """Returns ``open(role="USER", name="ann")``: a client that is logged in, unless ``role`` is ``None``."""
    manager = create_auth_manager()
    main = FastAPI()
    main.mount("/mlengine", make_app())

    def make(role: str | None = "USER", name: str = "ann") -> TestClient:
        client = TestClient(main, base_url="http://airflow.test/mlengine/", raise_server_exceptions=False)
        if role:
            client.cookies.set("_token", manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role)))
        return client

    return make


def champion(
    sample_jobs: SampleJobs,
    job_id: str,
    value: float,
    version: str,
    began: float,
    dataset: str = "mnist",
    dag_id: str = "mnist_retraining",
) -> JobDir:
    job_dir = sample_jobs.job(job_id, metric_value=value, version=version, began=began, dataset=dataset, dag_id=dag_id)
    sample_jobs.storage.write(job_dir.model + "saved_model.pb", job_id.encode())
    report = load_report(sample_jobs.storage, job_dir)
    raw = {**report.to_json(), "fingerprint": resolve(sample_jobs.storage, job_dir.model).fingerprint}
    report = type(report).from_json(raw)
    store(sample_jobs.storage, report, None, None)
    sample_jobs.publish(job_dir, report)
    return job_dir
