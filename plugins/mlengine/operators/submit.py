"""Operator that submits a job file to a backend, at most once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowFailException

from mlengine import settings
from mlengine.backends import CapsCluster, TrainingBackend, find_attempts
from mlengine.core.arguments import flag, mapping
from mlengine.core.errors import BackendUnavailableError, JobFailedError, JobFileError, StorageError
from mlengine.core.inputs import inputs_digest
from mlengine.core.job import JobKey, make_label
from mlengine.core.job_file import parse
from mlengine.core.layout import JobDir
from mlengine.core.run_order import RunOrder
from mlengine.core.software import software
from mlengine.core.spec import Role, TrainingSpec, counted
from mlengine.core.xcoms import DatasetXCom, JobDirXCom, JobXCom, PackageXCom
from mlengine.jobs.job_dir import carries_key, discard
from mlengine.jobs.submission import Intent, Submitted, Submitter
from mlengine.links.job import SUBMIT_LINKS
from mlengine.operators._base import BackendOperator
from mlengine.operators._job_tasks import RefusesFailFast, count, job_ends_with_task
from mlengine.operators.lineage import tasks as lineage
from mlengine.operators.run_identity import earlier_keys, job_key, run_identity, run_order


class SubmitTrainingJobOperator(BackendOperator, RefusesFailFast):
    """Submit a training job. A retry of this task re-attaches to the job; a cleared task trains again.

    If a job with the same inputs (package, dataset, module, arguments, cluster) was trained and accepted before, that
    job is reused, unless ``force_retrain`` is set, or this run trained the job itself and the task was cleared. Jobs
    without a package digest or a dataset are never reused.

    The task does not wait for the job: :class:`~mlengine.sensors.training_job.TrainingJobSensor` does. If this task is
    killed, or fails without a retry, the job is cancelled.

    :param job: the output of :class:`~mlengine.operators.prepare.PrepareJobDirOperator`.
    :param job_file: the path of a YAML job file, relative to the DAG's file, or its content as a mapping.
    :param package: the output of :class:`~mlengine.operators.package.PackageTrainerOperator`; without it, the job
        file's ``packageUris``.
    :param module: the module to run, instead of the job file's ``pythonModule``.
    :param dataset: the output of :class:`~mlengine.operators.dataset.ResolveDatasetOperator`; recorded as lineage.
    :param dataset_arg: the trainer's argument for the dataset's URI, such as ``--dataset``; appended to the arguments.
        If empty, the URI is not passed.
    :param job_dir_arg: the trainer's argument for the job directory, by default ``--job-dir``; appended to the
        arguments. If empty, the job directory is not passed.
    :param args: user arguments; they replace the job file's, as ``gcloud … -- ARGS`` did.
    :param scale_tier: the scale tier, which replaces the job file's with its machine types and replica counts.
    :param replica_counts: the number of replicas of each role, e.g. ``{"worker": 2, "ps": 1}``; ``None`` or ``""`` keep
        the job file's.
    :param backend: the backend that runs the job; the setting ``[mlengine] backend`` if empty.
    :param max_attempts: the maximum number of attempts of the job if machines fail.
    :param force_retrain: train even if a job with the same inputs was accepted before.
    :param labels: labels of the job, for users and billing.

    :returns: :class:`~mlengine.core.xcoms.JobXCom`: the job's handle and the decision; for ``reused``, the handle of
        the reused job.
    :raises JobFileError: the job file is invalid; the message names file and line. Nothing was submitted.
    :raises PackageError: the packages do not contain the module. Nothing was submitted.
    """

    template_fields: Sequence[str] = (
        *BackendOperator.template_fields,
        "job",
        "job_file",
        "module",
        "package",
        "dataset",
        "dataset_arg",
        "job_dir_arg",
        "args",
        "scale_tier",
        "replica_counts",
        "backend",
        "labels",
        "max_attempts",
        "force_retrain",
    )
    parsers: ClassVar = {
        "replica_counts": lambda value: _counts(mapping("replica_counts", value)),
        "labels": partial(mapping, "labels"),
        "max_attempts": partial(settings.check, "max_attempts"),
        "force_retrain": partial(flag, "force_retrain", default=False),
    }
    template_fields_renderers = {"job_file": "yaml", "args": "json", "replica_counts": "json"}  # noqa: RUF012
    operator_extra_links = SUBMIT_LINKS
    ui_color = "#fce8b2"

    def __init__(
        self,
        *,
        job: JobDirXCom | XComArg | str,
        job_file: str | Path | Mapping[str, Any],
        module: str | None = None,
        package: PackageXCom | XComArg | str | None = None,
        dataset: DatasetXCom | XComArg | str | None = None,
        dataset_arg: str | None = None,
        job_dir_arg: str | None = None,
        args: Sequence[str] | None = None,
        scale_tier: str | None = None,
        replica_counts: Mapping[str, Any] | None = None,
        backend: str | None = None,
        max_attempts: int | str | None = None,
        force_retrain: bool | str = "{{ params.get('force_retrain') or '' }}",
        labels: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.job_file = job_file
        self.module = module
        self.package = package
        self.dataset = dataset
        self.dataset_arg = dataset_arg
        self.job_dir_arg = job_dir_arg
        self.args = args
        self.scale_tier = scale_tier
        self.replica_counts = replica_counts
        self.backend = backend
        self.max_attempts = max_attempts
        self.force_retrain = force_retrain
        self.labels = labels
        self.job_dir: str | None = None
        self._key: JobKey | None = None
        self._spec: TrainingSpec | None = None
        self._killed = False
        self.check_literals()

    def after_rendering(self) -> None:
        """Resolve the backend, so that the rendered fields contain it.

        The listener that cancels orphaned jobs reads it there.
        """
        super().after_rendering()
        self.backend = self.access.setting("backend", self.backend)

    def execute(self, context: Context) -> JobXCom:
        identity = run_identity(context)
        self._key = replace(job_key(context), run_uid=identity.run_uid)
        with job_ends_with_task(context, self._cancel):
            self.keep_access(context, backend=self.given("backend"), job=self.job)
            return self._submit(self._key, identity.installation, context)

    def _submit(self, key: JobKey, installation: str, context: Context) -> JobXCom:
        job = self.returned("job", "model", "job_dir")
        backend = self._backend()
        requested = self._requested()
        spec = self._spec = self._capped(requested, backend)
        job_dir = JobDir(job["job_dir"])
        submitter = Submitter(
            self.access.storage(),
            backend,
            max_attempts=self.access.integer("max_attempts", self.given("max_attempts")),
        )
        intent = Intent(
            key=key,
            model=job["model"],
            job_dir=job_dir,
            spec=spec,
            inputs={**self._inputs(spec), RunOrder.INPUT: run_order(context).to_json()},
            labels={
                "dag_id": make_label(key.dag_id),
                "run_id": make_label(key.run_id),
                **spec.labels,
                **{str(name): str(value) for name, value in self.parsed("labels").items()},
            },
            earlier=tuple(replace(earlier, run_uid=key.run_uid) for earlier in earlier_keys(context)),
            requested=requested,
            installation=installation,
            own_dir=carries_key(job_dir, self._prepared_key),
        )
        try:
            submitted = self._reused(submitter, intent)
            if submitted is None:
                self._check_module(spec)
                submitted = submitter.submit(intent)
        except JobFailedError as error:
            raise AirflowFailException(str(error)) from None
        self._lineage = partial(
            lineage.submitted, submitted.handle, submitted.decision, intent.inputs, spec.package_uris
        )
        count(submitted.decision, context, backend.name)
        if self._killed:
            # Airflow calls on_kill in a signal handler, and the task continues: cancel a job that it submitted since.
            self._cancel("the task was killed")
            raise AirflowFailException(
                f"the task was killed while submitting job {submitted.handle.job_id}; the job was cancelled"
            )
        self.job_dir = submitted.handle.job_dir
        return submitted.to_json()

    def _inputs(self, spec: TrainingSpec) -> dict[str, Any]:
        """The inputs of the job, for lineage, re-runs and reuse."""
        package = self.returned_or_none("package", "package_uris") or {}
        dataset = self.returned_or_none("dataset", "uri") or {}
        inputs = {"package": package, "dataset": dataset, "software": software()}
        digest = inputs_digest(spec, package, dataset)
        return inputs if digest is None else {**inputs, "digest": digest}

    def _reused(self, submitter: Submitter, intent: Intent) -> Submitted | None:
        """An accepted job with the same inputs, if there is one and it may be reused."""
        digest = intent.inputs.get("digest")
        if not digest or self.parsed("force_retrain"):
            return None
        from mlengine.validation import cache

        storage = self.access.storage()
        found = cache.find(storage, intent.job_dir.bucket, intent.model, digest)
        submitted = submitter.reuse(intent, found.handle, found.owner) if found else None
        if submitted:
            job_dir = JobDir(submitted.handle.job_dir)
            self.log.info(
                "Reusing %s, which has the same inputs and was accepted; report: %s", job_dir.uri, job_dir.page
            )
            self.log.info("To train anyway, set force_retrain")
            discard(storage, intent.job_dir, self._prepared_key)
        return submitted

    def _check_module(self, spec: TrainingSpec) -> None:
        """Check that the job's packages contain the module. The package task does not read the job file.

        :raises PackageError: no package contains the module.
        """
        from mlengine.packaging.job_module import check_job_module

        try:
            check_job_module(spec, self.access.storage(), self.access.options)
        except StorageError as error:
            # The job may be running already, so an unreadable package must not fail the submission.
            self.log.warning("Could not check whether the packages contain module %s: %s", spec.module, error.message)

    @property
    def _prepared_key(self) -> str:
        """The key digest in the job dir's name; empty if a person chose the name."""
        return str(self.returned("job", "model", "job_dir").get("key") or "")

    def on_kill(self) -> None:
        """Cancel the job of this task, even if the response to its submission has not arrived."""
        self._killed = True
        self._cancel("the task was killed")

    def _cancel(self, why: str) -> None:
        if self._key is None or self._spec is None:
            return  # nothing was submitted
        # A new backend is used, as on_kill runs in a signal handler, perhaps while the other one holds a lock.
        backend = self._backend()
        submitter = Submitter(self.access.storage(), backend)
        for handle in find_attempts(backend, self._key.digest, self._spec):
            with suppress(BackendUnavailableError):
                if backend.describe([handle])[0].state.terminal:
                    continue
            self.log.warning("Cancelling job %s: %s", handle.job_id, why)
            submitter.end(handle, why)

    def _backend(self) -> TrainingBackend:
        return self.access.backend(self.backend)

    def _job_file(self) -> str | Path | Mapping[str, Any]:
        """The job file, with a path resolved relative to the DAG's file. The content of a job file is unchanged."""
        if isinstance(self.job_file, Path):
            return self.relative_to_dag(self.job_file)
        if isinstance(self.job_file, str) and not re.search(r"[\n{]|:(\s|$)", self.job_file):
            return self.relative_to_dag(self.job_file)
        return self.job_file

    def _args(self, spec: TrainingSpec) -> list[str]:
        """The user's arguments, or else the job file's, followed by the dataset's URI."""
        own = self.given("args")
        args = [str(arg) for arg in (spec.args if own is None else own)]
        dataset = self.returned_or_none("dataset", "uri")
        return [*args, self.dataset_arg, str(dataset["uri"])] if self.dataset_arg and dataset else args

    def _requested(self) -> TrainingSpec:
        """The spec of the job file, overridden by this task's arguments."""
        if isinstance(self.args, str | Mapping):
            kind = "a string" if isinstance(self.args, str) else "a mapping"
            raise JobFileError(
                f"args must be a list of strings, not {kind}: {self.args!r}",
                hint="pass a list of strings: ['--epochs', '5']",
            )
        spec = parse.load(self._job_file())
        if self.job_dir_arg is not None:
            spec = replace(spec, job_dir_arg=self.job_dir_arg)
        return parse.override(
            spec,
            args=self._args(spec),
            module=self.given("module"),
            scale_tier=self.given("scale_tier"),
            counts=self.parsed("replica_counts"),
            package_uris=(self.returned_or_none("package", "package_uris") or {}).get("package_uris"),
        )

    def _capped(self, spec: TrainingSpec, backend: TrainingBackend) -> TrainingSpec:
        """The spec that will run on this backend, reduced to the backend's limits."""
        if isinstance(backend, CapsCluster):
            spec, reduced = backend.cap(spec)
            for message in reduced:
                self.log.warning("%s", message)
        cluster = ", ".join(counted(pool.count, pool.role) for pool in spec.pools)
        self.log.info("Submitting python -m %s to backend %s: %s", spec.module, backend.name, cluster)
        return spec


def _counts(counts: Mapping[str, Any] | None) -> dict[Role, int] | None:
    """Replica counts from a trigger form; empty values keep the job file's."""
    given = {role: count for role, count in (counts or {}).items() if count not in (None, "", "None")}
    try:
        return {Role(role): _integer(count) for role, count in given.items()} or None
    except ValueError as error:
        roles = ", ".join(role.value for role in Role)
        raise JobFileError(
            f"replica_counts={given!r} is invalid: {error}", hint=f"use integers; the roles are {roles}"
        ) from error


def _integer(count: object) -> int:
    """``count`` as an integer. A trigger form may return ``2.0``."""
    number = float(str(count))
    if not number.is_integer():
        raise ValueError(f"{count} is not an integer")
    return int(number)
