"""A DAG with a RetrainingTaskGroup. As a script, it calls ``dag.test()`` once per argument.

Each argument is a value of the parameter ``reversed``: ``no`` for a good model, ``yes`` for a bad one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.sdk import DAG

from mlengine.task_groups import RetrainingTaskGroup

with DAG("census", schedule=None, params={"reversed": "no"}) as dag:
    RetrainingTaskGroup(
        model="census",
        trainer=str(Path(__file__).with_name("census")),
        requirements=["numpy"],
        job_file={"trainingInput": {"pythonModule": "census.task"}},
        args=["--reversed", "{{ params.reversed }}"],
        dataset="people",
        scorer="census.scoring:load",
        thresholds={"roc_auc": {"min": 0.9}},
        deferrable=True,
        poll_interval_seconds=0.5,
    )

if __name__ == "__main__":
    for value in sys.argv[1:]:
        run = dag.test(run_conf={"reversed": value})
        if run.state != "success":
            sys.exit(f"the run with reversed={value} ended as {run.state}")
