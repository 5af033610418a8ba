"""The data that each task of a retraining read and wrote, in the form of OpenLineage.

Each function gets the data that the task left in memory, and is called after the task has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from mlengine.core import layout
from mlengine.core.job import Decision
from mlengine.core.layout import JobDir
from mlengine.operators.lineage import datasets

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import RunFacet

    from mlengine.core.dataset import Manifest
    from mlengine.core.job import JobHandle, JobRecord
    from mlengine.core.xcoms import PackageXCom
    from mlengine.promotion.outcome import Outcome
    from mlengine.promotion.registries.follow import Registration
    from mlengine.validation.report import Report

    Lineage: TypeAlias = OperatorLineage[Any, Any]


def no_lineage() -> Lineage:
    """The lineage of a task that ended before it read or wrote anything, or that has nothing to report."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage()


def packaged(package: PackageXCom) -> Lineage:
    """The lineage of ``package``, which writes the archives. Their version is the digest of their source."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    facets = datasets.package_facets(package["digest"])
    return OperatorLineage(outputs=[datasets.written(uri, facets) for uri in package["package_uris"]])


def resolved(uri: str, manifest: Manifest) -> Lineage:
    """The lineage of ``dataset``, which reads the version, with schema, statistics and checks from its manifest."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    version = datasets.read(
        uri,
        datasets.manifest_facets(manifest),
        dataQualityMetrics=datasets.training_statistics(manifest),
        dataQualityAssertions=datasets.registration_checks(manifest),
    )
    return OperatorLineage(inputs=[version])


def submitted(handle: JobHandle, decision: Decision, inputs: Mapping[str, Any], package_uris: Iterable[str]) -> Lineage:
    """The lineage of ``submit``, which reads dataset version and packages. The wait reports the model.

    :param inputs: the inputs of the job, as in its record.
    :param package_uris: the packages of the job, including those that the job file names.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(inputs=_job_inputs(inputs, package_uris), run_facets=_job_facets(handle, decision.value))


def trained(handle: JobHandle, record: JobRecord) -> Lineage:
    """The lineage of ``wait``: the job has read dataset version and packages, and has written a model."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    model = datasets.written(JobDir(handle.job_dir).model, datasets.model_facets(handle.job_id))
    return OperatorLineage(
        inputs=_job_inputs(record.inputs, record.spec.get("package_uris") or ()),
        outputs=[model],
        run_facets=_job_facets(handle, decision=None),
    )


def reused(handle: JobHandle) -> Lineage:
    """The lineage of ``wait`` for a job that is reused: this run has trained no model."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    model = datasets.read(JobDir(handle.job_dir).model, datasets.model_facets(handle.job_id))
    return OperatorLineage(inputs=[model], run_facets=_job_facets(handle, Decision.REUSED.value))


def validated(report: Report) -> Lineage:
    """The lineage of ``validate``, which reads model, held-out rows and champion, and writes the report.

    Verdict and metrics are a facet of the run, of the model and of the report. The checks are assertions about the
    model.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import DatasetFacet, RunFacet, input_statistics_input_dataset

    properties = _validation(report)
    verdict = {"mlengine_validation": datasets.custom(DatasetFacet, **properties)}
    inputs = [
        datasets.read(
            report.model_uri,
            {**datasets.model_facets(report.job_id), **verdict},
            dataQualityAssertions=datasets.validation_checks(report.verdict.checks),
        )
    ]
    if uri := report.dataset.get("uri"):
        rows = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=report.dataset.get("rows"))
        inputs.append(datasets.read(uri, datasets.version_facets(report.dataset), inputStatistics=rows))
    if uri := report.champion.get("model_uri"):
        inputs.append(datasets.read(uri, datasets.model_facets(str(report.champion.get("job_id") or ""))))
    return OperatorLineage(
        inputs=inputs,
        outputs=[datasets.written(JobDir(report.job_dir).report, verdict)],
        run_facets={"mlengine_validation": datasets.custom(RunFacet, **properties)},
    )


def _validation(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict.decision.value,
        "reasons": list(report.verdict.reasons),
        "validationLevel": report.checks,
        "task": report.task or None,
        "mainMetric": report.main_metric or None,
        "metrics": dict(report.metrics),
        "thresholds": report.thresholds.to_json(),
        "comparison": dict(report.comparison),
        "championJobId": report.champion.get("job_id"),
        "modelDigest": report.digest or None,
        "modelBytes": report.size,
        "validatedAt": report.created,
        "reportUri": JobDir(report.job_dir).report,
    }


def published(bucket: str, report: Report, outcome: Outcome) -> Lineage:
    """The lineage of ``publish``, which reads model and report, and writes the champion if it publishes the model."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import RunFacet

    from mlengine.promotion.outcome import PublishDecision

    champion = outcome.champion
    outputs = []
    if champion is not None and outcome.published:
        facets = datasets.champion_facets(champion)
        if outcome.decision is PublishDecision.PUBLISHED:
            facets["lifecycleStateChange"] = datasets.champion_change(champion)
        outputs.append(datasets.written(layout.champion(bucket, report.model), facets))
    decision = datasets.custom(
        RunFacet,
        published=outcome.published,
        decision=outcome.decision.value,
        reason=outcome.reason,
        verdict=report.verdict.decision.value,
        championSerial=champion.serial if champion else None,
        championJobId=champion.job_id if champion else None,
    )
    return OperatorLineage(
        inputs=[
            datasets.read(report.model_uri, datasets.model_facets(report.job_id)),
            datasets.read(JobDir(report.job_dir).report, {}),
        ],
        outputs=outputs,
        run_facets={"mlengine_publication": decision},
    )


def registered(bucket: str, registration: Registration) -> Lineage:
    """The lineage of ``register``, which reads the champion. The versions in the registries are a facet of the run."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import RunFacet

    champion = registration.champion
    uri = layout.champion(bucket, champion.model)
    versions = [dict(one) for one in registration.to_json()["registries"]]
    return OperatorLineage(
        inputs=[datasets.read(uri, datasets.champion_facets(champion))],
        run_facets={"mlengine_registration": datasets.custom(RunFacet, versions=versions)},
    )


def _job_inputs(inputs: Mapping[str, Any], package_uris: Iterable[str]) -> list[InputDataset]:
    """The dataset version and the packages of a job, if it has them."""
    found = []
    dataset, package = inputs.get("dataset") or {}, inputs.get("package") or {}
    if uri := dataset.get("uri"):
        found.append(datasets.read(uri, datasets.version_facets(dataset)))
    facets = datasets.package_facets(str(package.get("digest") or ""))
    found.extend(datasets.read(uri, facets) for uri in package_uris)
    return found


def _job_facets(handle: JobHandle, decision: str | None) -> dict[str, RunFacet]:
    """The facets of a run about its job. The job's id in the backend is also a facet of external work."""
    from openlineage.client.facet_v2 import RunFacet, external_query_run

    job = {"jobId": handle.job_id, "jobDir": handle.job_dir, "backend": handle.backend, "attempt": handle.attempt}
    if decision is not None:
        job["decision"] = decision
    return {
        "mlengine_job": datasets.custom(RunFacet, **job),
        "externalQuery": external_query_run.ExternalQueryRunFacet(externalQueryId=handle.name, source=handle.backend),
    }
