"""The interface of a training backend, and the registry of backends.

A backend has six methods, all synchronous; the trigger calls them outside of the event loop, through one shared poller.
Optional methods are separate protocols. No code outside of this file branches on a backend's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobStatus
from mlengine.core.spec import TrainingSpec


@dataclass(frozen=True)
class Submission:
    """One attempt of a job, as it is given to a backend for submission.

    :param key: the job key's digest; the backend labels the attempt with it, and :meth:`TrainingBackend.find` searches
        for it.
    :param labels: labels for users and billing; the backend adds key and attempt.
    :param fallback: the value that :meth:`FallsBack.next_fallback` returned for this attempt; ``None`` for the first
        request.
    :param project: the project of Google Cloud in the replicas' environment; "" for the configured one. Vertex AI sets
        its own.
    :param region: the region in the replicas' environment, likewise.
    """

    key: str
    job_id: str
    attempt: int
    job_dir: str
    spec: TrainingSpec
    labels: Mapping[str, str] = field(default_factory=dict)
    fallback: Mapping[str, Any] | None = None
    project: str = ""
    region: str = ""


class LogLine(NamedTuple):
    """One line of one replica's log. ``replica`` is ``role-index``, or ``launcher`` for the service's own log.

    :param stderr: the replica wrote it to stderr; always false if the backend does not know (:class:`SeparatesStderr`).
    """

    replica: str
    text: str
    time: float | None = None
    stderr: bool = False


@dataclass(frozen=True)
class LogPage:
    """The log lines since a cursor. ``cursor`` is opaque JSON, to be passed to the next call.

    :param more: whether there are lines, and further ones can be read at once.
    :param wait: the number of seconds after which the next call may be made, if the log was not read to its present
        end and there are no lines: the service limits how often logs are read, or a search takes more calls. ``None``
        if the log was read to its end.
    """

    lines: tuple[LogLine, ...]
    cursor: Mapping[str, Any]
    more: bool = False
    wait: float | None = None

    @property
    def complete(self) -> bool:
        """Whether the log was read to its present end."""
        return not self.more and self.wait is None


class TrainingBackend(Protocol):
    """A service that runs training jobs. Every method may be called again after a crash at any point."""

    name: str

    def submit(self, submission: Submission) -> JobHandle:
        """Start the attempt, once: a second call with the same key and attempt returns the first one's handle.

        :raises BackendError: the submission was rejected; retrying does not help.
        :raises NoCapacityError: the submission was rejected for lack of quota, and no job was created.
        :raises BackendUnavailableError: the backend cannot be reached; the call can be retried later.
        """

    def find(self, key: str) -> list[JobHandle]:
        """All attempts labelled with ``key``, oldest first, including those that a crash left unrecorded."""

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        """The states of many jobs, in the order of ``handles``, read with few calls to the service.

        A job that the backend no longer knows is FAILED with cause ``lost``.

        :raises BackendUnavailableError: the backend cannot be reached; the state of the jobs is unknown.
        """

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        """At most ``limit`` lines of all replicas, after ``cursor``; ``{}`` is the start of the log.

        The method does not wait for a quota: see :attr:`LogPage.wait`.
        """

    def cancel(self, handle: JobHandle) -> None:
        """Cancel the job. The call can be repeated safely; a job that has ended, or is unknown, is not an error."""

    def console_url(self, handle: JobHandle) -> str | None:
        """URL of a web page that shows the job; ``None`` if there is none."""


@runtime_checkable
class CapsCluster(Protocol):
    """A backend on one machine, which may run a smaller cluster than the job file requests."""

    def cap(self, spec: TrainingSpec) -> tuple[TrainingSpec, list[str]]:
        """The spec that will run, and one message for each value that was reduced."""


@runtime_checkable
class BatchesLogs(Protocol):
    """A backend that reads the logs of many jobs in one call.

    :param logs_at_once: the maximum number of jobs in one call.
    """

    logs_at_once: int

    def logs_many(
        self, wanted: Sequence[tuple[JobHandle, Mapping[str, Any]]], limit: int = 1000, *, urgent: bool = False
    ) -> list[LogPage]:
        """One page of log lines for each ``(handle, cursor)``, in the order of ``wanted``; ``limit`` lines per job.

        A call with the same jobs and the cursors of the last call continues a search that was not complete.

        :param urgent: whether some of the jobs have ended, and their last lines are wanted.
        """


@runtime_checkable
class LimitsLogReads(Protocol):
    """A backend whose service limits how often logs are read.

    :param quiet_log_seconds: the longest pause between two reads while a job writes nothing, to leave the quota to
        others.
    """

    quiet_log_seconds: float


@runtime_checkable
class RunsOnHost(Protocol):
    """A backend whose jobs run on one host, and are visible only there.

    The state of a job on another host is UNKNOWN, and the backend refuses to cancel such a job.
    """

    def host(self) -> str:
        """The name of this host, as recorded in its jobs."""

    def elsewhere(self, handle: JobHandle) -> str | None:
        """The name of the job's host if it is not this one; otherwise ``None``."""


@runtime_checkable
class LimitsRestarts(Protocol):
    """A backend that restarts the replicas of a job itself, and limits how often: a restart is not a new attempt.

    :param limits_restarts: always true.
    """

    limits_restarts: bool


@runtime_checkable
class EndsReplicas(Protocol):
    """A backend that can end a single replica as a preempted host does, to test recovery."""

    def end_replica(self, handle: JobHandle, replica: str) -> bool:
        """Send SIGTERM to ``replica`` (``role-index``). Return ``False`` if the replica is not running."""


@runtime_checkable
class SeparatesStderr(Protocol):
    """A backend that can keep the replicas' stdout and stderr apart."""

    def separate_stderr(self) -> None:
        """From now on, mark the lines that jobs submitted by this object write to stderr.

        The order of a replica's lines is then kept within stdout and within stderr, but not between the two.
        """


@runtime_checkable
class EstimatesCost(Protocol):
    """A backend that knows the list prices of its machines."""

    def usd_per_hour(self, submission: Submission) -> float | None:
        """The price of the job's machines per hour, in USD; ``None`` if the price of one of them is unknown."""


@runtime_checkable
class ShowsRequest(Protocol):
    """A backend that can show the request for a job without sending it."""

    def show(self, submission: Submission) -> str:
        """The request as YAML, with comments for values that differ from the job file.

        :raises BackendError: :meth:`TrainingBackend.submit` would reject the submission.
        """


@runtime_checkable
class LearnsRegions(Protocol):
    """A backend that runs a job in the region of its job file, and can search only in regions that it knows."""

    def learn_region(self, spec: TrainingSpec, *regions: str) -> None:
        """From now on, this object's :meth:`TrainingBackend.find` also searches the region of ``spec``.

        :param regions: further regions, in which attempts of the job were created.
        """


@runtime_checkable
class FallsBack(Protocol):
    """A backend that can request other machines, another region or another strategy when machines are missing.

    A fallback is recorded in ``job.json`` before a job is created with it.
    """

    def next_fallback(self, current: Mapping[str, Any] | None, status: JobStatus | None) -> Mapping[str, Any] | None:
        """The values by which the next request differs from the first one.

        ``None`` if there is nothing left to try, or if the attempt did not end for lack of machines.

        :param current: the value that this method returned for the attempt that failed; ``None`` if that was the first
            request.
        :param status: the status of the attempt that ended; ``None`` if the service refused to create it.
        """


@runtime_checkable
class LeavesWaitLimit(Protocol):
    """A backend that does not limit how long a job waits for machines: the task or command that waits for it does."""

    def max_wait_seconds(self, spec: TrainingSpec, fallback: Mapping[str, Any] | None = None) -> float | None:
        """The seconds that a job may be QUEUED and PREPARING before it is cancelled; infinity for no limit.

        ``None`` if neither ``spec`` nor the backend's settings have a limit.

        :param fallback: the fallback of the attempt (:class:`FallsBack`).
        """


@runtime_checkable
class ListsJobs(Protocol):
    """A backend that can list its jobs, for the command line."""

    def jobs(self, named: str | None = None) -> list[JobHandle]:
        """This project's jobs, in order of submission: all of them, or those whose job id or name is ``named``."""


@runtime_checkable
class ChoosesPython(Protocol):
    """A backend on a machine that may have several Python versions."""

    def use_python(self, version: str) -> None:
        """Create trainers' environments with ``version`` (``3.12``) from now on.

        :raises BackendError: that version is not installed.
        """


@runtime_checkable
class KnowsPython(Protocol):
    """A backend that knows before the submission which Python version trainers run on."""

    def python_of(self, spec: TrainingSpec) -> str | None:
        """The Python version, such as ``3.11`` or ``3.11.7``; ``None`` if it is not known."""


Factory = Callable[..., TrainingBackend]

# Import paths, so that a DAG file and a worker import only the backend that they use.
_BACKENDS: dict[str, str | Factory] = {
    "local": "mlengine.backends.local.backend:LocalBackend",
    "ray": "mlengine.backends.ray.backend:RayBackend",
    "vertex": "mlengine.backends.vertex.backend:VertexBackend",
}


def register(name: str, factory: str | Factory) -> None:
    """Register a backend, replacing any backend of the same name.

    :param factory: a class or function that is called with the backend's settings as keyword arguments, or its import
        path ``module:name``. With a path, the module is imported when the backend is first used.
    """
    _BACKENDS[name] = factory


def names() -> list[str]:
    """The names of all registered backends."""
    return sorted(_BACKENDS)


def find_attempts(
    backend: TrainingBackend, key: str, spec: TrainingSpec, regions: Sequence[str] = ()
) -> list[JobHandle]:
    """All attempts labelled with ``key``, including those in the region that ``spec`` names.

    :param regions: further regions in which attempts were created: :attr:`~mlengine.core.job.JobRecord.regions`.
    :raises BackendUnavailableError: the backend cannot be reached.
    """
    if isinstance(backend, LearnsRegions):
        backend.learn_region(spec, *regions)
    return backend.find(key)


def get_backend(name: str, **settings: Any) -> TrainingBackend:
    """The backend registered as ``name``, with default credentials.

    :raises BackendError: there is no such backend; the message lists the registered ones.
    """
    return _factory(name)(**settings)


def polling_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The subset of a backend's settings on which the states and logs of its jobs depend; by default, all.

    Jobs that differ only in other settings, such as machine types, are polled together.
    """
    relevant = getattr(_factory(name), "polling_settings", settings)
    return {key: value for key, value in settings.items() if key in relevant}


def polling_location(name: str, handle: JobHandle) -> str:
    """The location at which a job is polled, as its backend's ``polling_location`` returns it.

    It is ``""`` if all of the backend's jobs are at one location. Jobs at different locations are polled independently,
    so an outage of one location does not delay news of the jobs at the others.
    """
    locate: Callable[[JobHandle], str] | None = getattr(_factory(name), "polling_location", None)
    return "" if locate is None else locate(handle)


def connected_backend(
    name: str,
    gcp_conn_id: str | None,
    *,
    impersonation_chain: str | Sequence[str] | None = None,
    project: str | None = None,
    region: str | None = None,
    **settings: Any,
) -> TrainingBackend:
    """The backend registered as ``name``, with the credentials of an Airflow connection.

    A backend without a ``from_connection`` method gets only ``settings``: it has neither project nor region.
    """
    factory = _factory(name)
    connect: Factory | None = getattr(factory, "from_connection", None)
    if connect is None:
        return factory(**settings)
    where = {"impersonation_chain": impersonation_chain, "project": project, "region": region}
    return connect(gcp_conn_id, **{**{name: value for name, value in where.items() if value}, **settings})


def _factory(name: str) -> Factory:
    if name not in _BACKENDS:
        raise BackendError(f"no backend named {name!r}", hint=f"use one of: {', '.join(names())}")
    registered = _BACKENDS[name]
    if not isinstance(registered, str):
        return registered
    module, _, attribute = registered.partition(":")
    factory: Factory = getattr(import_module(module), attribute)
    return factory
