"""The calls of Vertex AI's ``customJobs`` that this project uses, one method each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import VertexLocation
from mlengine.backends.vertex.states import job_state
from mlengine.core.errors import BackendError, BackendUnavailableError

PAGE_SIZE = 1000  # the service may return fewer
MAX_PAGES = 20
_BRIEF = "name,displayName,state,createTime,startTime,endTime,error,labels,webAccessUris"
# Names come from job.json, which any trainer can write. They become parts of URLs, and of a filter of Cloud Logging.
_NAME = re.compile(
    r"(?P<parent>projects/(?P<project>[a-z0-9][a-z0-9.:-]*)/locations/(?P<region>[a-z0-9-]+))"
    r"/customJobs/(?P<number>[A-Za-z0-9_-]+)"
)

Job = Mapping[str, Any]


def is_name(text: str) -> bool:
    """Whether ``text`` is a job's resource name."""
    return _NAME.fullmatch(text) is not None


def parse(name: str) -> dict[str, str]:
    """The parts ``parent``, ``project``, ``region`` and ``number`` of a job's resource name.

    :raises BackendError: ``name`` is not the resource name of a job.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise BackendError(f"not the name of a custom job: {name!r}", hint="was it submitted to another backend?")
    return match.groupdict()


def tensorboard_url(instance: str, job_name: str) -> str:
    """The URL of a job's curves in its TensorBoard instance, in the form that Google's SDK uses.

    :param instance: the instance's resource name.
    """
    region, number = parse(job_name)["region"], parse(job_name)["number"]
    experiment = f"{instance}/experiments/{number}".replace("/", "+")
    return f"https://{region}.tensorboard.googleusercontent.com/experiment/{experiment}"


class Jobs:
    """The custom jobs that a client can access. Jobs are plain JSON; ``parent`` is ``projects/P/locations/R``."""

    def __init__(self, client: RestClient, location: VertexLocation) -> None:
        self.client, self.location = client, location

    def create(self, parent: str, body: Mapping[str, Any], *, patience: float | None = None) -> dict[str, Any] | None:
        """Create a job and return it; ``None`` if it is unknown whether it was created.

        :param patience: the seconds to wait for a quota; ``None`` for the client's default.
        """
        return self.client.create(f"{self._server(parent)}/v1/{parent}/customJobs", body, patience=patience)

    def get(self, name: str) -> dict[str, Any] | None:
        """The job; ``None`` if there is no such job.

        :raises BackendError: ``name`` is not the name of a job.
        """
        parse(name)
        return self.client.call("GET", f"{self._server(name)}/v1/{name}", missing_ok=True)

    def list(
        self, parent: str, query: str, enough: Callable[[], bool] = lambda: False, *, brief: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The jobs that match ``query``, page by page, until ``enough`` returns true or :data:`MAX_PAGES` were read.

        :param brief: whether to leave out the job's specification, which is most of its JSON.
        """
        params: dict[str, str | int] = {"filter": query, "pageSize": PAGE_SIZE}
        if brief:
            params["readMask"] = _BRIEF
        for _ in range(MAX_PAGES):
            answer = self.client.call("GET", f"{self._server(parent)}/v1/{parent}/customJobs", params=params) or {}
            yield from answer.get("customJobs", ())
            token = answer.get("nextPageToken")
            if not token or enough():
                return
            params["pageToken"] = token

    def cancel(self, name: str) -> None:
        """Cancel a job. The call can be repeated safely: a job that has ended, or is gone, is not an error.

        :raises BackendError: ``name`` is not the name of a job.
        """
        parse(name)
        try:
            self.client.call("POST", f"{self._server(name)}/v1/{name}:cancel", body={}, missing_ok=True)
        except BackendUnavailableError:
            raise
        except BackendError:
            # The service refuses to cancel a job that has ended. Any other refusal is an error.
            job = self.get(name)
            if job is not None and not job_state(job.get("state")).terminal:
                raise

    def _server(self, path: str) -> str:
        return self.location.server(path.split("/")[3])
