"""The stages of a retraining as one TaskGroup.

Each stage is an operator of :mod:`mlengine.operators` or :mod:`mlengine.sensors`. A DAG that needs another order uses
the operators directly. The stages exchange small XComs with ids and URIs (:mod:`mlengine.core.xcoms`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import TaskGroup, XComArg

from mlengine.assets import champions_alias
from mlengine.core.arguments import fixed_flag
from mlengine.core.errors import JobFileError, MlengineError
from mlengine.operators.dataset import ResolveDatasetOperator
from mlengine.operators.package import PackageTrainerOperator
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.publish import PublishModelOperator
from mlengine.operators.register import RegisterModelOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.validation.extra_checks import ExtraCheck

_RUN_DATE = "{{ dag_run.run_after.strftime('%Y%m%dT%H%M%S') }}"


class RetrainingTaskGroup(TaskGroup):
    """The tasks of a retraining: package, prepare, submit, wait, validate, publish.

    The tasks are attributes: ``package``, ``dataset``, ``prepare``, ``submit``, ``wait``, ``validate``, ``publish``,
    ``register``. Optional tasks that the group does not have are ``None``.

    Arguments that are not given are not passed to the tasks, so that the DAG's ``default_args`` and the settings
    (``[mlengine]`` in Airflow's configuration) apply. Strings are templates, which are rendered when each task runs;
    ``deferrable`` and ``publish`` cannot be templates.
    Durations are in seconds.

    :param model: the model's name, which is also the name of its folder in the bucket.
    :param trainer: the path of the trainer's package directory, project directory or built archives, relative to the
        DAG's file.
    :param job_file: the path of a YAML job file, relative to the DAG's file, or its content.
    :param module: the module to run, such as ``trainer.task``, instead of the job file's ``pythonModule``.
    :param requirements: the requirements of a trainer that is a package directory, as in a requirements file. A project
        declares its own requirements.
    :param dataset: the name of a dataset. The version for the run is resolved first, and its URI is passed to the
        trainer in the argument ``dataset_arg``. Without a dataset, the trainer finds its own data.
    :param dataset_version: a version of the dataset. By default, the version is that of the trigger form, the run's
        partition key, or the newest version at the run's date, in this order.
    :param dataset_arg: the trainer's argument for the URI of the dataset version, by default ``--dataset``. If it is
        ``""``, the URI is not passed to the trainer.
    :param job_dir_arg: the trainer's argument for the job directory, by default ``--job-dir``. If it is ``""``, the job
        directory is not passed to the trainer, which finds it in ``AIP_MODEL_DIR``.
    :param args: the trainer's own arguments; they replace the job file's.
    :param scale_tier: the scale tier, instead of the job file's.
    :param replica_counts: the number of replicas of each role, instead of the job file's: ``{"worker": 2, "ps": 1}``.
    :param labels: labels of the job, for users and billing.
    :param job_id_hint: a readable part of the job id; by default the dataset version, or the run's date.
    :param force_retrain: train even if a job with the same inputs was accepted before; by default, the value of the
        trigger form.
    :param max_attempts: maximum number of attempts of the job if machines fail.

    :param backend: the backend that runs the job: ``local``, ``ray`` or ``vertex``.
    :param backend_options: keyword arguments of the backend.
    :param project_id: Google Cloud project of the job.
    :param region: region of the job; it has precedence over the job file's.
    :param bucket: the bucket of packages, datasets, jobs and models, as ``gs://NAME``.
    :param gcp_conn_id: Airflow connection to Google Cloud; ``None`` for the application default credentials.
    :param impersonation_chain: service account to impersonate, or a chain of them.

    :param deferrable: wait in the triggerer instead of a worker. A wait in a worker does not occupy the worker's slot
        between two polls. The default is ``[operators] default_deferrable``.
    :param poll_interval_seconds: polling interval of the job.
    :param progress_interval_seconds: interval between two progress lines in the log of ``wait``.
    :param queued_timeout_seconds: the job is cancelled if it has not started after this time.
    :param running_timeout_seconds: the job is cancelled if it has not ended this long after it left QUEUED.
    :param retry_backoff_seconds: pause before attempt 2 of the job; doubled for each further attempt.

    :param thresholds: the thresholds that the model must reach (:class:`~mlengine.core.thresholds.Thresholds`).
    :param validation_level: what is validated: ``all``; ``signature`` for a SavedModel without a dataset version;
        ``files`` for a model that validation cannot run.
    :param serving_signature: the serving signature that the model must have
        (:class:`~mlengine.validation.serving_signature.ServingSignature`).
    :param extra_checks: your own functions, each of which returns a :class:`~mlengine.core.verdict.Check` for the
        model's folder and its measured values.
    :param scorer: the function that predicts, as ``package.module:function`` of the trainer's package. By default, it
        is the one that the trainer's ``pyproject.toml`` names, or else one for the kind of the model's files.
    :param prediction_task: ``binary``, ``multiclass``, ``regression`` or ``none``, instead of the dataset's task.
    :param on_reject: how ``validate`` ends for a model that is not accepted: ``skip``, ``fail`` or ``continue``.
    :param require_comparison: accept a model only if it was compared with the champion; this is the default. The levels
        ``files`` and ``signature`` do not compare models. With them, set this to ``False`` to publish a second model.
    :param validation_time_limit_seconds: time limit of the process that runs the model.
    :param validation_memory_limit_gib: limit of the private memory of that process, in GiB.

    :param publish: make an accepted model the champion, and emit an event of
        :func:`~mlengine.assets.champion_asset`.
    :param on_not_published: how ``publish`` ends if the model is not published: ``skip``, ``fail`` or ``continue``.
    :param registries: external model registries that follow the champion, updated by the task ``register``
        (:class:`~mlengine.operators.register.RegisterModelOperator`).

    :param task_args: additional arguments of single tasks, by the task's name, such as
        ``{"submit": {"retries": 5}, "wait": {"pool": "training"}}``. They have precedence over all other arguments.
    :param group_id: the group's id, which is also the prefix of its tasks' ids.
    :param kwargs: arguments of :class:`~airflow.sdk.TaskGroup`: ``default_args``, ``tooltip``, ``prefix_group_id``, …

    :raises JobFileError: ``args`` is a string, not a list of strings.
    :raises MlengineError: ``task_args`` names a task that the group does not have; or an argument is invalid. Arguments
        that are templates or outputs of other tasks are checked when their task runs.
    :raises RuntimeError: the group is created outside of a DAG.
    """

    package: PackageTrainerOperator
    dataset: ResolveDatasetOperator | None
    prepare: PrepareJobDirOperator
    submit: SubmitTrainingJobOperator
    wait: TrainingJobSensor
    validate: ValidateModelOperator
    publish: PublishModelOperator | None
    register: RegisterModelOperator | None

    def __init__(
        self,
        group_id: str = "retrain",
        *,
        model: str | XComArg,
        trainer: str | Path | Sequence[str | Path] | XComArg,
        job_file: str | Path | Mapping[str, Any] | XComArg,
        module: str | None = None,
        requirements: Sequence[str] | None = None,
        dataset: str | None = None,
        dataset_version: str | None = None,
        dataset_arg: str | None = None,
        job_dir_arg: str | None = None,
        args: Sequence[str] | None = None,
        scale_tier: str | None = None,
        replica_counts: Mapping[str, int | str] | None = None,
        labels: Mapping[str, str] | None = None,
        job_id_hint: str | None = None,
        force_retrain: bool | str | None = None,
        max_attempts: int | str | None = None,
        backend: str | None = None,
        backend_options: Mapping[str, Any] | None = None,
        project_id: str | None = None,
        region: str | None = None,
        bucket: str | None = None,
        gcp_conn_id: str | None = "",
        impersonation_chain: str | Sequence[str] | None = None,
        deferrable: bool | None = None,
        poll_interval_seconds: float | str | None = None,
        progress_interval_seconds: float | str | None = None,
        queued_timeout_seconds: float | str | None = None,
        running_timeout_seconds: float | str | None = None,
        retry_backoff_seconds: float | str | None = None,
        thresholds: Mapping[str, Any] | None = None,
        validation_level: str | None = None,
        serving_signature: Mapping[str, Any] | None = None,
        extra_checks: Sequence[ExtraCheck] | None = None,
        scorer: str | None = None,
        prediction_task: str | None = None,
        on_reject: str | None = None,
        require_comparison: bool | str | None = None,
        validation_time_limit_seconds: float | str | None = None,
        validation_memory_limit_gib: float | str | None = None,
        publish: bool = True,
        on_not_published: str | None = None,
        registries: Sequence[str | Mapping[str, Any]] | XComArg | None = None,
        task_args: Mapping[str, Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(args, str):
            raise JobFileError(
                f"args must be a list of strings, not the string {args!r}",
                hint="pass a list of strings: ['--epochs', '5']",
            )
        own = _TaskArgs(task_args or {})
        cloud = _given(gcp_conn_id=gcp_conn_id or None, impersonation_chain=impersonation_chain)
        if gcp_conn_id is None:
            cloud["gcp_conn_id"] = None
        stored = {**cloud, **_given(bucket=bucket)}
        trained = {**cloud, **_given(project_id=project_id, region=region, backend_options=backend_options)}
        # The name is not known yet if it is a task's output or a mapped value.
        tooltip = f"retrain {model}" if isinstance(model, str) else "retrain a model"
        super().__init__(group_id=group_id, **{"tooltip": tooltip, **kwargs})
        # These arguments have a default here, which must not replace the DAG's default_args.
        defaults = {"dataset_arg": "--dataset", **self.dag.default_args, **self.default_args}
        dataset_arg = defaults["dataset_arg"] if dataset_arg is None else dataset_arg
        job_id_hint = job_id_hint or defaults.get("job_id_hint")
        registries = defaults.get("registries", ()) if registries is None else registries
        if isinstance(registries, str):
            raise MlengineError(
                f"registries must be a list, not the string {registries!r}", hint=f"pass a list: [{registries!r}]"
            )
        with self:
            self.package = PackageTrainerOperator(
                **own.of("package", stored, source=_paths(trainer), module=module, requirements=requirements)
            )
            self.dataset = None
            if dataset:
                self.dataset = ResolveDatasetOperator(
                    **own.of("dataset", stored, dataset=dataset, version=dataset_version)
                )
            self.prepare = PrepareJobDirOperator(
                **own.of("prepare", stored, model=model, job_id_hint=job_id_hint or _version(self.dataset))
            )
            self.submit = SubmitTrainingJobOperator(
                **own.of(
                    "submit",
                    trained,
                    job=self.prepare.output,
                    job_file=str(job_file) if isinstance(job_file, Path) else job_file,
                    module=module,
                    package=self.package.output,
                    dataset=self.dataset.output if self.dataset else None,
                    dataset_arg=dataset_arg if self.dataset else None,
                    job_dir_arg=job_dir_arg,
                    args=args,
                    scale_tier=scale_tier,
                    replica_counts=replica_counts,
                    labels=labels,
                    force_retrain=force_retrain,
                    max_attempts=max_attempts,
                    backend=backend,
                )
            )
            self.wait = TrainingJobSensor(
                **own.of(
                    "wait",
                    trained,
                    job=self.submit.output,
                    deferrable=deferrable,
                    poll_interval_seconds=poll_interval_seconds,
                    progress_interval_seconds=progress_interval_seconds,
                    queued_timeout_seconds=queued_timeout_seconds,
                    running_timeout_seconds=running_timeout_seconds,
                    retry_backoff_seconds=retry_backoff_seconds,
                    max_attempts=max_attempts,
                )
            )
            self.validate = ValidateModelOperator(
                **own.of(
                    "validate",
                    {**stored, **trained},
                    job=self.wait.output,
                    thresholds=thresholds,
                    validation_level=validation_level,
                    serving_signature=serving_signature,
                    extra_checks=extra_checks,
                    scorer=scorer,
                    prediction_task=prediction_task,
                    on_reject=on_reject,
                    require_comparison=require_comparison,
                    time_limit_seconds=validation_time_limit_seconds,
                    memory_limit_gib=validation_memory_limit_gib,
                )
            )
            if self.dataset:
                self.dataset >> self.prepare
            self.publish = self.register = None
            if fixed_flag("publish", publish):
                self.publish = PublishModelOperator(
                    **own.of(
                        "publish",
                        stored,
                        job=self.validate.output,
                        on_not_published=on_not_published,
                        outlets=[champions_alias()],
                    )
                )
            if self.publish and registries:
                self.register = RegisterModelOperator(
                    **own.of("register", stored, job=self.publish.output, registries=registries)
                )
        own.check_all_used()


class _TaskArgs:
    """The arguments of each task: those of the group, and those in ``task_args``."""

    def __init__(self, given: Mapping[str, Mapping[str, Any]]) -> None:
        if not isinstance(given, Mapping) or not all(isinstance(one, Mapping) for one in given.values()):
            raise MlengineError(
                f"task_args must contain a mapping for each task, not {given!r}",
                hint='write {"wait": {"pool": "training"}}',
            )
        self._given = given
        self._tasks: list[str] = []

    def of(self, task: str, common: Mapping[str, Any], **specific: Any) -> dict[str, Any]:
        """Keyword arguments of the operator of ``task``, without those that are ``None``."""
        self._tasks.append(task)
        return {"task_id": task, **common, **_given(**specific), **self._given.get(task, {})}

    def check_all_used(self) -> None:
        """Check that ``task_args`` names only tasks of the group.

        :raises MlengineError: ``task_args`` names an unknown task.
        """
        if unknown := self._given.keys() - set(self._tasks):
            raise MlengineError(
                f"task_args contains unknown tasks: {', '.join(sorted(unknown))}",
                hint=f"the tasks are {', '.join(self._tasks)}",
            )


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _paths(trainer: Any) -> Any:
    """The trainer's paths as strings, because they are templates. A task's output and mapped values are unchanged."""
    if isinstance(trainer, list | tuple):
        return [_paths(one) for one in trainer]
    return str(trainer) if isinstance(trainer, Path) else trainer


def _version(dataset: ResolveDatasetOperator | None) -> str:
    """A template for the dataset's version or, without a dataset, for the run's date."""
    if dataset is None:
        return _RUN_DATE
    return f"{{{{ (ti.xcom_pull(task_ids='{dataset.task_id}', map_indexes=ti.map_index) or {{}}).get('version') }}}}"
