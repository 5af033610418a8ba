"""The return values of the operators: small mappings of ids and URIs, which Airflow stores in XCom.

A task that needs more reads it from the bucket or from the backend. Every value is JSON. Numbers are finite: Airflow
3.3's API client cannot encode NaN or infinity, and the task would fail after its work is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, TypeVar, cast

from mlengine.core.json_values import json_value

Result = TypeVar("Result", bound=Mapping[str, Any])


def finite(result: Result) -> Result:
    """``result`` with ``None`` instead of each number that is not finite, also in nested mappings and lists."""
    return cast(Result, json_value(result))


class PackageXCom(TypedDict):
    """Result of the task that packages the trainer.

    ``package_uris`` has the trainer's own archive first. ``digest`` is a digest of the content: equal sources have
    equal digests. ``reused`` means that the archives were already in the bucket. ``scorer`` is the trainer's own
    scorer, if it has one.
    """

    package_uris: list[str]
    digest: str
    name: str
    version: str
    reused: bool
    scorer: NotRequired[str]


class DatasetXCom(TypedDict):
    """Result of the task that resolves the dataset version. ``rows`` counts the training split."""

    dataset: str
    version: str
    uri: str
    digest: str
    rows: int | None


class JobDirXCom(TypedDict):
    """Result of the task that prepares the job dir. ``key`` is the digest that the job id was derived from."""

    model: str
    job_id: str
    job_dir: str
    key: NotRequired[str]


class JobXCom(TypedDict):
    """Result of the task that submits the job, and of the one that waits for it.

    ``backend`` is the backend's registered name, and ``name`` the job's name there. ``decision`` is the result of the
    submission (:class:`~mlengine.core.job.Decision`); the wait returns it only for a reused job. Only the wait returns
    ``state`` (:class:`~mlengine.core.job.JobState`).
    """

    backend: str
    name: str
    job_id: str
    attempt: int
    job_dir: str
    decision: NotRequired[str]
    state: NotRequired[str]


class ValidationXCom(TypedDict):
    """Result of the task that validates the model.

    ``verdict`` is a :class:`~mlengine.core.verdict.Decision`. ``report`` is the URI of the report as JSON, ``page`` its
    URI as HTML, and ``champion`` the id of the job that the model was compared with.
    """

    verdict: str
    metric: str
    metric_value: float | None
    reasons: list[str]
    report: str
    page: str
    model: str
    model_uri: str
    job_id: str
    job_dir: str
    champion: str | None


class PublicationXCom(TypedDict):
    """Result of the task that publishes the model.

    ``champion`` is the URI of the current champion, ``serial`` its number, and ``previous`` the number before that.
    """

    published: bool
    decision: str
    reason: str
    model: str
    job_id: str
    job_dir: str
    metric: str
    metric_value: float | None
    dataset_version: str
    champion: str | None
    serial: int | None
    previous: int | None


class RegisteredXCom(TypedDict):
    """One registry's entry. ``created`` says whether this task created the version."""

    registry: str
    name: str
    version: str
    created: bool


class RegistrationXCom(TypedDict):
    """Result of the task that registers the champion in model registries."""

    model: str
    serial: int
    job_id: str
    registries: list[RegisteredXCom]
