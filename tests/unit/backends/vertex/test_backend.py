"""What the backend says without asking anybody."""

from __future__ import annotations

import pytest

from mlengine.backends import BatchesLogs, EstimatesCost, FallsBack, LearnsRegions, ListsJobs, ShowsRequest
from mlengine.backends.vertex import location
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle

NAME = "projects/my-project/locations/europe-west1/customJobs/1234"


@pytest.fixture
def vertex(monkeypatch: pytest.MonkeyPatch) -> VertexBackend:
    """On the real service, which is never called."""
    monkeypatch.setattr(location, "default_credentials", lambda: (location.anonymous_credentials(), "my-project"))
    for name in (
        "AIRFLOW__MLENGINE__VERTEX_ENDPOINT",
        "AIRFLOW__MLENGINE__VERTEX_REGION",
        "AIRFLOW__MLENGINE__VERTEX_PROJECT",
    ):
        monkeypatch.delenv(name, raising=False)

    return VertexBackend()


def test_the_console_s_page_of_a_job(vertex: VertexBackend) -> None:
    url = vertex.console_url(JobHandle("vertex", NAME, "j", 1, "gs://bkt/m/j"))
    # tests/integration/test_emulator_clients.py compares it with the SDK's.
    console = "https://console.cloud.google.com/agent-platform"
    assert url == f"{console}/locations/europe-west1/training/1234?project=my-project"


def test_what_is_no_job_here_is_said(vertex: VertexBackend) -> None:
    with pytest.raises(BackendError, match="another backend"):
        vertex.console_url(JobHandle("local", "abc-1", "j", 1, "gs://bkt/m/j"))
    with pytest.raises(BackendError, match="region"):
        vertex.find("ab" * 20)


def test_what_it_can_besides(vertex: VertexBackend) -> None:
    for more in (BatchesLogs, EstimatesCost, FallsBack, LearnsRegions, ListsJobs, ShowsRequest):
        assert isinstance(vertex, more), more
