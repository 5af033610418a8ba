"""Methods of the backend that send no request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlengine.backends import BatchesLogs, EstimatesCost, FallsBack, LearnsRegions, ListsJobs, ShowsRequest
from mlengine.backends.vertex import location
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import TrainingSpec

NAME = "projects/my-project/locations/europe-west1/customJobs/1234"


@pytest.fixture
def vertex(monkeypatch: pytest.MonkeyPatch) -> VertexBackend:
    """A backend for the real service, which is never called."""
    monkeypatch.setattr(location, "default_credentials", lambda: (location.anonymous_credentials(), "my-project"))
    for name in (
        "AIRFLOW__MLENGINE__VERTEX_ENDPOINT",
        "AIRFLOW__MLENGINE__VERTEX_REGION",
        "AIRFLOW__MLENGINE__VERTEX_PROJECT",
    ):
        monkeypatch.delenv(name, raising=False)

    return VertexBackend()


def test_the_console_url_of_a_job(vertex: VertexBackend) -> None:
    url = vertex.console_url(JobHandle("vertex", NAME, "j", 1, "gs://bkt/m/j"))
    # tests/integration/test_emulator_clients.py compares it with that of the SDK.
    console = "https://console.cloud.google.com/agent-platform"
    assert url == f"{console}/locations/europe-west1/training/1234?project=my-project"


def test_a_job_of_another_backend_and_a_missing_region_are_errors(vertex: VertexBackend) -> None:
    with pytest.raises(BackendError, match="another backend"):
        vertex.console_url(JobHandle("local", "abc-1", "j", 1, "gs://bkt/m/j"))
    with pytest.raises(BackendError, match="region"):
        vertex.find("ab" * 20)


class NoCalls:
    """A client that sends nothing and counts the calls."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def call(self, method: str, url: str, **_: Any) -> None:
        self.urls.append(f"{method} {url}")


@pytest.mark.parametrize(
    "name",
    [
        "projects/p/locations/other.invalid#/customJobs/1",
        "projects/p/locations/r/customJobs/1?alt=media",
        "projects/p/locations/r/customJobs/..",
        "projects/../locations/r/customJobs/1",
        'projects/p/locations/r/customJobs/1" OR "2',
        "x/x/x/other.invalid#/y",
        "x",
    ],
)
def test_a_job_name_cannot_address_another_resource(vertex: VertexBackend, name: str) -> None:
    """A trainer can write any name into its job.json. It must not cause a request, which would carry our token."""
    client: Any = NoCalls()
    vertex = VertexBackend(client=client)
    handle = JobHandle("vertex", name, "j", 1, "gs://bkt/m/j")
    for use in (
        lambda: vertex.describe([handle]),
        lambda: vertex.describe([handle] * 3),
        lambda: vertex.logs(handle, {}),
        lambda: vertex.logs(handle, {"since": "2026-11-23T12:00:00Z", "window": []}),
        lambda: vertex.cancel(handle),
        lambda: vertex.console_url(handle),
    ):
        with pytest.raises(BackendError, match="not the name of a custom job"):
            use()
    assert client.urls == []


def test_a_log_cursor_cannot_change_the_filter(vertex: VertexBackend) -> None:
    bodies: list[Any] = []

    class Logging(NoCalls):
        def call(self, method: str, url: str, **given: Any) -> Any:
            bodies.append(given.get("body"))
            return {}

    client: Any = Logging()
    vertex = VertexBackend(client=client)
    handle = JobHandle("vertex", NAME, "j", 1, "gs://bkt/m/j")
    vertex.logs(handle, {"since": '2026-11-23T12:00:00Z" OR "x"="x', "window": []})
    assert [body for body in bodies if body]
    assert "OR" not in str(bodies)


def test_a_region_in_job_json_cannot_address_another_server(vertex: VertexBackend) -> None:
    """The region of a fallback also comes from job.json."""
    client: Any = NoCalls()
    vertex = VertexBackend(region="r", client=client)
    vertex.learn_region(TrainingSpec("trainer.task", ("gs://bkt/t.tar.gz",)), "other.invalid#")
    with pytest.raises(BackendError, match="not a region"):
        vertex.find("ab" * 20)
    assert client.urls == []


def test_the_backend_implements_the_optional_protocols(vertex: VertexBackend) -> None:
    for more in (BatchesLogs, EstimatesCost, FallsBack, LearnsRegions, ListsJobs, ShowsRequest):
        assert isinstance(vertex, more), more


class Service:
    """A service that returns a list of jobs."""

    def __init__(self, count: int) -> None:
        self.jobs = [
            {"name": NAME + str(number), "state": "JOB_STATE_RUNNING", "createTime": "2026-11-23T12:00:00Z"}
            for number in range(count)
        ]

    def call(self, method: str, url: str, **_: Any) -> dict[str, Any]:
        assert (method, url.rsplit("/", 1)[1]) == ("GET", "customJobs")
        return {"customJobs": [dict(job) for job in self.jobs]}


def test_jobs_that_have_not_changed_keep_their_statuses() -> None:
    service = Service(5)
    client: Any = service
    vertex = VertexBackend(project="my-project", region="europe-west1", endpoint="http://127.0.0.1:1", client=client)
    handles = [JobHandle("vertex", job["name"], "j", 1, "gs://bkt/m/j") for job in service.jobs]
    first = vertex.describe(handles)
    service.jobs[1]["state"] = "JOB_STATE_QUEUED"
    error: Any = {"message": "no"}
    service.jobs[2] |= {"state": "JOB_STATE_FAILED", "endTime": "2026-11-23T13:00:00Z", "error": error}
    second = vertex.describe(handles)
    kept = [one is other for one, other in zip(first, second, strict=True)]
    assert kept == [True, False, False, True, True]
    assert [status.state for status in second[:3]] == [JobState.RUNNING, JobState.QUEUED, JobState.FAILED]
    other = replace(handles[0], job_id="of another task")
    (status, *_) = vertex.describe([other, *handles[1:]])
    assert status.handle == other
