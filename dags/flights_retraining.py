"""Retrain the Keras model that predicts late flights, on the dataset version of each month.

The trainer is ``examples/flights``: a Keras model with preprocessing layers, trained by a chief and two workers. The
run's partition key names the version (``2013-11-01``): its training rows are all flights before the last complete
month, and that month is held out. Each version therefore has different held-out rows, and a champion of the same or an
older version is evaluated again on the new model's rows. A model is accepted if its ROC AUC is high enough for all
flights and for each large carrier and airport, and not lower than the champion's.

To train on the whole year: ``airflow backfill create --dag-id flights_retraining --from-date 2013-02-01 --to-date
2014-01-01 --max-active-runs 1``. Do this before a newer version has a champion: a champion may have been trained on the
held-out rows of older versions, so their models would be ``not_compared``.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronPartitionTimetable, Param
from flights_pipeline import PARAMS, retrain_flights

with DAG(
    dag_id="flights_retraining",
    description="Train distributed, validate and publish a Keras model of late flights",
    schedule=CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d"),
    catchup=False,
    max_active_runs=1,
    params={
        **PARAMS,
        "max_steps": Param(
            1500,
            type="integer",
            minimum=1,
            maximum=1_000_000,
            title="Steps",
            description="Number of batches; all replicas share each batch.",
        ),
        "batch_size": Param(
            512,
            type="integer",
            minimum=1,
            maximum=1_000_000,
            title="Batch size",
            description="Flights per step, of all replicas together.",
            section="Hyperparameters",
        ),
        "learning_rate": Param(
            0.001,
            type="number",
            exclusiveMinimum=0,
            maximum=1,
            title="Learning rate",
            description="Learning rate of Adam.",
            section="Hyperparameters",
        ),
    },
    default_args={"retries": 2, "retry_delay": 10},
    tags=["mlengine", "flights"],
    doc_md=__doc__,
):
    retrain_flights("flights", "flights", "max_steps", "batch_size", "learning_rate")
