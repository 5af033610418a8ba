"""Retrain the MNIST model on the dataset version of each month, and publish it if it is good.

One DAG run is about one dataset version: the run's partition key (``2026-11-01``), or the version chosen in the trigger
form, or the newest. The stages:

    package  ─┐
    dataset ──┴─ prepare ── submit ── wait ── validate ── publish

``package`` makes an sdist of ``trainer/``; ``prepare`` a clean job dir in the bucket; ``submit`` starts the cluster
that ``jobs/mnist.yaml`` describes, at most once; ``wait`` shows every replica's log while it trains; ``validate``
judges the exported model beside the champion; ``publish`` makes it the champion, if the verdict lets it.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG, CronPartitionTimetable, Param

from mlengine.pipeline import training_pipeline

HERE = Path(__file__).parent

PARAMS = {
    "dataset_version": Param(
        None,
        type=["null", "string"],
        title="Dataset version",
        description="Train on this version, e.g. 2026-11-01. Empty: the run's partition key, or else the newest.",
        section="What to train",
    ),
    "max_steps": Param(
        1000,
        type="integer",
        minimum=1,
        maximum=100_000,
        title="Steps",
        description="Batches in all, shared by the chief and the workers. 1000 reach about 98 %.",
        section="What to train",
    ),
    "batch_size": Param(
        100,
        type="integer",
        minimum=1,
        maximum=10_000,
        title="Batch size",
        description="Digits a step.",
        section="What to train",
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

with DAG(
    dag_id="mnist_retraining",
    description="Package, train distributed, validate and publish the MNIST model",
    # Each month's first day, about the dataset version of that name. A backfill runs over many of them.
    schedule=CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d"),
    # No start date: with one, the run of the month that has begun would start as soon as the DAG is switched on.
    catchup=False,
    max_active_runs=2,
    params=PARAMS,
    default_args={"retries": 2, "retry_delay": 10},
    tags=["mlengine", "mnist"],
    doc_md=__doc__,
):
    training_pipeline(
        model="mnist",
        trainer=HERE.parent / "trainer",
        job_file=HERE / "jobs" / "mnist.yaml",
        dataset="mnist",
        args=["--max_steps", "{{ params.max_steps }}", "--batch_size", "{{ params.batch_size }}"],
        counts={"worker": "{{ params.workers }}", "ps": "{{ params.parameter_servers }}"},
        thresholds={"accuracy": "{{ params.min_accuracy }}", "tolerance": "{{ params.tolerance }}"},
    )
