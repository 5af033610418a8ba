"""The trigger form and the stages of the flights DAGs, which differ only in their trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import Param

from mlengine import params
from mlengine.task_groups import RetrainingTaskGroup

EXAMPLES = Path(__file__).parents[1] / "examples"
_WHERE, _VALIDATION = "Backend and cluster", "Validation"

PARAMS: dict[str, Any] = {
    "dataset_version": params.dataset_version("flights"),
    "force_retrain": params.force_retrain(),
    "backend": params.backend(section=_WHERE),
    "workers": Param(
        2,
        type="integer",
        minimum=0,
        maximum=64,
        title="Workers",
        description="In addition to the chief.",
        section=_WHERE,
    ),
    "min_roc_auc": Param(
        0.6,
        type="number",
        minimum=0,
        maximum=1,
        title="Minimum of ROC AUC",
        description="On the flights of the held-out month.",
        section=_VALIDATION,
    ),
    "max_regression": Param(
        0.01,
        type="number",
        minimum=0,
        maximum=1,
        title="Maximum regression",
        description="How much lower than the champion's ROC AUC it may be, on the same flights.",
        section=_VALIDATION,
    ),
    "min_slice_roc_auc": Param(
        0.55,
        type="number",
        minimum=0,
        maximum=1,
        title="Minimum of ROC AUC of each slice",
        description="For each carrier and each airport with at least 500 flights.",
        section=_VALIDATION,
    ),
}


def retrain_flights(model: str, example: str, *arguments: str) -> RetrainingTaskGroup:
    """Package, train, validate and publish a model of the dataset ``flights``.

    :param example: the trainer's directory in ``examples/``.
    :param arguments: the trainer's arguments that are fields of the form.
    """
    return RetrainingTaskGroup(
        model=model,
        trainer=EXAMPLES / example,
        job_file=EXAMPLES / example / "job.yaml",
        dataset="flights",
        args=[word for name in arguments for word in (f"--{name}", f"{{{{ params.{name} }}}}")],
        backend="{{ params.backend or '' }}",
        replica_counts={"worker": "{{ params.workers }}"},
        thresholds={
            "roc_auc": {"min": "{{ params.min_roc_auc }}", "max_regression": "{{ params.max_regression }}"},
            "slices": [
                {"by": column, "metric": "roc_auc", "min": "{{ params.min_slice_roc_auc }}", "min_rows": 500}
                for column in ("carrier", "origin")
            ],
        },
    )
