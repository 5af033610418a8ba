"""Retrain the MNIST model on the dataset version of each month, and publish accepted models.

Each DAG run uses one dataset version: the one named by the run's partition key (``2026-11-01``), the one chosen in the
trigger form, or the newest. The stages:

    package ────────────┐
    dataset ── prepare ─┴─ submit ── wait ── validate ── publish

``package`` builds an sdist of ``trainer/``. ``prepare`` creates an empty job dir in the bucket. ``submit`` starts the
cluster that ``jobs/mnist.yaml`` describes, at most once. ``wait`` logs the output of all replicas. ``validate`` checks
the exported model and compares it with the champion. ``publish`` makes an accepted model the champion.

A job with the same inputs that was accepted before is reused, unless ``force_retrain`` is set in the trigger form. For
a backfill over old versions: ``airflow backfill create --dag-id mnist_retraining --from-date 2026-01-01 --to-date
2026-12-01 --max-active-runs 2``.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronPartitionTimetable
from mnist_pipeline import PARAMS, retrain_mnist

with DAG(
    dag_id="mnist_retraining",
    description="Package, train distributed, validate and publish the MNIST model",
    # On the first day of each month, for the dataset version of that name.
    schedule=CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d"),
    # No start date: with one, the run of the current month would start as soon as the DAG is unpaused.
    catchup=False,
    max_active_runs=2,
    params=PARAMS,
    default_args={"retries": 2, "retry_delay": 10},
    tags=["mlengine", "mnist"],
    doc_md=__doc__,
):
    retrain_mnist()
