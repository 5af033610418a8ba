"""Retrain the MNIST model on each new dataset version, as soon as it is registered.

The stages are those of ``mnist_retraining``; only the schedule differs. An asset event with a partition key starts a
run, and the key is the name of the version: ``2026-11-01``, ``v12``. The event comes from ``mlengine datasets add …
--announce``, or from a task of another DAG that has this asset among its outlets (docs/retraining.md).
"""

from __future__ import annotations

from airflow.sdk import DAG, PartitionedAssetTimetable
from mnist_pipeline import PARAMS, retrain_mnist

from mlengine.assets import dataset_asset

with DAG(
    dag_id="mnist_on_new_version",
    description="Train on a new dataset version as soon as it is registered",
    schedule=PartitionedAssetTimetable(assets=dataset_asset("mnist")),
    catchup=False,
    max_active_runs=2,
    params=PARAMS,
    default_args={"retries": 2, "retry_delay": 10},
    tags=["mlengine", "mnist"],
    doc_md=__doc__,
):
    retrain_mnist()
