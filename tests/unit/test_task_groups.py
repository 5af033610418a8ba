"""The pipeline's shape: what depends on what, and what is there only if it is asked for."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from mlengine.assets import champion_asset
from mlengine.task_groups import RetrainingTaskGroup


def tasks(**options: Any) -> dict[str, Any]:
    """Its tasks by their short names."""
    with DAG("any", schedule=None) as dag:
        RetrainingTaskGroup(model="m", trainer="trainer", job_file={"trainingInput": {}}, **options)
    return {task.task_id.removeprefix("retrain."): task for task in dag.tasks}


def test_a_champion_is_announced_and_nobody_else_is_told() -> None:
    found = tasks(dataset="digits")
    assert set(found) == {"package", "dataset", "prepare", "submit", "wait", "validate", "publish"}
    assert found["publish"].outlets == [champion_asset("m")]
    assert found["submit"].dataset_arg == "--dataset"


def test_registries_are_told_after_the_publication_by_a_task_of_their_own() -> None:
    found = tasks(registries=["mlflow"])
    assert "dataset" not in found
    assert found["register"].upstream_task_ids == {"retrain.publish"}
    assert found["register"].registries == ["mlflow"]
    assert found["submit"].dataset_arg is None


def test_who_does_not_publish_tells_nobody() -> None:
    assert not {"publish", "register"} & set(tasks(publish=False, registries=["mlflow"]))
