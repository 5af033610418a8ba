"""Operator that registers the champion in external model registries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from airflow.sdk import Context, XComArg

from mlengine.connections import resolve_connection
from mlengine.core.arguments import items
from mlengine.core.xcoms import JobXCom, PublicationXCom, RegistrationXCom, ValidationXCom, finite
from mlengine.operators._base import MlengineOperator
from mlengine.operators.lineage import tasks as lineage
from mlengine.promotion.registries import connect_all
from mlengine.promotion.registries.follow import follow
from mlengine.validation.job import job_dir_of


class RegisterModelOperator(MlengineOperator):
    """Register the champion in external model registries: create a version, and move the alias ``champion`` to it.

    The task runs after the publication. The pointer in the bucket is authoritative and is not changed here. If a
    registry fails, the others are still called, and then this task fails; a retry or a clear does not register a
    version twice. The current champion is registered, whichever run published it
    (:mod:`mlengine.promotion.registries.follow`).

    :param job: the result of the publication, or the URI of a job directory. It selects the model.
    :param registries: names, or mappings with ``kind`` and the registry's settings: ``["mlflow"]``,
        ``[{"kind": "vertex", "region": "europe-west4", "image_uri": …}]``.
    :param bucket: the bucket with the champion's pointer; by default that of the job directory.

    :returns: :class:`~mlengine.core.xcoms.RegistrationXCom`: the champion, and its version in each registry.
    :raises RegistryError: a registry failed.
    :raises PublishError: the model has no champion.
    """

    template_fields: Sequence[str] = (*MlengineOperator.template_fields, "job", "registries", "bucket")
    template_fields_renderers = {"registries": "json"}  # noqa: RUF012
    ui_color = "#d9ead3"

    def __init__(
        self,
        *,
        job: PublicationXCom | ValidationXCom | JobXCom | XComArg | str,
        registries: Sequence[str | Mapping[str, Any]],
        bucket: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.registries = registries
        self.bucket = bucket

    def execute(self, context: Context) -> RegistrationXCom:  # noqa: ARG002
        wanted = items("registries", self.registries)
        registries = connect_all(wanted, resolve_connection(self.gcp_conn_id), self.impersonation_chain)
        job = self.returned_or_uri("job", "job_dir")
        job_dir = job_dir_of(job)
        parent, model, _ = job_dir.uri.rsplit("/", 2)
        if isinstance(job, Mapping):
            model = str(job.get("model") or model)
        bucket = self.bucket or parent
        registration = follow(self.access.storage(), bucket, model, registries)
        self._lineage = partial(lineage.registered, bucket, registration)
        if registration.champion.job_dir != job_dir.uri:
            self.log.info(
                "registered %s, which has replaced %s as champion", registration.champion.job_id, job_dir.job_id
            )
        return finite(registration.to_json())
