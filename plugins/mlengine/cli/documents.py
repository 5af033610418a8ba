"""The JSON documents of ``--json``. Keys are stable: new ones may be added, none is renamed or removed.

Times are RFC 3339 in UTC, or null. The reference is generated from this module.
"""

from __future__ import annotations

from typing import Any, TypedDict


class JobDocument(TypedDict):
    """``jobs list``: an array of these. ``dag_id`` and ``run_id`` are empty for a job without a DAG, and ``verdict`` is
    empty before validation.
    """

    model: str
    job_id: str
    job_dir: str
    backend: str
    attempt: int
    state: str
    detail: str
    created: str | None
    started: str | None
    ended: str | None
    dag_id: str
    run_id: str
    cluster: str
    dataset: str
    step: int | None
    steps: int | None
    verdict: str
    metric: str
    metric_value: float | None
    cost_usd: float | None


class BackendJobDocument(TypedDict):
    """``jobs status``: one of these; ``jobs list --backend``: an array of these. ``name`` is the backend's own name of
    the attempt; ``links`` has the URL of a web page into each running replica that has one; ``failure`` is null or has
    ``cause``, ``message``, ``replica``, ``exit_code`` and ``log_tail``.
    """

    model: str
    job_id: str
    job_dir: str
    backend: str
    attempt: int
    state: str
    detail: str
    created: str | None
    started: str | None
    ended: str | None
    name: str
    console_url: str
    links: dict[str, str]
    failure: dict[str, Any] | None


class OrphanDocument(TypedDict):
    """``jobs reap``: an array of these, the orphan jobs; ``cancelled`` is true if ``--yes`` requested
    the cancellation.
    """

    job_id: str
    job_dir: str
    backend: str
    attempt: int
    state: str
    reason: str
    cancelled: bool


class PrunedDocument(TypedDict):
    """``jobs prune``: an array of these, the job dirs that ``--yes`` deletes; ``deleted`` says whether it did."""

    job_dir: str
    last_written: str | None
    objects: int
    bytes: int
    deleted: bool


class DatasetDocument(TypedDict):
    """``datasets list``: an array of these."""

    name: str
    versions: list[str]


class VersionDocument(TypedDict):
    """``datasets show`` and ``datasets add``: one of these; ``datasets list NAME``: an array of these, oldest first.
    ``manifest`` is the content of ``manifest.json``; ``train_rows`` or ``heldout_rows`` is null if it is not known.
    """

    name: str
    version: str
    uri: str
    digest: str
    created: str
    train_rows: int | None
    heldout_rows: int | None
    manifest: dict[str, Any]


class FetchDocument(TypedDict):
    """``datasets fetch``: one of these."""

    name: str
    version: str
    directory: str


class VerificationDocument(TypedDict):
    """``datasets verify``: an array of these. ``ok`` is true if there are no problems."""

    name: str
    version: str
    ok: bool
    problems: list[str]


class DifferenceDocument(TypedDict):
    """``datasets diff``: one of these. ``fields`` has ``field``, ``old`` and ``new`` of each difference; ``rows`` has
    ``kept``, ``added``, ``removed`` and ``relabelled`` with ``--rows``, and ``changed`` if rows have a key. Without
    ``--rows`` it is null.
    """

    name: str
    old: str
    new: str
    identical: bool
    fields: list[dict[str, Any]]
    rows: dict[str, int] | None


class ChampionDocument(TypedDict):
    """``models show``: one of these; ``models list``: an array of these; ``models history``: an array of
    these, newest first. ``action`` is ``published``, ``forced`` or ``rolled_back``.
    """

    model: str
    serial: int
    action: str
    job_id: str
    job_dir: str
    model_uri: str
    verdict: str
    metric: str
    metric_value: float | None
    dataset: dict[str, Any]
    package_uris: list[str]
    report_uri: str
    by: str
    reason: str
    time: str


class ValidationDocument(TypedDict):
    """``models validate``: one of these. ``checks`` has ``name``, ``passed``, ``skipped``, ``value``,
    ``threshold`` and ``detail``.
    """

    model: str
    job_id: str
    job_dir: str
    verdict: str
    accepted: bool
    reasons: list[str]
    checks: list[dict[str, Any]]
    report_uri: str


class PublicationDocument(TypedDict):
    """``models publish``: one of these. ``outcome`` is ``published``, ``already_champion``, or why it was not
    published, such as ``rejected``.
    """

    model: str
    job_id: str
    outcome: str
    published: bool
    detail: str


class PredictionDocument(TypedDict):
    """``models predict``: one of these.

    ``rows`` has ``row``, ``key``, ``target``, ``prediction``, ``probability`` and ``columns``. ``correct`` is ``null``
    for predictions that are not classes.
    """

    model: str
    model_uri: str
    correct: int | None
    rows: list[dict[str, Any]]


class MachineDocument(TypedDict):
    """``machines`` of ``vertex machines``. ``accelerators`` has the valid counts by name; with
    ``accelerator_required``, the machine type comes with one of them. ``topologies`` are those of the TPU ``tpu``.
    ``usd_per_hour`` is null if no price is known.
    """

    name: str
    accelerators: dict[str, list[int]]
    accelerator_required: bool
    tpu: str | None
    topologies: list[str]
    usd_per_hour: float | None


class AcceleratorDocument(TypedDict):
    """``accelerators`` of ``vertex machines``. ``ended`` is when Google withdrew it, and ``instead`` what to use.
    ``cuda`` is the CUDA version of the driver of its hosts, where that is known to be old.
    """

    name: str
    ended: str | None
    instead: str | None
    cuda: str | None
    usd_per_hour: float | None


class VertexMachinesDocument(TypedDict):
    """``vertex machines``: one of these. ``read`` is the day on which ``source`` was read, and ``copy`` the age of the
    copy that was read.
    """

    source: str
    read: str
    copy: str
    machines: list[MachineDocument]
    accelerators: list[AcceleratorDocument]
    not_offered: list[str]
    boot_disk: dict[str, Any]
    flex_start: list[str]
    needs_reservation: list[str]
    prices: dict[str, str]


class PoolDocument(TypedDict):
    """``pools`` of ``vertex machines --ml-engine``. ``accelerators`` is their number for each replica."""

    role: str
    replicas: int
    machine_type: str
    accelerator: str | None
    accelerators: int


class OldMachineDocument(TypedDict):
    """``vertex machines --ml-engine``: an array of these, one for each machine type and scale tier of ML Engine."""

    name: str
    pools: list[PoolDocument]
