"""Retrain the MNIST model on the dataset version of each month, and publish it if it is good.

One DAG run is about one dataset version: the run's partition key (``2026-11-01``), or the version chosen in the trigger
form, or the newest. The stages:

    package  ─┐
    dataset ──┴─ prepare ── submit ── wait ── validate ── publish

``package`` makes an sdist of ``trainer/``; ``prepare`` a clean job dir in the bucket; ``submit`` starts the cluster
that ``jobs/mnist.yaml`` describes, at most once; ``wait`` shows every replica's log while it trains; ``validate``
judges the exported model beside the champion; ``publish`` makes it the champion, if the verdict lets it.

Work that was done and accepted before is not done again: its job stands in (``force_retrain`` in the form trains in
spite of it). A backfill over the dates of old versions: ``airflow backfill create --dag-id mnist_retraining
--from-date 2026-01-01 --to-date 2026-12-01 --max-active-runs 2``.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronPartitionTimetable
from mnist_pipeline import PARAMS, retrain_mnist

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
    retrain_mnist()
