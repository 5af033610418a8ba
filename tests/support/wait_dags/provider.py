"""The Google provider's own operator, as anybody has it in a DAG, against the training service.

Only while a test asks for it, by a file in Airflow's home: its import costs every parse seconds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

ASKED = Path(os.environ.get("AIRFLOW_HOME", "/nowhere"), "provider.json")


def provider_dag(url: str, job: dict[str, Any]) -> DAG:
    from airflow.providers.google.cloud.hooks.vertex_ai.custom_job import CustomJobHook
    from airflow.providers.google.cloud.operators.vertex_ai.custom_job import (  # noqa: TID251 - the foreign client
        CreateCustomJobOperator,
    )
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.aiplatform_v1 import JobServiceClient  # noqa: TID251

    def client(*_: Any, **__: Any) -> JobServiceClient:
        """The provider has no setting for an endpoint: this is the one place that is not as anybody has it."""
        options: Any = {"api_endpoint": url}
        credentials = AnonymousCredentials()  # type: ignore[no-untyped-call,unused-ignore]
        return JobServiceClient(transport="rest", credentials=credentials, client_options=options)

    CustomJobHook.get_job_service_client = client  # type: ignore[method-assign,unused-ignore]
    with DAG("wait_provider", schedule=None) as dag:
        CreateCustomJobOperator(
            task_id="train",
            project_id="test-project",
            region="us-central1",
            custom_job=job,
            gcp_conn_id="waits",
            poll_interval=1,
            deferrable=False,  # its asynchronous client speaks gRPC only, which the emulator does not
        )
    return dag


if ASKED.exists():
    provider_dag(**json.loads(ASKED.read_text()))
