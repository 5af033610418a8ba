"""Stage: model registries elsewhere, which follow the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context, XComArg

from mlengine.connections import resolve_connection
from mlengine.core.xcoms import JobXCom, PublicationXCom, RegistrationXCom, ValidationXCom, finite
from mlengine.operators._base import MlengineOperator
from mlengine.promotion.registries import connect_all
from mlengine.promotion.registries.follow import follow
from mlengine.validation.subject import job_dir_of


class RegisterModelOperator(MlengineOperator):
    """Tell registries elsewhere who is champion: a version of the model, with the alias ``champion`` on it.

    After the publication, and never part of it: the pointer in the bucket is the truth, and nothing here changes it. A
    registry that refuses or does not answer fails this task alone, once all others were told; a retry or a clear finds
    what is there already. The current champion is registered, whichever run published it
    (:mod:`mlengine.promotion.registries.follow`).

    :param job: what the publication returned, or a job dir's URI: it says which model.
    :param registries: names, or mappings with ``kind`` and the registry's settings: ``["mlflow"]``,
        ``[{"kind": "vertex", "region": "europe-west4", "image_uri": …}]``.
    :param bucket: where the champion's pointer lies; by default where the job dir does.

    :returns: :class:`~mlengine.core.xcoms.RegistrationXCom`: the champion, and its version in each registry.
    :raises RegistryError: those that refused, with their own words; :raises PublishError: nobody is champion.
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
        registries = connect_all(self.registries, resolve_connection(self.gcp_conn_id), self.impersonation_chain)
        job = self.returned_or_uri("job", "job_dir")
        job_dir = job_dir_of(job)
        parent, model, _ = job_dir.uri.rsplit("/", 2)
        if isinstance(job, Mapping):
            model = str(job.get("model") or model)
        followed = follow(self.access.storage(), self.bucket or parent, model, registries)
        if followed.champion.job_dir != job_dir.uri:
            self.log.info("%s is champion by now, in place of %s", followed.champion.job_id, job_dir.job_id)
        return finite(followed.to_json())
