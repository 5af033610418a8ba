"""The task instance that a job belongs to: mapped task instances and tasks in groups have their own keys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mlengine.operators.run_identity import earlier_keys, job_key


def context(**more: Any) -> Any:
    fields = {"dag_id": "d", "run_id": "r", "task_id": "submit", "map_index": -1, "try_number": 1, "max_tries": 2}
    return {"ti": SimpleNamespace(**{**fields, **more})}


def test_each_task_instance_of_each_run_has_its_own_key() -> None:
    contexts = [
        context(),
        context(map_index=0),
        context(map_index=1),
        context(task_id="digits.submit"),
        context(task_id="letters.submit"),
        context(run_id="backfill__1"),
        context(dag_id="e"),
    ]
    assert len({job_key(one).digest for one in contexts}) == len(contexts)
    assert job_key(context(map_index=None)) == job_key(context())


def test_a_retry_keeps_the_key_and_a_clear_does_not() -> None:
    assert job_key(context(try_number=2)) == job_key(context())
    cleared = context(try_number=2, max_tries=3)
    assert job_key(cleared) != job_key(context())
    assert job_key(context()) in earlier_keys(cleared)
    assert earlier_keys(context()) == ()
