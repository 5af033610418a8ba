"""The ray backend on a fake server of Ray's Jobs API. Its jobs do not run: a test ends them, as a driver would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mlengine.backends import LogPage, Submission
from mlengine.backends.ray.access import Access
from mlengine.backends.ray.backend import RayBackend
from mlengine.backends.ray.client import RayClient
from mlengine.backends.ray.record import Stored, folder, state_uri
from mlengine.core.job import Failure, FailureCause, JobHandle, JobState, JobStatus
from mlengine.storage.client import Storage

_ENDINGS = {JobState.SUCCEEDED: "SUCCEEDED", JobState.CANCELLED: "STOPPED"}


@dataclass
class RayApi:
    """The state and responses of the server.

    :param refuse: the next n calls get a 503 response before they take effect.
    :param lose: the next n submissions take effect, but get no response.
    """

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: int = 0
    lose: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any] | None:
        """Return status and body, or ``None`` to close the connection without a response."""
        with self.lock:
            if self.refuse:
                self.refuse -= 1
                return 503, "busy"
            if path == "/api/version":
                return 200, {"version": "4", "ray_version": "2.60.0"}
            if path.startswith("/api/packages/"):
                return 200, ""
            if path.startswith("/api/v0/nodes"):
                nodes = [{"state": "ALIVE", "resources_total": {"CPU": 1000.0, "memory": 2.0**42}}]
                return 200, {"data": {"result": {"result": nodes}}}
            if path == "/api/jobs/":
                return (200, list(self.jobs.values())) if method == "GET" else self._submit(json.loads(body))
            return self._job(path.removeprefix("/api/jobs/"))

    def _submit(self, wanted: dict[str, Any]) -> tuple[int, Any] | None:
        name = wanted["submission_id"]
        if name in self.jobs:
            return 500, f"ValueError: Job with submission_id {name} already exists."
        started = int(time.time() * 1000) + len(self.jobs)
        self.jobs[name] = {**wanted, "status": "PENDING", "message": "Job has not started yet.", "start_time": started}
        if self.lose:
            self.lose -= 1
            return None
        return 200, {"submission_id": name}

    def _job(self, path: str) -> tuple[int, Any]:
        name, _, verb = path.partition("/")
        job = self.jobs.get(name)
        if job is None:
            return 404, f"Job {name} does not exist"
        if verb != "stop":
            return 200, job
        running = job["status"] in {"PENDING", "RUNNING"}
        if running:
            job["status"], job["end_time"] = "STOPPED", int(time.time() * 1000)
        return 200, {"stopped": running}


class ScriptedRayJob:
    """A job of the server, with the attributes that tests read."""

    def __init__(self, owner: RayOverMemory, job: Mapping[str, Any]) -> None:
        self._owner, self._job = owner, job
        uri = str(job["entrypoint"]).rsplit(" ", 1)[1].strip("'")
        self._stored = Stored.from_bytes(owner.storage.read(uri))
        self.handle, self.submission = self._stored.handle, self._stored.submission

    @property
    def state(self) -> JobState:
        return self._owner.describe([self.handle])[0].state

    @state.setter
    def state(self, state: JobState) -> None:
        self._owner.write(self.handle, state)

    @property
    def ended(self) -> float | None:
        return self._owner.describe([self.handle])[0].ended

    @ended.setter
    def ended(self, moment: float) -> None:
        self._owner.write(self.handle, self.state, ended=moment)


class RayOverMemory:
    """The ray backend with the methods by which a test acts as the cluster: those of :class:`MemoryBackend`."""

    name = "ray"
    logs_at_once = 1000

    def __init__(self, api: RayApi, url: str, storage: Storage) -> None:
        self.storage = storage
        self._api, self._url = api, url
        client = RayClient(Access(url), deadline=0.0, sleep=lambda _: time.sleep(0.001))
        self._ray = RayBackend(client=client, storage=storage)
        self._before = set(api.jobs)

    # The methods of the backend.

    def submit(self, submission: Submission) -> JobHandle:
        # Some tests use jobs without a package, which this backend would reject because it installs the package.
        spec = submission.spec
        packages = spec.package_uris or (f"{submission.job_dir}/none-1.tar.gz",)
        return self._ray.submit(replace(submission, spec=replace(spec, package_uris=packages)))

    def find(self, key: str) -> list[JobHandle]:
        return self._ray.find(key)

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        return self._ray.describe(handles)

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        return self._ray.logs(handle, cursor, limit)

    def logs_many(
        self, wanted: Sequence[tuple[JobHandle, Mapping[str, Any]]], limit: int = 1000, *, urgent: bool = False
    ) -> list[LogPage]:
        return self._ray.logs_many(wanted, limit, urgent=urgent)

    def cancel(self, handle: JobHandle) -> None:
        self._ray.cancel(handle)
        job, uri = self._api.jobs.get(handle.name), state_uri(folder(handle))
        if job and job["status"] == "STOPPED" and self.storage.exists(uri):
            self.write(handle, JobState.CANCELLED)  # the last thing that the driver does

    def console_url(self, handle: JobHandle) -> str | None:
        return self._ray.console_url(handle)

    # The methods with which a test observes and controls jobs.

    def another(self) -> RayOverMemory:
        """A backend on the same server that does not list the existing jobs."""
        return RayOverMemory(self._api, self._url, self.storage)

    @property
    def jobs(self) -> list[ScriptedRayJob]:
        """The jobs that were submitted with this backend, oldest first."""
        found = [job for name, job in self._api.jobs.items() if name not in self._before]
        return [ScriptedRayJob(self, job) for job in found]

    @property
    def live(self) -> list[ScriptedRayJob]:
        refused, self._api.refuse = self._api.refuse, 0
        try:
            return [job for job in self.jobs if not job.state.terminal]
        finally:
            self._api.refuse = refused

    def end(self, name: str, state: JobState, cause: FailureCause | None = None) -> None:
        """End a job as its driver would: write its final state and exit."""
        for job in self.jobs:
            if job.handle.name == name:
                failed = Failure(cause, f"ended by {cause.value}").to_json() if cause else None
                # Longer than every delay before another attempt.
                self.write(job.handle, state, failure=failed, ended=time.time() - 3600.0)

    def write(self, handle: JobHandle, state: JobState, **more: Any) -> None:
        """Set a job's state in the bucket and in Ray."""
        uri = state_uri(folder(handle))
        data = json.loads(self.storage.read(uri)) if self.storage.exists(uri) else {}
        data |= {"state": state.value, "detail": "", **more}
        self.storage.write(uri, json.dumps(data).encode())
        self._api.jobs[handle.name]["status"] = _ENDINGS.get(state, "FAILED") if state.terminal else "RUNNING"

    @property
    def refuse(self) -> int:
        return self._api.refuse

    @refuse.setter
    def refuse(self, calls: int) -> None:
        self._api.refuse = calls

    @property
    def lose_answers(self) -> int:
        """The number of next submissions that take effect and then raise."""
        return self._api.lose

    @lose_answers.setter
    def lose_answers(self, calls: int) -> None:
        self._api.lose = calls


@contextmanager
def ray_over_memory(storage: Storage) -> Iterator[RayOverMemory]:
    """A fake server of Ray's Jobs API, and the ray backend on it."""
    api = RayApi()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = api.answer(self.command, self.path, body)
            if answer is None:
                self.close_connection = True
                return
            data = answer[1].encode() if isinstance(answer[1], str) else json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Suppress the server's request log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield RayOverMemory(api, f"http://127.0.0.1:{server.server_port}", storage)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
