"""The backend ``vertex``: the six methods of a backend, implemented with Vertex AI's ``customJobs``.

There is at most one job for a key and attempt. The service has no request id, so each job has the key as a label. The
backend searches for that label before a create, after a create whose response was lost (with pauses, as lists may lag),
and once more after a create, when it keeps the older of two jobs.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol, Self

from mlengine.backends import LogPage, Submission
from mlengine.backends.outputs import ListsObjects, OutputCheck
from mlengine.backends.vertex import accelerators, checks, fallbacks, logs, network_checks, package_checks, prices
from mlengine.backends.vertex import location as locations
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.jobs import Job, Jobs, is_name, parse, tensorboard_url
from mlengine.backends.vertex.log_budget import LogBudget
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.pools import python_of_chief
from mlengine.backends.vertex.request import (
    ATTEMPT_LABEL,
    KEY_LABEL,
    Request,
    custom_job,
    key_label,
    max_wait_seconds,
)
from mlengine.backends.vertex.states import Run, failure, final_state, job_state, replica_name
from mlengine.core.errors import BackendError, BackendUnavailableError, NoCapacityError, NoQuotaError
from mlengine.core.job import Failure, FailureCause, JobHandle, JobState, JobStatus
from mlengine.core.spec import TrainingSpec
from mlengine.core.times import seconds

log = logging.getLogger(__name__)

GRACE_PAUSES = (1.0, 3.0, 6.0)  # seconds before each search for a job after a create without a response
CREATES = 3
END_SECONDS = 300.0  # the time that a submission waits for the end of an earlier attempt that is still alive
_END_PAUSE_SECONDS = 5.0
_JOB_ID = re.compile(r"[\w-]+")
_JUST_ENDED_SECONDS = 3600.0  # of jobs that ended earlier, outputs are checked only when few jobs are polled
# The time that a poll waits for the search for outputs. It is short, as the poll also has the news of other jobs.
OUTPUTS_SECONDS, OUTPUTS_ALONE_SECONDS = 1.0, 30.0
MAX_CREATED = 20_000  # the number of jobs whose createTime is kept
ERROR_SECONDS = 90.0  # the service adds the error of a failed job up to about a minute after its end
_FEW = 2  # up to this number of jobs of unknown age are read one by one


class _Bucket(package_checks.Reads, ListsObjects, Protocol):
    """The methods of :class:`mlengine.storage.client.Storage` that this backend uses."""


class VertexBackend:
    """See :class:`mlengine.backends.TrainingBackend` for the contract of the methods.

    :param project: the Google Cloud project; by default as in :mod:`mlengine.backends.vertex.location`.
    :param region: the region of jobs; by default as in that module.
    :param endpoint: the URL of a server that replaces Vertex AI; by default as in that module.
    :param gcp_conn_id: an Airflow connection; with ``None``, the application default credentials are used.
    :param impersonation_chain: service accounts to impersonate, as in the Google provider.
    :param client: replaces the REST client, with its deadlines.
    :param storage: the client that reads packages' requirements; by default, one with the connection's credentials.
    :param options: fields of :class:`~mlengine.backends.vertex.options.VertexOptions`.

    Nothing is read, imported or requested before the first method is called.
    """

    name = "vertex"
    logs_at_once = logs.JOBS_A_CALL
    quiet_log_seconds = 15.0
    polling_settings = frozenset({"project", "endpoint", "gcp_conn_id", "impersonation_chain"})

    def __init__(
        self,
        *,
        project: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        gcp_conn_id: str | None = None,
        impersonation_chain: str | Sequence[str] | None = None,
        client: RestClient | None = None,
        storage: _Bucket | None = None,
        **options: Any,
    ) -> None:
        self._options = VertexOptions.of(options)
        fallbacks.check(self._options.fallbacks)
        self._project, self._region, self._endpoint = project, region, endpoint
        self._gcp_conn_id, self._impersonation = gcp_conn_id, impersonation_chain
        self._client, self._storage = client, storage
        self._jobs: Jobs | None = None
        self._lock = threading.Lock()
        self._outputs = OutputCheck(self._open_storage)
        # The jobs of the last poll of many jobs that had not ended: the service's JSON and our status.
        self._last: dict[str, tuple[Job, JobStatus]] = {}
        # The createTime of each job by name: lists and log queries must go back to it.
        self._created: dict[str, str] = {}
        self._budgets: dict[str, LogBudget] = {}
        self._regions: set[str] = set()  # the regions of job files, which find() must search
        # The regions of fallbacks: find() searches these, too, whatever region the argument names.
        self._other_regions = {str(one["region"]) for one in self._options.fallbacks if "region" in one}
        self._no_error_since: dict[str, float] = {}  # failed job without an error → when it was first seen (monotonic)

    @classmethod
    def from_connection(cls, gcp_conn_id: str | None, **more: Any) -> Self:
        """A backend with the credentials, project, region and endpoint of an Airflow connection."""
        return cls(gcp_conn_id=gcp_conn_id, **more)

    @staticmethod
    def polling_location(handle: JobHandle) -> str:
        """See :func:`mlengine.backends.polling_location`: the project and region."""
        return _parent(handle.name) if is_name(handle.name) else handle.name

    def prepare(self, submission: Submission) -> Request:
        """The request that :meth:`submit` would send, after all checks. No request is sent.

        Each fallback that is left is checked, too, so that a mistake in one is not found only when it is needed.

        :raises BackendError: a combination cannot work, or the cost estimate is above the cap.
        """
        request = self._checked(submission)
        place = int(submission.fallback["number"]) if submission.fallback else 0
        for fallback in fallbacks.numbered(self._options.fallbacks)[place:]:
            try:
                self._checked(replace(submission, fallback=fallback))
            except BackendError as error:
                raise BackendError(f"{fallbacks.described(fallback)}: {error.message}", hint=error.hint) from error
        return request

    def _checked(self, submission: Submission) -> Request:
        request = custom_job(submission, self._options)
        checks.check(submission.job_id, request.body, new_accelerators=not self._options.accelerator_checks)
        region = (submission.fallback or {}).get("region")
        region = region or self._region or submission.spec.region or self._default_region()
        if region:
            checks.check_region(submission.job_id, request.body, locations.check_region(region))
        found = prices.estimate(request.body, self._options.prices)
        prices.check_cap(submission.job_id, found, self._options.cost_cap_usd)
        notes = (*request.notes, *accelerators.notes(request.body), *network_checks.notes(request.body), str(found))
        return Request(request.body, notes)

    def show(self, submission: Submission) -> str:
        """See :class:`mlengine.backends.ShowsRequest`. No request is sent, and no credentials are needed."""
        request = self.prepare(submission)
        return "".join(f"# {note}\n" for note in request.notes) + request.to_yaml()

    def python_of(self, spec: TrainingSpec) -> str | None:
        """See :class:`mlengine.backends.KnowsPython`: the version in the name of the chief's image."""
        return python_of_chief(spec, self._options)

    def usd_per_hour(self, submission: Submission) -> float | None:
        """See :class:`mlengine.backends.EstimatesCost`. List prices are not updated; no request is sent."""
        found = prices.estimate(custom_job(submission, self._options).body, self._options.prices)
        return None if found.unpriced else found.usd_per_hour

    def max_wait_seconds(self, spec: TrainingSpec, fallback: Mapping[str, Any] | None = None) -> float | None:
        """See :class:`mlengine.backends.LeavesWaitLimit`."""
        return max_wait_seconds(spec, fallbacks.options_of(self._options, fallback))

    def submit(self, submission: Submission) -> JobHandle:
        request = self.prepare(submission)
        jobs = self._open()
        region = (submission.fallback or {}).get("region")
        self.learn_region(submission.spec, *([region] if region else []))
        parent = jobs.location.parent_in(region) if region else jobs.location.parent(submission.spec.region)
        checks.check_region(submission.job_id, request.body, parent.rsplit("/", 1)[1])
        attempts = self._attempts(submission.key)
        existing = _numbered(attempts, submission.attempt)
        if existing:
            return self._handle(existing[0])
        self._end_earlier(submission, attempts)
        package_checks.check(
            submission.job_id,
            request.body,
            submission.spec.package_uris,
            self._open_storage(),
            accelerators=self._options.accelerator_checks,
        )
        for note in request.notes:
            log.info("job %s: %s", submission.job_id, note)
        log.info("Creating job %s in %s:\n%s", submission.job_id, parent, request.to_yaml())
        # If a fallback is left, there is no reason to wait for a quota.
        patience = 0.0 if self.next_fallback(submission.fallback, None) else None
        for number in range(CREATES):
            try:
                made = jobs.create(parent, request.body, patience=patience)
            except (NoCapacityError, NoQuotaError) as error:
                if not number:
                    raise
                # An earlier request had no response: its job may appear late, so no fallback may be tried now.
                raise BackendUnavailableError(error.message, hint=error.hint) from error
            if made is not None:
                job = self._oldest(submission, made)
                instance = request.body["jobSpec"].get("tensorboard")
                if instance:
                    log.info("job %s: TensorBoard: %s", submission.job_id, tensorboard_url(instance, str(job["name"])))
                return self._handle(job)
            for pause in GRACE_PAUSES:
                jobs.client.sleep(pause)
                existing = _numbered(self._attempts(submission.key), submission.attempt)
                if existing:
                    return self._handle(existing[0])
        raise BackendUnavailableError(
            f"job {submission.job_id}: {CREATES} create requests in {parent} had no response, and no job was created",
            hint="submit again later; a job that appears late is found by its label",
        )

    def find(self, key: str) -> list[JobHandle]:
        """All attempts of ``key`` in the regions that this object knows, oldest first.

        These are the region of the argument, connection or setting, those of the fallbacks, and those of
        :meth:`learn_region`.

        :raises BackendError: no region is known.
        """
        return [self._handle(job) for job in self._attempts(key)]

    def learn_region(self, spec: TrainingSpec, *regions: str) -> None:
        """See :class:`mlengine.backends.LearnsRegions`."""
        if spec.region:
            self._regions.add(spec.region)
        self._other_regions.update(regions)

    def next_fallback(self, current: Mapping[str, Any] | None, status: JobStatus | None) -> Mapping[str, Any] | None:
        """See :class:`mlengine.backends.FallsBack`."""
        if status is not None and not fallbacks.lacks_machines(status):
            return None
        return fallbacks.following(self._options.fallbacks, current)

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        groups: dict[str, list[str]] = {}
        for handle in handles:
            groups.setdefault(_parent(handle.name), []).append(handle.name)
        found: dict[str, Job | None] = {}
        for parent, names in groups.items():
            found |= self._poll(parent, names)
        self._check_outputs(handles, found)
        statuses = [self._known_status(handle, found[handle.name]) for handle in handles]
        if len(handles) > _FEW:
            self._last = {
                status.handle.name: (job, status)
                for status in statuses
                if not status.state.terminal and (job := found[status.handle.name]) is not None
            }
        return statuses

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        return self.logs_many([(handle, cursor)], limit)[0]

    def logs_many(
        self, wanted: Sequence[tuple[JobHandle, Mapping[str, Any]]], limit: int = 1000, *, urgent: bool = False
    ) -> list[LogPage]:
        jobs = self._open()
        wanted = [(handle, logs.checked(cursor)) for handle, cursor in wanted]
        self._learn_creations([handle.name for handle, cursor in wanted if "since" not in cursor])
        named = [logs.JobLog(handle.name, cursor, self._created.get(handle.name)) for handle, cursor in wanted]
        reader = logs.LogReader(jobs.client, jobs.location.logging_endpoint, self._budget)
        return reader.read(named, limit, urgent=urgent)

    def cancel(self, handle: JobHandle) -> None:
        self._open().cancel(handle.name)

    def console_url(self, handle: JobHandle) -> str | None:
        if self._open().location.endpoint is not None:
            return None
        name = parse(handle.name)
        return (
            f"https://console.cloud.google.com/agent-platform/locations/{name['region']}/training/{name['number']}"
            f"?project={name['project']}"
        )

    def jobs(self, named: str | None = None) -> list[JobHandle]:
        """See :class:`mlengine.backends.ListsJobs`: the jobs in the regions that :meth:`find` searches."""
        opened = self._open()
        if named is not None and is_name(named):
            found = [opened.get(named)]
            return [self._handle(job) for job in found if job is not None and KEY_LABEL in job.get("labels", {})]
        if named is not None and not _JOB_ID.fullmatch(named):
            return []
        query = f"labels.{KEY_LABEL}:*" + (f' AND display_name="{named}"' if named else "")
        listed = [job for parent in self._parents() for job in opened.list(parent, query)]
        return [self._handle(job) for job in sorted(listed, key=_age)]

    def _open(self) -> Jobs:
        """The client and the location, which are created once."""
        with self._lock:
            if self._jobs is None:
                self._jobs = self._connect()
            return self._jobs

    def _open_storage(self) -> _Bucket:
        from mlengine.storage.client import Storage

        if self._storage is None:
            self._storage = Storage.from_connection(self._gcp_conn_id, self._impersonation)
        return self._storage

    def _connect(self) -> Jobs:
        location, credentials = locations.connect(
            self._gcp_conn_id,
            self._impersonation,
            project=self._project,
            region=self._region,
            endpoint=self._endpoint,
        )
        return Jobs(self._client or RestClient(credentials, direct=locations.is_local(location.endpoint)), location)

    def _default_region(self) -> str | None:
        """The region of the connection, or else of the setting."""
        return self._jobs.location.region if self._jobs else locations.default_region(self._gcp_conn_id)

    def _parents(self) -> list[str]:
        """All locations in which jobs may be."""
        location = self._open().location
        parents = {location.parent(region) for region in tuple(self._regions)}
        if location.has_region or not parents:
            parents.add(location.parent())
        return sorted(parents | {location.parent_in(region) for region in tuple(self._other_regions)})

    def _budget(self, project: str) -> LogBudget:
        server = self._open().location.logging_endpoint
        with self._lock:
            if project not in self._budgets:
                self._budgets[project] = LogBudget.of(server, project)
            return self._budgets[project]

    def _learn_creations(self, names: Sequence[str]) -> None:
        """Read the creation times of jobs that were not described yet."""
        unknown = [name for name in names if name not in self._created]
        self._note_creations(self._get(unknown))

    def _get(self, names: Sequence[str]) -> dict[str, Job | None]:
        """The jobs by name, read with one call for each; ``None`` for a job that does not exist."""
        jobs = self._open()
        if len(names) <= 1:
            return {name: jobs.get(name) for name in names}
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(names, pool.map(jobs.get, names), strict=True))

    def _note_creations(self, found: Mapping[str, Job | None]) -> None:
        for name, job in found.items():
            if job is not None and "createTime" in job:
                self._created[name] = job["createTime"]
        while len(self._created) > MAX_CREATED:
            self._created.pop(next(iter(self._created)), None)

    def _attempts(self, key: str) -> list[Job]:
        """Jobs labelled with ``key`` in all locations, oldest first."""
        query = f"labels.{KEY_LABEL}={key_label(key)}"
        found = [job for parent in self._parents() for job in self._open().list(parent, query)]
        return sorted(found, key=_age)

    def _end_earlier(self, submission: Submission, attempts: Sequence[Job]) -> None:
        """Cancel earlier attempts that are still alive, and wait until they have ended.

        :raises BackendUnavailableError: an attempt had not ended after :data:`END_SECONDS`.
        """
        jobs, until = self._open(), time.monotonic() + END_SECONDS
        for job in attempts:
            if not _live(job) or _attempt_of(job) >= submission.attempt:
                continue
            name = str(job["name"])
            log.warning("job %s: cancelling attempt %d, %s", submission.job_id, _attempt_of(job), name)
            jobs.cancel(name)
            while (now := jobs.get(name)) is not None and _live(now):
                if time.monotonic() > until:
                    raise BackendUnavailableError(
                        f"job {submission.job_id}: attempt {_attempt_of(job)}, {name}, was cancelled and has not ended",
                        hint=f"attempt {submission.attempt} is created once it has; try again",
                    )
                jobs.client.sleep(_END_PAUSE_SECONDS)

    def _oldest(self, submission: Submission, made: Job) -> Job:
        """Keep the older of two jobs that were created concurrently, and return it.

        Both submitters see the same order, so one job remains.
        """
        twins = [job for job in _numbered(self._attempts(submission.key), submission.attempt) if _live(job)]
        if not twins or _age(made) <= _age(twins[0]):
            return made
        oldest = twins[0]
        log.warning("job %s: created twice; keeping %s, cancelling %s", submission.job_id, oldest["name"], made["name"])
        self._open().cancel(made["name"])
        return oldest

    def _poll(self, parent: str, names: Sequence[str]) -> dict[str, Job | None]:
        """The jobs of one region by name: one list from the oldest's creation, and one call for each job not in it."""
        jobs = self._open()
        found: dict[str, Job | None] = {}
        unknown = [name for name in names if name not in self._created]
        if len(names) > _FEW or (len(names) > 1 and not unknown):
            query = f"labels.{KEY_LABEL}:*"
            if not unknown:
                query += f' AND create_time>="{min(self._created[name] for name in names)}"'
            wanted = set(names)
            for listed in jobs.list(parent, query, lambda: wanted <= found.keys(), brief=True):
                if listed["name"] in wanted:
                    found[listed["name"]] = listed
        # The limits of a job show whether it was cancelled at one of them, and the list does not contain them.
        missing = [name for name in names if name not in found or _lacks_limits(found[name])]
        found |= self._get(missing)
        self._note_creations(found)
        return found

    def _check_outputs(self, handles: Sequence[JobHandle], found: Mapping[str, Job | None]) -> None:
        """Search for the outputs of jobs that have succeeded; of many jobs, only those that ended a short time ago."""
        alone = len(handles) <= _FEW
        succeeded = [
            handle
            for handle in handles
            if (job := found[handle.name]) is not None
            and job_state(job.get("state")) is JobState.SUCCEEDED
            and (alone or "endTime" not in job or time.time() - seconds(job["endTime"]) < _JUST_ENDED_SECONDS)
        ]
        if succeeded:
            self._outputs.run(succeeded, OUTPUTS_ALONE_SECONDS if alone else OUTPUTS_SECONDS)

    def _known_status(self, handle: JobHandle, job: Job | None) -> JobStatus:
        """The status of a job. If nothing has changed, as for most of a thousand jobs, it is that of the last poll."""
        known = self._last.get(handle.name)
        unchanged = known is not None and known[0] == job and known[1].handle == handle
        # An UNKNOWN status depends on the time, so it is determined again.
        if known is not None and unchanged and known[1].state is not JobState.UNKNOWN:
            return known[1]
        return self._status(handle, job)

    def _status(self, handle: JobHandle, job: Job | None) -> JobStatus:
        if job is None:
            self._created.pop(handle.name, None)
            gone = Failure(FailureCause.LOST, f"Vertex AI has no job {handle.name}: it was deleted")
            return JobStatus(handle, JobState.FAILED, "deleted in Vertex AI", gone)
        state = job_state(job.get("state"))
        created, started, ended = (
            seconds(job[name]) if name in job else None for name in ("createTime", "startTime", "endTime")
        )
        status = JobStatus(handle, state, created=created, started=started, ended=ended)
        if not state.terminal:
            restarting = started is not None and state in {JobState.QUEUED, JobState.PREPARING}
            detail = "restarted by Vertex AI" if restarting else ""
            return replace(status, detail=detail, restarting=restarting, links=_links(job))
        error = job.get("error") or {}
        if state is JobState.FAILED and not error and self._may_follow(handle.name, ended):
            return replace(status, state=JobState.UNKNOWN, detail="failed; Vertex AI has not given the error yet")
        detail = str(error.get("message", ""))
        self._no_error_since.pop(handle.name, None)
        if state is JobState.SUCCEEDED:
            detail = self._outputs.message(handle)
        run = Run.of(job)
        state = final_state(state, run)
        why = failure(state, error, run)
        if state is JobState.EXPIRED and why is not None:
            detail = why.message
        return replace(status, state=state, detail=detail, failure=why)

    def _may_follow(self, name: str, ended: float | None) -> bool:
        """Whether the service may still add the error of a failed job.

        This is so for at most :data:`ERROR_SECONDS`, even if this machine's clock differs from the service's.
        """
        if ended is None or time.time() - ended >= ERROR_SECONDS:
            return False
        return time.monotonic() - self._no_error_since.setdefault(name, time.monotonic()) < ERROR_SECONDS

    def _handle(self, job: Job) -> JobHandle:
        if "createTime" in job:
            self._created[job["name"]] = job["createTime"]
        return JobHandle(
            backend=self.name,
            name=job["name"],
            job_id=job["displayName"],
            attempt=_attempt_of(job),
            job_dir=job.get("jobSpec", {}).get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/"),
        )


@lru_cache(maxsize=4096)
def _parent(name: str) -> str:
    """The location of a job."""
    return parse(name)["parent"]


def _age(job: Job) -> tuple[float, str]:
    return seconds(job.get("createTime", "9999-01-01T00:00:00Z")), str(job["name"])


def _attempt_of(job: Job) -> int:
    return int(job.get("labels", {}).get(ATTEMPT_LABEL, 1))


def _numbered(jobs: Sequence[Job], attempt: int) -> list[Job]:
    return [job for job in jobs if _attempt_of(job) == attempt]


def _links(job: Job) -> dict[str, str]:
    """The job's web access URIs by our names of the replicas; none for a job that has ended, as its shells are gone."""
    if not _live(job):
        return {}
    return {replica_name(name) or name: str(uri) for name, uri in sorted(job.get("webAccessUris", {}).items())}


def _lacks_limits(job: Job | None) -> bool:
    """Whether a listed job ended without success a short time ago, and may have been cancelled at a limit."""
    if job is None or "jobSpec" in job:
        return False
    state = job_state(job.get("state"))
    if state is not JobState.CANCELLED and not (state is JobState.FAILED and job.get("error")):
        return False
    return "endTime" in job and time.time() - seconds(job["endTime"]) < _JUST_ENDED_SECONDS


def _live(job: Job) -> bool:
    return not job_state(job.get("state")).terminal
