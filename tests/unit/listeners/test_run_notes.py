"""The note on a DAG run: its content, and the preservation of a user's own note."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlengine.listeners import run_notes

DATASET = {"dataset": "mnist", "version": "2026-11-01"}
GOOD = {"verdict": "accepted", "metric": "roc_auc", "metric_value": 0.79312}


@pytest.mark.parametrize(
    ("results", "note"),
    [
        ({}, ""),
        ({"ResolveDatasetOperator": DATASET}, "mnist 2026-11-01"),
        (
            {
                "ResolveDatasetOperator": DATASET,
                "ValidateModelOperator": GOOD,
                "PublishModelOperator": {"published": True, "serial": 3},
            },
            "mnist 2026-11-01 · accepted (roc_auc 0.7931) · champion no. 3",
        ),
        (
            {
                "ValidateModelOperator": {
                    "verdict": "rejected",
                    "metric": "mean_absolute_error",
                    "metric_value": 123456.78,
                    "reasons": ["Too high.", "Too slow."],
                }
            },
            "rejected (mean_absolute_error 123,457) · Too high. Too slow.",
        ),
        (
            {"ValidateModelOperator": {"verdict": "not_compared", "reasons": ["It was not compared."]}},
            "not compared · It was not compared.",
        ),
        (
            {
                "SubmitTrainingJobOperator": {"decision": "reused"},
                "ValidateModelOperator": {"verdict": "accepted", "metric": "", "metric_value": None},
                "PublishModelOperator": {"published": False, "reason": "The champion was trained on a newer version."},
            },
            "reused an earlier model · accepted · not published: The champion was trained on a newer version.",
        ),
    ],
)
def test_the_note_is_one_line_about_the_result(results: dict[str, Any], note: str) -> None:
    assert run_notes.note_of(results) == note


def test_each_task_group_has_a_line() -> None:
    results: dict[str, dict[str, Any]] = {
        "": {"ResolveDatasetOperator": DATASET},
        "us": {"ValidateModelOperator": {"verdict": "rejected", "reasons": ["Too slow."]}},
        "de": {"ValidateModelOperator": GOOD, "PublishModelOperator": {"published": True, "serial": 7}},
    }
    assert run_notes.note_of_groups(results).splitlines() == [
        "de: mnist 2026-11-01 · accepted (roc_auc 0.7931) · champion no. 7",
        "us: mnist 2026-11-01 · rejected · Too slow.",
    ]
    assert run_notes.note_of_groups({"": results[""], "de": results["de"]}).startswith("mnist 2026-11-01 · accepted")
    assert run_notes.note_of_groups({"": results[""]}) == "mnist 2026-11-01"
    assert run_notes.note_of_groups({}) == ""


def test_each_instance_of_a_mapped_group_has_a_line() -> None:
    verdicts = [{"verdict": "accepted"}, {"verdict": "rejected", "reasons": ["Too slow."]}, *[{"verdict": "first"}] * 9]
    rows: list[tuple[str, int, str, Any]] = [
        ("all.retrain.dataset", -1, "ResolveDatasetOperator", DATASET),
        ("all.retrain.submit", -1, "SubmitTrainingJobOperator", None),
        ("other.dataset", -1, "ResolveDatasetOperator", {"dataset": "other", "version": "v1"}),
        *(("all.retrain.validate", index, "ValidateModelOperator", one) for index, one in enumerate(verdicts)),
    ]
    assert run_notes.note_of_groups(run_notes.by_group(rows)).splitlines() == [
        "all.retrain[0]: mnist 2026-11-01 · accepted",
        "all.retrain[1]: mnist 2026-11-01 · rejected · Too slow.",
        *(f"all.retrain[{index}]: mnist 2026-11-01 · first" for index in range(2, 11)),
        "other: other v1",
    ]
    alone = [("dataset", -1, "ResolveDatasetOperator", DATASET), ("validate", 0, "ValidateModelOperator", verdicts[0])]
    assert run_notes.note_of_groups(run_notes.by_group(alone)) == "mnist 2026-11-01 · accepted"


def test_the_note_fits_airflows_limit() -> None:
    assert len(run_notes.note_of({"PublishModelOperator": {"reason": "x" * 5000}})) <= 1000


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """A run in a database with Airflow's own table of notes."""
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, create_engine
    from sqlalchemy.orm import Session, registry

    mappers = registry()

    class Run:
        id: int

    mappers.map_imperatively(Run, Table("dag_run", mappers.metadata, Column("id", Integer, primary_key=True)))
    engine = create_engine(f"sqlite:///{tmp_path}/notes.db")
    mappers.metadata.create_all(engine)
    kept = MetaData()
    copy = DagRunNote.__table__.to_metadata(kept)
    copy.constraints = {one for one in copy.constraints if not isinstance(one, ForeignKey)}
    Table("dag_run", kept, Column("id", Integer, primary_key=True))
    copy.create(engine)
    with Session(engine) as session:
        made = Run()
        session.add(made)
        session.flush()
        yield made


def content(run: Any) -> list[tuple[str, str | None]]:
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(run)
    assert session is not None
    table = DagRunNote.__table__
    return [tuple(row) for row in session.execute(select(table.c.content, table.c.user_id))]


def test_a_cleared_run_gets_a_new_note(run: Any) -> None:
    run_notes._write(run, "mnist v1 · rejected")
    run_notes._write(run, "mnist v1 · accepted")
    assert content(run) == [("mnist v1 · accepted", "mlengine")]


def test_a_users_note_is_kept(run: Any) -> None:
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy import insert
    from sqlalchemy.orm import object_session

    session = object_session(run)
    assert session is not None
    session.execute(insert(DagRunNote.__table__).values(dag_run_id=run.id, content="mine", user_id="anna"))
    run_notes._write(run, "mnist v1 · accepted")
    assert content(run) == [("mine", "anna")]


def test_an_error_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("no database")

    monkeypatch.setattr(run_notes, "_results", broken)
    run.dag_id, run.run_id = "d", "r"
    run_notes.on_dag_run_success(run, "")
    assert content(run) == []
