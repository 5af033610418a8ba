"""Retrain the XGBoost model that predicts late flights, on the dataset version of each month.

This DAG differs from ``flights_retraining`` in its trainer: ``examples/flights_xgboost`` needs no TensorFlow. Chief and
workers find each other through ``TF_CONFIG`` and train one model with XGBoost's own collective. The trainer's
``pyproject.toml`` names a scorer, because the model's string columns are encoded in Python.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronPartitionTimetable, Param
from flights_pipeline import PARAMS, retrain_flights

with DAG(
    dag_id="flights_xgboost",
    description="Train distributed, validate and publish an XGBoost model of late flights",
    schedule=CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d"),
    catchup=False,
    max_active_runs=1,
    params={
        **PARAMS,
        "learning_rate": Param(
            0.1,
            type="number",
            exclusiveMinimum=0,
            maximum=1,
            title="Learning rate",
            description="The weight of each new tree.",
            section="Hyperparameters",
        ),
        "rounds": Param(
            100, type="integer", minimum=1, maximum=100_000, title="Rounds", description="Trees of the model."
        ),
    },
    default_args={"retries": 2, "retry_delay": 10},
    tags=["mlengine", "flights"],
    doc_md=__doc__,
):
    retrain_flights("flights_xgboost", "flights_xgboost", "rounds", "learning_rate")
