"""A REST client for the parts of Ray's dashboard that this backend uses. It does not import ``ray``.

Every call has a deadline, and is retried until then if there is no answer. All calls can be repeated safely, including
:meth:`RayClient.submit`, because Ray refuses a second job of the same name.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from mlengine.backends.ray.access import Access
from mlengine.core.errors import BackendError, BackendUnavailableError

OLDEST_RAY = (2, 9)  # the oldest release on which jobs were run is 2.9.3
DEADLINE = 60.0  # seconds for one call with its retries
TIMEOUT = (5.0, 30.0)  # seconds to connect, and for each part of an answer
_NODES = 10000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.3, 5.0
_AGAIN = frozenset({408, 429, 502, 503, 504})
_EXISTS = "already exists"
_STARTING = "No available agent"  # with status 500: the head node has just started

_NO_TLS = re.compile(r"WRONG_VERSION_NUMBER|RECORD_LAYER|UNEXPECTED_EOF|UNKNOWN_PROTOCOL", re.I)

Job = Mapping[str, Any]


class RayClient:
    """A client for one cluster. Threads may share one client.

    :param deadline: the time limit of one call with its retries, in seconds.
    :param sleep: the function that pauses between retries.
    :param renew: returns the current address and credentials. It is called when a token was refused: the token may have
        expired.
    """

    def __init__(
        self,
        access: Access,
        *,
        deadline: float = DEADLINE,
        sleep: Callable[[float], None] = time.sleep,
        renew: Callable[[], Access] | None = None,
    ) -> None:
        self.access = access
        self._renew = renew
        self._deadline = deadline
        self.sleep = sleep
        self._session: Any = None
        self._lock = threading.Lock()
        self.calls = 0  # requests sent, for budgets and tests

    def check_version(self) -> str:
        """Check the cluster's version of Ray, and return it.

        :raises BackendError: the address is no Ray dashboard, or the cluster's Ray is too old.
        """
        status, answer = self._call("GET", "/api/version")
        version = answer.get("ray_version") if isinstance(answer, Mapping) else None
        if status != 200 or not isinstance(version, str):
            words = _words(answer)[:200] if status != 200 else "without a ray_version"
            raise BackendError(
                f"{self.access.address} is no Ray dashboard: /api/version answers {status} {words}",
                hint="set ray_address to the dashboard of the head node, by default http://HOST:8265; if a proxy in "
                "front of it asks for a login, set ray_headers",
            )
        if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST_RAY:
            raise BackendError(
                f"{self.access.address} runs Ray {version}; {'.'.join(map(str, OLDEST_RAY))} or newer is needed",
                hint="upgrade the cluster",
            )
        return version

    def upload(self, name: str, data: bytes) -> None:
        """Store a package in the cluster, unless the cluster has it already."""
        path = f"/api/packages/gcs/{name}"
        status, _ = self._call("GET", path)
        if status != 200:
            status, answer = self._call("PUT", path, data=data)
            if status != 200:
                raise self._refusal("PUT", path, status, answer)

    def submit(self, body: Mapping[str, Any]) -> bool:
        """Submit a job. Return ``False`` if a job of that name exists.

        :raises BackendError: Ray refuses the job.
        """
        status, answer = self._call("POST", "/api/jobs/", body=body)
        if status == 200:
            return True
        if _EXISTS in _words(answer):
            return False
        raise self._refusal("POST", "/api/jobs/", status, answer)

    def get(self, name: str) -> Job | None:
        """Ray's record of a job; ``None`` if there is no such job."""
        path = _job_path(name)
        status, answer = self._call("GET", path)
        if status == 404:
            return None
        if status != 200 or not isinstance(answer, Mapping):
            raise self._refusal("GET", path, status, answer)
        return answer

    def list_jobs(self) -> list[Job]:
        """All jobs of the cluster that were submitted through the Jobs API, in one call."""
        status, answer = self._call("GET", "/api/jobs/")
        if status != 200 or not isinstance(answer, list):
            raise self._refusal("GET", "/api/jobs/", status, answer)
        return [job for job in answer if isinstance(job, Mapping) and job.get("submission_id")]

    def stop(self, name: str) -> bool:
        """Ask Ray to stop a job. Return ``False`` if Ray found no process: it has ended, or has not started yet."""
        path = f"{_job_path(name)}/stop"
        status, answer = self._call("POST", path)
        if status == 404:
            return False
        if status != 200 or not isinstance(answer, Mapping):
            raise self._refusal("POST", path, status, answer)
        return bool(answer.get("stopped"))

    def nodes(self) -> list[dict[str, float]]:
        """The total resources of each node that is alive, by name of the resource."""
        return [dict(node["resources_total"]) for node in self._alive()]

    def nodes_may_join(self, seconds: float) -> bool:
        """Whether the head node has been up for less than ``seconds``, so that other nodes may not have joined yet.

        After a restart, the dashboard answers before the head node itself has joined. If Ray does not report which
        node is the head, or when it started, the cluster is taken to be complete, unless it has no node at all.
        """
        nodes = self._alive()
        heads = [node for node in nodes if node.get("is_head_node")]
        if not heads:
            return not nodes or all("is_head_node" in node for node in nodes)
        started: float = heads[0].get("start_time_ms") or 0.0
        return time.time() - started / 1000 < seconds

    def _alive(self) -> list[Mapping[str, Any]]:
        path = f"/api/v0/nodes?detail=1&limit={_NODES}"
        status, answer = self._call("GET", path)
        try:
            found = answer["data"]["result"]["result"]
            return [node for node in found if node["state"] == "ALIVE" and node["resources_total"] is not None]
        except (KeyError, TypeError) as error:
            raise self._refusal("GET", path, status, answer) from error

    def _call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, data: bytes | None = None
    ) -> tuple[int, Any]:
        """Send a request until it is answered. Return the HTTP status and the JSON; text if the answer is not JSON.

        :raises BackendError: the token was refused.
        :raises BackendUnavailableError: there was no answer until the deadline.
        """
        until = time.monotonic() + self._deadline
        pause = _FIRST_PAUSE
        while True:
            status, answer = self._send(method, path, body, data)
            if status in {401, 403} and self._renewed():
                status, answer = self._send(method, path, body, data)
            if status in {401, 403}:
                raise BackendError(
                    f"{self.access.address} refuses the token: {status} {_words(answer)}".rstrip(": "),
                    hint="set ray_token, or the connection's extra 'ray_token', to the cluster's token",
                )
            if status is not None and status not in _AGAIN and not (status == 500 and _STARTING in _words(answer)):
                return status, answer
            if time.monotonic() + pause > until:
                raise BackendUnavailableError(
                    f"{method} {self.access.address}{path}: {status or 'no answer'}: {_words(answer)}",
                    hint="check that the Ray cluster runs, and that ray_address has the right host, the port of the "
                    "dashboard (by default 8265), and http or https as the dashboard needs",
                )
            self.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _renewed(self) -> bool:
        """Whether there are new credentials for the same address."""
        if self._renew is None:
            return False
        now = self._renew()
        with self._lock:
            changed = now.address == self.access.address and now.headers != self.access.headers
            if changed:
                self.access = now
        return changed

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, data: bytes | None
    ) -> tuple[int | None, Any]:
        import requests

        self.calls += 1
        try:
            reply = self._get_session().request(
                method,
                self.access.address + path,
                json=body,
                data=data,
                headers=dict(self.access.headers),
                timeout=TIMEOUT,
                # A redirect leads to a login page, or would send the token to another server.
                allow_redirects=False,
            )
        except requests.RequestException as error:
            self._check_protocol(error)
            return None, str(error)
        if reply.is_redirect:
            return reply.status_code, f"redirected to {reply.headers['Location']}"
        try:
            return reply.status_code, reply.json()
        except requests.JSONDecodeError:
            return reply.status_code, reply.text

    def _check_protocol(self, error: Exception) -> None:
        """Check whether an error shows that the server is no dashboard, so that a retry would not help.

        :raises BackendError: the server answers, but not as a dashboard would.
        """
        import requests

        address, text = self.access.address, str(error)
        if isinstance(error, requests.exceptions.SSLError):
            reason = text[max(0, text.rfind("[SSL")) :].rstrip(")")
            if _NO_TLS.search(reason):
                raise BackendError(
                    f"{address} is no Ray dashboard: it does not speak TLS: {reason}",
                    hint="write http:// in ray_address",
                ) from error
            raise BackendError(
                f"the certificate of {address} is refused: {reason}",
                hint="set REQUESTS_CA_BUNDLE to a file with your certificate authority",
            ) from error
        if isinstance(error, requests.exceptions.InvalidURL) or "BadStatusLine" in text:
            raise BackendError(
                f"{address} is no Ray dashboard: it does not answer in HTTP",
                hint="set ray_address to the dashboard of the head node, by default http://HOST:8265; the port 6379 is "
                "the cluster's own, and 10001 that of Ray's client",
            ) from error

    def _get_session(self) -> Any:
        with self._lock:
            if self._session is None:
                import requests

                self._session = requests.Session()
                self._session.trust_env = not self.access.loopback
                # Otherwise, a password in ~/.netrc would replace the token.
                self._session.auth = lambda request: request
            return self._session

    def _refusal(self, method: str, path: str, status: int, answer: Any) -> BackendError:
        message = f"{method} {self.access.address}{path}: {status}: {_words(answer)}"
        if status >= 500:
            return BackendUnavailableError(
                message, hint="see the logs of the Ray dashboard; the job's state is unknown"
            )
        return BackendError(message, hint="see the logs of the Ray dashboard on the head node")


def _job_path(name: str) -> str:
    """The URL path of a job. The job's name may come from ``job.json``, which any trainer can write."""
    return f"/api/jobs/{quote(name, safe='')}"


def _words(answer: Any) -> str:
    """The end of an answer: Ray answers an error with a traceback, whose last line has the message."""
    text = str((answer.get("msg") or answer) if isinstance(answer, Mapping) else answer)
    return text.strip().rsplit("\n", 1)[-1][-500:]
