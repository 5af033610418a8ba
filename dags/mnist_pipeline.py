"""The trigger form and the stages of the MNIST DAGs, which differ only in their schedules."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import Param

from mlengine import params
from mlengine.task_groups import RetrainingTaskGroup

HERE = Path(__file__).parent
_WHERE, _VALIDATION, _MORE = "Backend and cluster", "Validation", "Hyperparameters"

# Parameters without a section are visible at once; sections are collapsed.
PARAMS = {
    "dataset_version": params.dataset_version("mnist"),
    "max_steps": Param(
        1000,
        type="integer",
        minimum=1,
        maximum=100_000,
        title="Steps",
        description="Total number of batches, over all replicas. 1000 steps reach an accuracy of about 98 %.",
    ),
    "force_retrain": params.force_retrain(),
    "backend": params.backend(section=_WHERE),
    "scale_tier": params.scale_tier(section=_WHERE),
    "workers": Param(
        2,
        type="integer",
        minimum=0,
        maximum=64,
        title="Workers",
        description="In addition to the chief. Ignored if a scale tier is chosen.",
        section=_WHERE,
    ),
    "parameter_servers": Param(
        1,
        type="integer",
        minimum=0,
        maximum=16,
        title="Parameter servers",
        description="They hold the weights. Ignored if a scale tier is chosen.",
        section=_WHERE,
    ),
    "min_accuracy": Param(
        0.97,
        type="number",
        minimum=0,
        maximum=1,
        title="Minimum accuracy",
        description="On the held-out rows, which no version trains on.",
        section=_VALIDATION,
    ),
    "min_class_accuracy": Param(
        0.9,
        type="number",
        minimum=0,
        maximum=1,
        title="Minimum recall of each digit",
        description="The share of its held-out rows that are recognized.",
        section=_VALIDATION,
    ),
    "tolerance": Param(
        0.005,
        type="number",
        minimum=0,
        maximum=1,
        title="Maximum regression",
        description="How much lower than the champion's the accuracy may be, on the same rows.",
        section=_VALIDATION,
    ),
    "batch_size": Param(
        100, type="integer", minimum=1, maximum=10_000, title="Batch size", description="Rows per step.", section=_MORE
    ),
    "learning_rate": Param(
        0.0002,
        type="number",
        exclusiveMinimum=0,
        maximum=1,
        title="Learning rate",
        description="Of Adam at the first step. It falls linearly to 0 at the last step.",
        section=_MORE,
    ),
    "seed": Param(
        0,
        type="integer",
        minimum=0,
        maximum=2**31 - 1,
        title="Seed",
        description="Of the first weights and of the shuffles.",
        section=_MORE,
    ),
}


def retrain_mnist() -> RetrainingTaskGroup:
    """Package ``trainer/``, train it on a version of ``mnist`` as set in the form, validate and publish the model."""
    arguments = ("max_steps", "batch_size", "learning_rate", "seed")
    return RetrainingTaskGroup(
        model="mnist",
        trainer=HERE.parent / "trainer",
        job_file=HERE / "jobs" / "mnist.yaml",
        dataset="mnist",
        args=[word for name in arguments for word in (f"--{name}", f"{{{{ params.{name} }}}}")],
        backend="{{ params.backend or '' }}",
        scale_tier="{{ params.scale_tier or '' }}",
        replica_counts={
            "worker": "{{ '' if params.scale_tier else params.workers }}",
            "ps": "{{ '' if params.scale_tier else params.parameter_servers }}",
        },
        thresholds={
            "accuracy": {"min": "{{ params.min_accuracy }}", "max_regression": "{{ params.tolerance }}"},
            "worst_class_recall": {"min": "{{ params.min_class_accuracy }}"},
        },
        serving_signature={
            "inputs": {"key": "int64[-1]", "image": "float32[-1,784]"},
            "outputs": {"key": "int64[-1]", "scores": "float32[-1,10]"},
            "key": "key",
        },
    )
