"""The interface of a training backend, and the registry of backends.

Six verbs, all synchronous; the trigger calls them off the event loop through one shared poller. Extras are capability
mixins. No code outside this file branches on a backend's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobStatus
from mlengine.core.spec import TrainingSpec


@dataclass(frozen=True)
class Submission:
    """What is handed to a backend.

    :param key: the job key's digest; the backend labels the attempt with it and :meth:`TrainingBackend.find` finds
        by it.
    :param labels: for people and for bills; the backend adds key and attempt.
    """

    key: str
    job_id: str
    attempt: int
    job_dir: str
    spec: TrainingSpec
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LogLine:
    """One line of one replica. ``replica`` is ``role-index``, or ``launcher`` for the service's own log."""

    replica: str
    text: str
    time: float | None = None


@dataclass(frozen=True)
class LogPage:
    """New lines since a cursor. ``cursor`` is opaque, JSON, and goes into the next call."""

    lines: tuple[LogLine, ...]
    cursor: Mapping[str, Any]
    more: bool = False


class TrainingBackend(Protocol):
    """A place that trains. Every verb may be called again after a crash at any line."""

    name: str

    def submit(self, submission: Submission) -> JobHandle:
        """Start the attempt, once: a second call with the same key and attempt returns the first one's handle.

        :raises BackendError: refused, final; :raises BackendUnavailableError: try again later.
        """

    def find(self, key: str) -> list[JobHandle]:
        """All attempts labelled with ``key``, the eldest first; what a crash left behind is among them."""

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        """The state of many jobs in few calls, in the order asked.

        A job that the backend has forgotten is FAILED with cause ``lost``; a backend that cannot be reached raises
        BackendUnavailableError and decides nothing.
        """

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        """At most ``limit`` lines of all replicas, after ``cursor`` (``{}`` is the beginning)."""

    def cancel(self, handle: JobHandle) -> None:
        """End the job. Safe to repeat; a job that has ended, or is unknown, is not an error."""

    def console_url(self, handle: JobHandle) -> str | None:
        """URL of a web page that shows the job; ``None`` if there is none."""


@runtime_checkable
class CapsCluster(Protocol):
    """A backend whose machine is small: it may train on a smaller cluster than asked, and says so."""

    def cap(self, spec: TrainingSpec) -> tuple[TrainingSpec, list[str]]:
        """The spec that will run, and one message for each value that was capped."""


@runtime_checkable
class BatchesLogs(Protocol):
    """A backend that reads the logs of many jobs in one call.

    :param logs_at_once: how many jobs one call takes; for more, callers take turns.
    """

    logs_at_once: int

    def logs_many(self, wanted: Sequence[tuple[JobHandle, Mapping[str, Any]]], limit: int = 1000) -> list[LogPage]:
        """One page for each ``(handle, cursor)``, in the order asked; ``limit`` lines a job."""


@runtime_checkable
class BoundToHost(Protocol):
    """A backend whose jobs run on one host, and can be seen there only.

    Of a job of another host it says UNKNOWN, which decides nothing, and it refuses to cancel it.
    """

    def host(self) -> str:
        """This host, by the name that its jobs carry."""

    def elsewhere(self, handle: JobHandle) -> str | None:
        """The host to ask about the job, if it is another."""


@runtime_checkable
class EndsReplicas(Protocol):
    """A backend that can take a single replica away, as a preempted host does: for tests of what happens then."""

    def end_replica(self, handle: JobHandle, replica: str) -> bool:
        """Tell ``replica`` (``role-index``) to stop, by SIGTERM. ``False`` if it does not run, or not yet."""


@runtime_checkable
class EstimatesCost(Protocol):
    """A backend that knows list prices."""

    def usd_per_hour(self, submission: Submission) -> float | None:
        """What the job's machines cost an hour; ``None`` if one of them has no known price."""


@runtime_checkable
class ShowsRequest(Protocol):
    """A backend that can say what it would send, before it sends anything."""

    def show(self, submission: Submission) -> str:
        """The request as YAML, with what is not as it was asked for as comments.

        :raises BackendError: :meth:`TrainingBackend.submit` would refuse it.
        """


@runtime_checkable
class LearnsPlaces(Protocol):
    """A backend whose jobs are in the region that the job file names: it must learn that before it can find any."""

    def learn_place(self, spec: TrainingSpec) -> None:
        """From now on, in this process, :meth:`TrainingBackend.find` looks where jobs of ``spec`` are, too."""


@runtime_checkable
class ListsJobs(Protocol):
    """A backend that can say which jobs it knows: for people at a terminal."""

    def jobs(self, named: str | None = None) -> list[JobHandle]:
        """This project's jobs, in order of submission; all, or those whose job id or name is ``named``."""


@runtime_checkable
class ChoosesPython(Protocol):
    """A backend on whose machine several Pythons may be."""

    def use_python(self, version: str) -> None:
        """Make trainers' environments with ``version`` (``3.12``) from now on.

        :raises BackendError: it is not there.
        """


Factory = Callable[..., TrainingBackend]

# Import paths, so that a DAG file and a worker pay only for the backend they use.
_BACKENDS: dict[str, str | Factory] = {
    "local": "mlengine.backends.local.backend:LocalBackend",
    "vertex": "mlengine.backends.vertex.backend:VertexBackend",
}


def register(name: str, factory: str | Factory) -> None:
    """Add a backend, or replace the one of that name.

    :param factory: called with the backend's settings as keyword arguments; a callable, or its import path
        ``module:Class``, which is imported when the backend is first used.
    """
    _BACKENDS[name] = factory


def names() -> list[str]:
    return sorted(_BACKENDS)


def get_backend(name: str, **settings: Any) -> TrainingBackend:
    """The backend registered as ``name``, with credentials it finds by itself.

    :raises BackendError: if there is none, with the names there are.
    """
    return _factory(name)(**settings)


def connected_backend(
    name: str,
    gcp_conn_id: str | None,
    *,
    impersonation_chain: str | Sequence[str] | None = None,
    project: str | None = None,
    region: str | None = None,
    **settings: Any,
) -> TrainingBackend:
    """Likewise, with an Airflow connection's credentials where the backend takes them (``from_connection``).

    A backend without connections needs no project and no region either, and gets its settings only.
    """
    factory = _factory(name)
    connect: Callable[..., TrainingBackend] | None = getattr(factory, "from_connection", None)
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
