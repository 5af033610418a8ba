"""What the MNIST DAGs have in common: the trigger form, and the stages. They differ in what starts them."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import Param, TaskGroup

from mlengine.pipeline import training_pipeline

HERE = Path(__file__).parent

PARAMS = {
    "dataset_version": Param(
        None,
        type=["null", "string"],
        title="Dataset version",
        description="Train on this version, e.g. 2026-11-01. Empty: the run's partition key, or else the newest.",
    ),
    "train_again": Param(
        False,
        type="boolean",
        title="Train again",
        description="Though a model of the same package, data, arguments and cluster was accepted before.",
    ),
    "max_steps": Param(
        1000,
        type="integer",
        minimum=1,
        maximum=100_000,
        title="Steps",
        description="Batches in all, shared by the chief and the workers. 1000 reach about 98 %.",
    ),
    "batch_size": Param(
        100,
        type="integer",
        minimum=1,
        maximum=10_000,
        title="Batch size",
        description="Digits a step.",
    ),
    "workers": Param(
        2,
        type="integer",
        minimum=0,
        maximum=64,
        title="Workers",
        description="Beside the chief. This machine may cap them; the log of `submit` says so.",
        section="Cluster",
    ),
    "parameter_servers": Param(
        1,
        type="integer",
        minimum=0,
        maximum=16,
        title="Parameter servers",
        description="They hold the weights.",
        section="Cluster",
    ),
    "min_accuracy": Param(
        0.97,
        type="number",
        minimum=0,
        maximum=1,
        title="Least accuracy",
        description="On the held-out digits, which no version trains on.",
        section="Gate",
    ),
    "min_class_accuracy": Param(
        0.9,
        type="number",
        minimum=0,
        maximum=1,
        title="Least accuracy of each digit",
        description="On the held-out pictures of that digit alone.",
        section="Gate",
    ),
    "tolerance": Param(
        0.005,
        type="number",
        minimum=0,
        maximum=1,
        title="Tolerance beside the champion",
        description="How much worse than the champion, on the same digits, a model may be.",
        section="Gate",
    ),
}


def retrain_mnist() -> TaskGroup:
    """Package, train, validate and publish: ``trainer/`` on a version of the dataset ``mnist``, as the form says."""
    return training_pipeline(
        model="mnist",
        trainer=HERE.parent / "trainer",
        job_file=HERE / "jobs" / "mnist.yaml",
        dataset="mnist",
        args=["--max_steps", "{{ params.max_steps }}", "--batch_size", "{{ params.batch_size }}"],
        counts={"worker": "{{ params.workers }}", "ps": "{{ params.parameter_servers }}"},
        thresholds={
            "accuracy": "{{ params.min_accuracy }}",
            "per_class": "{{ params.min_class_accuracy }}",
            "tolerance": "{{ params.tolerance }}",
        },
    )
