"""The smallest DAG, with a custom trainer that does not use TensorFlow.

``examples/hello`` is a Python project with sub-packages and data files. It runs as a chief and two workers, each in its
own process. The files that the chief writes to the job's ``model/`` are checked for completeness and published.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG

from mlengine.task_groups import RetrainingTaskGroup

with DAG("hello_trainer", schedule=None, catchup=False, tags=["mlengine"], doc_md=__doc__):
    RetrainingTaskGroup(
        model="hello",
        trainer=Path(__file__).parents[1] / "examples" / "hello",
        job_file={
            "trainingInput": {
                "scaleTier": "CUSTOM",
                "masterType": "standard",
                "workerType": "standard",
                "workerCount": 2,
                "pythonModule": "hello.task",
            }
        },
        validation_level="files",
        require_comparison=False,  # this model has no metrics, so it cannot be compared with the champion
    )
