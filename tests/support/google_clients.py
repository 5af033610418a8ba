"""Google's clients, connected to the emulator, and the requests that tests send with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.emulator.projects import location_name
from mlengine.testing.emulator import RunningEmulator

PROJECT, REGION = "test-project", "us-central1"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
# Resource names in responses contain the project's number.
NUMBERED_PARENT = location_name(PROJECT, REGION)
EXECUTOR = "us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest"


def package_job(uri: str, bucket: str, do: str, *, workers: int = 0) -> dict[str, Any]:
    """A CustomJob in snake_case, as in Google's documentation."""
    pool = {
        "machine_spec": {"machine_type": "n1-standard-4"},
        "replica_count": 1,
        "python_package_spec": {
            "executor_image_uri": EXECUTOR,
            "package_uris": [uri],
            "python_module": "tiny.task",
            "args": ["--chief", do],
            "env": [{"name": "COLOUR", "value": "blue"}],
        },
    }
    pools = [pool, {**pool, "replica_count": workers}] if workers else [pool]
    return {
        "display_name": "foreign",
        "labels": {"team": "vision"},
        "job_spec": {"worker_pool_specs": pools, "base_output_directory": {"output_uri_prefix": f"{bucket}/out"}},
    }


def job_client(emulator: RunningEmulator) -> Any:
    from google.cloud.aiplatform_v1 import JobServiceClient  # noqa: TID251 - Google's client

    return JobServiceClient(
        transport="rest", credentials=anonymous_credentials(), client_options={"api_endpoint": emulator.url}
    )


def until_ended(get: Callable[[], Any]) -> Any:
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        job = get()
        if job.end_time:
            return job
        time.sleep(0.2)
    raise AssertionError(f"not ended: {job}")


def entries(emulator: RunningEmulator, name: str) -> list[dict[str, Any]]:
    import requests

    body = {
        "resourceNames": ["projects/test-project"],
        "filter": f'resource.type="ml_job" AND resource.labels.job_id="{name.rsplit("/", 1)[-1]}"',
        "orderBy": "timestamp asc",
        "pageSize": 1000,
    }
    answer = requests.post(f"{emulator.url}/v2/entries:list", json=body, timeout=60)
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


def init_sdk(emulator: RunningEmulator, bucket: str) -> None:
    """Connect Google's SDK to the emulator."""
    from google.cloud import aiplatform  # noqa: TID251 - Google's client

    aiplatform.init(
        project=PROJECT,
        location=REGION,
        staging_bucket=bucket,
        credentials=anonymous_credentials(),
        api_endpoint=emulator.url,
        api_transport="rest",
    )
