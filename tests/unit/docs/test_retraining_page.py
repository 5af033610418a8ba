"""docs/retraining.md: the template variables that it documents are those of Airflow."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType, TIRunContext
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from jinja2 import UndefinedError
from scripts.bootstrap import ROOT

MIDNIGHT = datetime(2026, 11, 1, tzinfo=UTC)


def documented() -> dict[str, tuple[list[str], str, str]]:
    """The table: first column → its variables, and the texts of the other two columns."""
    page = (ROOT / "docs" / "retraining.md").read_text(encoding="utf-8")
    section = page.split("## Template variables")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:3] == "| `"
    ]
    return {row[0]: (re.findall(r"`([^`]+)`", row[0]), row[1], row[2]) for row in rows}


def rendered(text: str, *, key: str | None) -> str:
    """``text`` as rendered in a task of a run, with Airflow's own context."""
    with DAG("d", schedule=None, params={}) as dag:
        task = BaseOperator(task_id="t")
    run = DagRun(
        dag_id="d",
        run_id="r",
        logical_date=None if key else MIDNIGHT,
        data_interval_start=None if key else MIDNIGHT,
        data_interval_end=None if key else MIDNIGHT,
        run_after=MIDNIGHT,
        start_date=MIDNIGHT,
        end_date=None,
        run_type=DagRunType.SCHEDULED,
        state=DagRunState.RUNNING,
        consumed_asset_events=[],
        partition_key=key,
        partition_date=MIDNIGHT if key else None,
    )
    fields: dict[str, Any] = {
        "id": uuid.uuid4(),
        "task": task,
        "task_id": "t",
        "dag_id": "d",
        "run_id": "r",
        "try_number": 1,
        "map_index": -1,
        "_ti_context_from_server": TIRunContext(dag_run=run, max_tries=0),
    }
    context = RuntimeTaskInstance.model_construct(**fields).get_template_context()
    environment = dag.get_template_env()
    return environment.from_string(text).render(context)


def test_the_table_lists_all_date_variables() -> None:
    names = [name for names, *_ in documented().values() for name in names]
    assert {"partition_key", "partition_date", "dag_run.run_after", "ds", "ts", "logical_date"} <= set(names)


@pytest.mark.parametrize("column", [1, 2], ids=["with a key", "without a key"])
@pytest.mark.parametrize("row", documented())
def test_a_variable_is_defined_as_the_table_says(row: str, column: int) -> None:
    names, says = documented()[row][0], str(documented()[row][column])
    for name in names:
        text, key = f"{{{{ {name} }}}}", "2026-11-01" if column == 1 else None
        if says.startswith("undefined"):
            with pytest.raises(UndefinedError):
                rendered(text, key=key)
        elif says.startswith("`None`"):
            assert rendered(text, key=key) == "None"
        else:
            assert rendered(text, key=key) != "None" or name == "dag_run.conf"


@pytest.mark.parametrize("key", ["2026-11-01", None])
def test_the_expression_for_a_runs_date_works_with_and_without_a_key(key: str | None) -> None:
    page = (ROOT / "docs" / "retraining.md").read_text(encoding="utf-8")
    expression = re.search(r"`(\{\{ \(partition_date or [^`]+)`", page)
    assert expression is not None
    assert rendered(expression[1], key=key) == "2026-11-01"
