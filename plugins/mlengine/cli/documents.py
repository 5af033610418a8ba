"""The JSON documents of ``--json``. Keys are stable: new keys may be added, but none is renamed or removed.

Times are RFC 3339 in UTC, or null. The reference is generated from this module.
"""

from __future__ import annotations

from typing import Any, TypedDict


class JobDocument(TypedDict):
    """One job in the array that ``jobs list`` prints.

    ``dag_id`` and ``run_id`` are empty for a job without a DAG, and ``verdict`` is empty before validation.
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
    """One attempt of a job. ``jobs status`` prints one; ``jobs list --backend`` prints an array.

    ``name`` is the backend's own name of the attempt; ``links`` has the URL of the web page of each running replica
    that has one; ``failure`` is null or has ``cause``, ``message``, ``replica``, ``exit_code`` and ``log_tail``.
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
    """One orphan job in the array that ``jobs reap`` prints.

    ``cancelled`` is true if ``--yes`` requested the cancellation.
    """

    job_id: str
    job_dir: str
    backend: str
    attempt: int
    state: str
    reason: str
    cancelled: bool


class PrunedDocument(TypedDict):
    """One job dir in the array that ``jobs prune`` prints, which are those that ``--yes`` deletes.

    ``deleted`` says whether the dir was deleted.
    """

    job_dir: str
    last_written: str | None
    objects: int
    bytes: int
    deleted: bool


class DatasetDocument(TypedDict):
    """One dataset in the array that ``datasets list`` prints."""

    name: str
    versions: list[str]


class VersionDocument(TypedDict):
    """One version. ``datasets show`` and ``datasets add`` print one; ``datasets list NAME`` prints an array, oldest
    first.

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
    """The document that ``datasets fetch`` prints."""

    name: str
    version: str
    directory: str


class VerificationDocument(TypedDict):
    """One version in the array that ``datasets verify`` prints. ``ok`` is true if there are no problems."""

    name: str
    version: str
    ok: bool
    problems: list[str]


class DifferenceDocument(TypedDict):
    """The document that ``datasets diff`` prints.

    ``fields`` has ``field``, ``old`` and ``new`` of each difference; ``rows`` has ``kept``, ``added``, ``removed`` and
    ``relabelled`` with ``--rows``, and ``changed`` if rows have a key. Without ``--rows`` it is null.
    """

    name: str
    old: str
    new: str
    identical: bool
    fields: list[dict[str, Any]]
    rows: dict[str, int] | None


class ChampionDocument(TypedDict):
    """One champion. ``models show`` prints one; ``models list`` and ``models history`` print an array.

    The history is sorted newest first. ``action`` is ``published``, ``forced`` or ``rolled_back``.
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
    """The document that ``models validate`` prints.

    ``checks`` has ``name``, ``passed``, ``skipped``, ``value``, ``threshold`` and ``detail``.
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
    """The document that ``models publish`` prints.

    ``outcome`` is ``published``, ``already_champion``, or the reason why the model was not published, such as
    ``rejected``.
    """

    model: str
    job_id: str
    outcome: str
    published: bool
    detail: str


class PredictionDocument(TypedDict):
    """The document that ``models predict`` prints.

    ``rows`` has ``row``, ``key``, ``target``, ``prediction``, ``probability`` and ``columns``. ``correct`` is ``null``
    for predictions that are not classes.
    """

    model: str
    model_uri: str
    correct: int | None
    rows: list[dict[str, Any]]


class MachineDocument(TypedDict):
    """One of the ``machines`` in the document that ``vertex machines`` prints.

    ``accelerators`` has the valid counts by name; with ``accelerator_required``, the machine type comes with one of
    them. ``topologies`` are those of the TPU ``tpu``. ``usd_per_hour`` is null if no price is known.
    """

    name: str
    accelerators: dict[str, list[int]]
    accelerator_required: bool
    tpu: str | None
    topologies: list[str]
    usd_per_hour: float | None


class AcceleratorDocument(TypedDict):
    """One of the ``accelerators`` in the document that ``vertex machines`` prints.

    ``ended`` is when Google withdrew the accelerator, and ``instead`` is its replacement. ``cuda`` is the CUDA version
    of the driver on its hosts, if the driver is known to be old.
    """

    name: str
    ended: str | None
    instead: str | None
    cuda: str | None
    usd_per_hour: float | None


class VertexMachinesDocument(TypedDict):
    """The document that ``vertex machines`` prints.

    ``read`` is the day on which ``source`` was read, and ``copy`` is the age of the copy that was read.
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
    """One of the ``pools`` in a document of ``vertex machines --ml-engine``.

    ``accelerators`` is their number for each replica.
    """

    role: str
    replicas: int
    machine_type: str
    accelerator: str | None
    accelerators: int


class OldMachineDocument(TypedDict):
    """One machine type or scale tier of ML Engine, in the array that ``vertex machines --ml-engine`` prints."""

    name: str
    pools: list[PoolDocument]
