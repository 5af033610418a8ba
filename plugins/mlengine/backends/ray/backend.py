"""The backend ``ray``: a backend's six methods, implemented with Ray's Jobs API and the job's folder in the bucket.

There is at most one job for a key and attempt: Ray's ``submission_id`` consists of both, and Ray refuses a second job
of that name. So every call here may be repeated.
"""

from __future__ import annotations

import json
import logging
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from mlengine.backends import LogPage, Submission
from mlengine.backends.cloud_variables import located
from mlengine.backends.ray import logs, lost_jobs, shipping, shown, submitted_cluster
from mlengine.backends.ray.access import Access, extra_of
from mlengine.backends.ray.bundles import Bundle, bundles, check_fit
from mlengine.backends.ray.client import Job, RayClient
from mlengine.backends.ray.record import Stored, cancel_uri, folder, job_name, state_uri
from mlengine.backends.ray.settings import RaySettings
from mlengine.backends.ray.states import STATES, status
from mlengine.backends.submission_checks import check_submission
from mlengine.core.errors import BackendError, BackendUnavailableError, MlengineError, ObjectMissingError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

LOST_SECONDS = 60.0  # used if the driver has not written how long its replicas may run on without it
JOIN_SECONDS = 180.0  # within which nodes join a restarted head node; Ray's nodes take 60 s to miss the old one
STOP_SECONDS = 30.0  # within which Ray must find the process that a cancellation stops
_THREADS = 16
_KEY, _ATTEMPT, _JOB_ID, _JOB_DIR = "mlengine_key", "mlengine_attempt", "mlengine_job_id", "mlengine_job_dir"


class RayBackend:
    """See :class:`mlengine.backends.TrainingBackend` for the contract of the methods.

    The replicas use the application default credentials of the cluster's nodes.

    :param address: the URL of the cluster's dashboard; by default the setting ``ray_address``.
    :param token: a bearer token for every request; by default the setting ``ray_token``.
    :param headers: the headers of every request; by default the setting ``ray_headers``.
    :param gcp_conn_id: an Airflow connection, whose extra may contain address, token and headers.
    :param impersonation_chain: service accounts to impersonate for the bucket.
    :param client: replaces the REST client.
    :param storage: replaces the storage client.
    :param lost_seconds: the seconds for which a job is UNKNOWN after its driver has ended without a final state: after
        that time, none of its replicas can be running. By default, the number that the driver has written.
    :param join_seconds: the seconds after the start of the head node before which a job is not refused because it does
        not fit: nodes may still be joining.
    :param given: fields of :class:`RaySettings`. All other fields are read from :mod:`mlengine.settings`.

    Nothing is read, imported or requested before the first method is called.
    """

    name = "ray"
    logs_at_once = 1000
    limits_restarts = True  # the limit is the setting ray_max_cluster_restarts
    polling_settings = frozenset({"address", "token", "headers", "gcp_conn_id", "impersonation_chain", "lost_seconds"})

    def __init__(
        self,
        *,
        address: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | str | None = None,
        gcp_conn_id: str | None = None,
        impersonation_chain: str | Sequence[str] | None = None,
        client: RayClient | None = None,
        storage: Storage | None = None,
        lost_seconds: float | None = None,
        join_seconds: float = JOIN_SECONDS,
        **given: Any,
    ) -> None:
        self._address, self._token, self._headers = address, token, headers
        self._gcp_conn_id = gcp_conn_id
        self._client = client
        self._storage = storage or Storage.from_connection(gcp_conn_id, impersonation_chain)
        self._given = given
        self._lost_seconds, self._join_seconds = lost_seconds, join_seconds
        self._lock = threading.Lock()

    @classmethod
    def from_connection(
        cls,
        gcp_conn_id: str | None,
        *,
        project: str | None = None,  # noqa: ARG003 - of Google Cloud; a Ray cluster has none
        region: str | None = None,  # noqa: ARG003
        **more: Any,
    ) -> Self:
        """A backend with the extra of an Airflow connection, and with the connection's credentials for the bucket."""
        return cls(gcp_conn_id=gcp_conn_id, **more)

    def _prepared(self, submission: Submission) -> tuple[Stored, list[Bundle]]:
        check_submission(submission)
        extra = extra_of(self._gcp_conn_id)
        stored = Stored(located(submission, extra), RaySettings.load(extra, submission.spec.ray, **self._given))
        return stored, bundles(submission.spec, stored.settings.resources)

    def show(self, submission: Submission) -> str:
        """See :class:`mlengine.backends.ShowsRequest`. As no request is sent, the job may not fit into the cluster."""
        stored, wanted = self._prepared(submission)
        return shown.request(stored, wanted)

    def submit(self, submission: Submission) -> JobHandle:
        stored, wanted = self._prepared(submission)
        client = self._open()
        version = client.check_version()
        if client.get(stored.name) is not None:
            return stored.handle
        submitted_cluster.check(self._storage, stored.handle, client.access.address)
        own = folder(stored.handle)
        if self._storage.exists(state_uri(own)):
            log.info("%s has run on this cluster, which no longer has a record of it", stored.name)
            return stored.handle
        # A later attempt fit before a node was lost. It waits in Ray's queue for the nodes to return.
        if submission.attempt == 1 and not stored.settings.autoscaling:
            self._check_fit(stored, wanted)
        package = shipping.package()
        client.upload(package.name, package.data)
        self._storage.write(stored.uri, stored.to_bytes())
        self._storage.delete(cancel_uri(own))
        submitted_cluster.record_cluster(self._storage, stored.handle, client.access.address)
        log.info("Submitting %s to %s, Ray %s", stored.name, client.access.address, version)
        try:
            if not client.submit(_request(stored, package.uri)):
                log.info("%s already exists", stored.name)
        except BackendUnavailableError:
            raise  # the job may have been created
        except BackendError:
            submitted_cluster.forget(self._storage, stored.handle)
            raise
        return stored.handle

    def _check_fit(self, stored: Stored, wanted: list[Bundle]) -> None:
        """Refuse a job that does not fit into the cluster.

        If the head node is just starting, nodes may still be joining: then the check is repeated for a while.

        :raises BackendError: the job does not fit.
        """
        client, it = self._open(), stored.submission
        until = time.monotonic() + self._join_seconds
        while True:
            try:
                return check_fit(it.job_id, it.spec, wanted, client.nodes(), stored.settings.placement)
            except BackendError as error:
                if time.monotonic() > until or not client.nodes_may_join(JOIN_SECONDS):
                    raise
                log.info("The head node has just been started; waiting for nodes: %s", error)
            client.sleep(2.0)

    def find(self, key: str) -> list[JobHandle]:
        return [handle for job, handle in self._list() if job["metadata"][_KEY] == key]

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        """The states of the jobs, read with one list call for all jobs, and one object in the bucket for each.

        The list is read first: if Ray says that a job has ended, its driver has already written its last state.
        """
        if not handles:
            return []
        found = {str(job["submission_id"]): job for job in self._open().list_jobs()}
        with ThreadPoolExecutor(min(_THREADS, len(handles))) as pool:
            return list(pool.map(lambda handle: self._status(handle, found.get(handle.name)), handles))

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        return logs.page(self._storage, folder(handle), cursor, limit)

    def logs_many(
        self,
        wanted: Sequence[tuple[JobHandle, Mapping[str, Any]]],
        limit: int = 1000,
        *,
        urgent: bool = False,  # noqa: ARG002 - reads of the bucket have no quota
    ) -> list[LogPage]:
        """See :class:`mlengine.backends.BatchesLogs`."""
        if not wanted:
            return []
        with ThreadPoolExecutor(min(_THREADS, len(wanted))) as pool:
            return list(pool.map(lambda one: self.logs(one[0], one[1], limit), wanted))

    def cancel(self, handle: JobHandle) -> None:
        """Stop the job, and verify that Ray has found it: a job that is just being created has nothing to stop yet.

        :raises BackendUnavailableError: Ray did not stop the job.
        :raises BackendError: the job was submitted to another cluster.
        """
        client = self._open()
        try:
            self._storage.write(cancel_uri(folder(handle)), b"{}", "application/json")
        except MlengineError as error:  # cancel.json matters only if the job is lost meanwhile
            log.warning("The cancellation of %s could not be recorded: %s", handle.name, error)
        until = time.monotonic() + STOP_SECONDS
        while not client.stop(handle.name):
            job = client.get(handle.name)
            if job is None:
                if not self._ended(handle):
                    submitted_cluster.check(self._storage, handle, client.access.address)
                return
            if STATES.get(str(job.get("status")), JobState.UNKNOWN).terminal:
                return
            if time.monotonic() > until:
                raise BackendUnavailableError(
                    f"Ray did not stop {handle.name} within {STOP_SECONDS:.0f} s; its state is {job.get('status')}",
                    hint=f"cancel it again, or run: ray job stop {handle.name}",
                )
            client.sleep(0.5)

    def console_url(self, handle: JobHandle) -> str | None:
        return f"{self._open().access.address}/#/jobs/{handle.name}"

    def jobs(self, named: str | None = None) -> list[JobHandle]:
        """See :class:`mlengine.backends.ListsJobs`."""
        return [handle for _, handle in self._list() if named is None or named in {handle.name, handle.job_id}]

    def _open(self) -> RayClient:
        with self._lock:
            if self._client is None:
                self._client = RayClient(self._access(), renew=self._access)
            return self._client

    def _access(self) -> Access:
        return Access.find(self._address, self._token, self._headers, extra_of(self._gcp_conn_id))

    def _list(self) -> list[tuple[Job, JobHandle]]:
        """The jobs of this project on the cluster, oldest first."""
        own = [job for job in self._open().list_jobs() if _KEY in (job.get("metadata") or {})]
        own.sort(key=lambda job: (job.get("start_time") or 0, str(job["submission_id"])))
        return [(job, _handle(job)) for job in own]

    def _status(self, handle: JobHandle, job: Job | None) -> JobStatus:
        own = folder(handle)
        try:
            written = self._written(handle)
            found = status(handle, job, written, lambda: self._storage.exists(cancel_uri(own)))
        except (MlengineError, ValueError, KeyError, TypeError) as error:
            why = error.message if isinstance(error, MlengineError) else repr(error)
            return JobStatus(handle, JobState.UNKNOWN, f"its state in the bucket cannot be read: {why}")
        if written is not None and JobState(written["state"]).terminal:
            return found  # the driver wrote it when all replicas had ended
        if job is None and (elsewhere := self._elsewhere(handle)):
            return JobStatus(handle, JobState.UNKNOWN, elsewhere, created=found.created, started=found.started)
        return found if written is None else self._delayed(found, written, may_return=job is None)

    def _written(self, handle: JobHandle) -> dict[str, Any] | None:
        """The state that the driver has written; ``None`` if there is none, so that no replica was started."""
        try:
            written: dict[str, Any] = json.loads(self._storage.read(state_uri(folder(handle))))
        except ObjectMissingError:
            return None
        JobState(written["state"])
        return written

    def _elsewhere(self, handle: JobHandle) -> str:
        """The reason why a job that this cluster does not know may run on another one; empty if it cannot."""
        try:
            submitted_cluster.check(self._storage, handle, self._open().access.address)
        except MlengineError as error:
            return f"{error.message}: {error.hint}"
        return ""

    def _ended(self, handle: JobHandle) -> bool:
        """Whether the job's driver has written a final state."""
        try:
            written = self._written(handle)
            return written is not None and JobState(written["state"]).terminal
        except (ValueError, KeyError, TypeError):
            return False

    def _delayed(self, found: JobStatus, written: Mapping[str, Any], *, may_return: bool) -> JobStatus:
        """The status of a job, with the state UNKNOWN while replicas may be running.

        If the driver has ended without a final state, replicas run on for some time.

        :param may_return: see :func:`mlengine.backends.ray.lost_jobs.lost_for`.
        """
        if not found.state.terminal or found.state is JobState.SUCCEEDED:
            return found
        seconds = written.get("lost_seconds", LOST_SECONDS) if self._lost_seconds is None else self._lost_seconds
        detail = f"waiting until its replicas have ended: {found.detail}"
        try:
            if lost_jobs.lost_for(self._storage, found.handle, written, seconds, may_return=may_return):
                return found
        except MlengineError as error:
            detail = f"{detail}; {error}"
        return JobStatus(found.handle, JobState.UNKNOWN, detail, created=found.created, started=found.started)


def _handle(job: Job) -> JobHandle:
    metadata = job["metadata"]
    return JobHandle("ray", str(job["submission_id"]), metadata[_JOB_ID], int(metadata[_ATTEMPT]), metadata[_JOB_DIR])


def _request(stored: Stored, package_uri: str) -> dict[str, Any]:
    """The body of the request that submits a job."""
    it, chosen = stored.submission, stored.settings
    runtime_env = dict(chosen.runtime_env)
    stop = chosen.termination_grace_seconds + 30.0
    runtime_env["env_vars"] = {
        # The time that Ray gives the driver to end the replicas, before Ray kills the driver.
        "RAY_JOB_STOP_WAIT_TIME_S": f"{stop:.0f}",
        **runtime_env.get("env_vars", {}),
    }
    return {
        "submission_id": job_name(it.key, it.attempt),
        "entrypoint": shlex.join(["exec", "python", shipping.START, stored.uri]),
        "runtime_env": {**runtime_env, "working_dir": package_uri},
        "metadata": {
            **{str(name): str(value) for name, value in it.labels.items()},
            "job_name": it.job_id,
            _KEY: it.key,
            _ATTEMPT: str(it.attempt),
            _JOB_ID: it.job_id,
            _JOB_DIR: it.job_dir,
        },
    }
