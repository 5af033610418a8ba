"""Runs the Google provider's own operator, used as in any user's DAG, against the emulator.

The DAG exists only while a file in Airflow's home requests it, because importing the operator adds seconds to every
parse.
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
        """Connect to the emulator.

        This is the only deviation from a user's DAG: the provider has no setting for an endpoint.
        """
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
            deferrable=False,  # the provider's asynchronous client speaks only gRPC, which the emulator does not
        )
    return dag


if ASKED.exists():
    provider_dag(**json.loads(ASKED.read_text()))
