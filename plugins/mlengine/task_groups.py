"""The stages of a retraining as one TaskGroup: what most DAGs need, in one call.

Each stage is an operator of :mod:`mlengine.operators` or :mod:`mlengine.sensors`; a DAG that needs another order uses
them by itself. What travels between them are small XComs: ids and URIs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import TaskGroup

from mlengine.assets import champion_asset
from mlengine.core.errors import JobFileError
from mlengine.operators.dataset import ResolveDatasetOperator
from mlengine.operators.package import PackageTrainerOperator
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.publish import PublishModelOperator
from mlengine.operators.register import RegisterModelOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.sensors.training_job import TrainingJobSensor

_RUN_DATE = "{{ dag_run.run_after.strftime('%Y%m%dT%H%M%S') }}"


class RetrainingTaskGroup(TaskGroup):
    """Package, prepare, submit, wait, validate, publish; strings are templates, rendered when each task runs.

    :param model: the model's name: its folder in the bucket.
    :param trainer: a package dir, a project dir, or ready-made archives.
    :param job_file: path of a YAML job file, or its content.
    :param module: what to run, if the job file does not say: ``trainer.task``.
    :param dataset: the name of a dataset; its version of this run is resolved first, and given to the trainer as
        ``--dataset``. Without one, the trainer finds its own data.
    :param args: the trainer's own arguments.
    :param scale_tier: instead of the job file's.
    :param replica_counts: replicas of each role, instead of the job file's.
    :param thresholds: what the model is held to (:class:`~mlengine.core.verdict.Thresholds`).
    :param validation_level: ``all``, ``signature`` or ``files``: how far the gate goes; the last if it is no
        SavedModel.
    :param on_reject: ``skip`` or ``fail`` what comes after a rejected model.
    :param backend: where it trains; the setting ``[mlengine] backend`` if empty.
    :param deferrable: wait in the triggerer; ``False`` waits in a worker, rescheduled between two looks.
    :param publish: make an accepted model the champion; an event of
        :func:`~mlengine.assets.champion_asset` tells of it.
    :param registries: model registries elsewhere that follow the champion, told by a task of its own after that
        (:class:`~mlengine.operators.register.RegisterModelOperator`).

    :raises JobFileError: ``args`` is a text, not a list of words.
    :raises AirflowException: outside a ``with DAG(...)`` block.
    """

    def __init__(
        self,
        group_id: str = "retrain",
        *,
        model: str,
        trainer: str | Path | Sequence[str | Path],
        job_file: str | Path | Mapping[str, Any],
        module: str | None = None,
        dataset: str | None = None,
        args: Sequence[str] | None = None,
        scale_tier: str | None = None,
        replica_counts: Mapping[str, Any] | None = None,
        thresholds: Mapping[str, Any] | None = None,
        validation_level: str = "all",
        on_reject: str = "skip",
        backend: str | None = None,
        backend_options: Mapping[str, Any] | None = None,
        bucket: str | None = None,
        gcp_conn_id: str | None = "google_cloud_default",
        deferrable: bool = True,
        publish: bool = True,
        registries: Sequence[str | Mapping[str, Any]] = (),
    ) -> None:
        if isinstance(args, str):
            raise JobFileError(f"args is one text: {args!r}", remedy="give a list of words: ['--epochs', '5']")
        common: dict[str, Any] = {"gcp_conn_id": gcp_conn_id}
        super().__init__(group_id=group_id, tooltip=f"retrain {model}")
        with self:
            package = PackageTrainerOperator(
                task_id="package", source=_paths(trainer), module=module, bucket=bucket, **common
            )
            resolved = dataset and ResolveDatasetOperator(task_id="dataset", dataset=dataset, bucket=bucket, **common)
            prepare = PrepareJobDirOperator(
                task_id="prepare",
                model=model,
                bucket=bucket,
                job_id_hint=_said(resolved, "version") or _RUN_DATE,
                **common,
            )
            submit = SubmitTrainingJobOperator(
                task_id="submit",
                job=prepare.output,
                job_file=dict(job_file) if isinstance(job_file, Mapping) else str(job_file),
                module=module,
                package=package.output,
                dataset=resolved.output if resolved else None,
                dataset_arg="--dataset" if resolved else None,
                args=args,
                scale_tier=scale_tier,
                replica_counts=replica_counts,
                backend=backend,
                backend_options=backend_options,
                **common,
            )
            wait = TrainingJobSensor(
                task_id="wait",
                job=submit.output,
                deferrable=deferrable,
                mode="reschedule",
                backend_options=backend_options,
                **common,
            )
            validate = ValidateModelOperator(
                task_id="validate",
                job=wait.output,
                thresholds=thresholds,
                validation_level=validation_level,
                on_reject=on_reject,
                backend_options=backend_options,
                **common,
            )
            if resolved:
                resolved >> prepare
            submit >> wait >> validate
            if publish:
                published = PublishModelOperator(
                    task_id="publish", job=validate.output, outlets=[champion_asset(model)], **common
                )
                validate >> published
                if registries:
                    RegisterModelOperator(task_id="register", job=published.output, registries=[*registries], **common)


def _paths(trainer: str | Path | Sequence[str | Path]) -> str | list[str]:
    """Operators' fields are templates, and templates are strings."""
    return str(trainer) if isinstance(trainer, str | Path) else [str(one) for one in trainer]


def _said(task: Any, key: str) -> str:
    """The template for one value of what ``task`` returned; empty without a task."""
    return f"{{{{ ti.xcom_pull(task_ids='{task.task_id}', map_indexes=ti.map_index)['{key}'] }}}}" if task else ""
