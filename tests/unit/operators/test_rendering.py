"""Rendered template fields are strings, also in DAGs with native rendering, and integer fields are integers."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG, Param

from mlengine import settings
from mlengine.core.errors import JobFileError
from mlengine.core.spec import Role
from mlengine.operators import submit
from mlengine.operators.prepare import PrepareJobDirOperator
from tests.support.operators import NEEDED, context, fields, make, render

TEXTS = ["20261101", "1.10", "007", "1e5", "True", "None ", "[1, 2]", "{'a': 1}", "2026-11-01", "0x1F", "'quoted'"]


@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
@pytest.mark.parametrize(("stage", "field"), fields())
def test_strings_are_not_converted(stage: str, field: str, native: bool) -> None:
    for text in TEXTS:
        with DAG("d", schedule=None, render_template_as_native_obj=native):
            operator = make(stage, **{field: "{{ params.value }}"})
        assert getattr(render(operator, params={"value": text}), field) == text


@pytest.mark.parametrize(("stage", "field"), fields())
def test_numbers_in_string_fields_become_strings(stage: str, field: str) -> None:
    for number, text in ((20261101, "20261101"), (1.5, "1.5"), (0, "0")):
        with DAG("d", schedule=None, render_template_as_native_obj=True):
            operator = make(stage, **{field: "{{ params.value }}"})
        assert getattr(render(operator, params={"value": number}), field) == text


@pytest.mark.parametrize(("stage", "field"), [one for one in fields() if one[1] not in {"gcp_conn_id", "backend"}])
def test_lists_mappings_and_none_are_not_converted(stage: str, field: str) -> None:
    for value in ({"a": 1, "b": ["x"]}, ["x", 1.5], None):
        with DAG("d", schedule=None, render_template_as_native_obj=True):
            operator = make(stage, **{field: "{{ params.value }}"})
        assert getattr(render(operator, params={"value": value}), field) == value


@pytest.mark.parametrize(("stage", "field"), fields())
def test_numbers_returned_by_other_tasks_become_strings(stage: str, field: str) -> None:
    with DAG("d", schedule=None):
        upstream = PrepareJobDirOperator(task_id="upstream", model="m")
        operator = make(stage, **{field: upstream.output})
    assert getattr(render(operator, params={}, xcoms={"upstream": 20261101}), field) == "20261101"


@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
def test_integers_of_a_form_stay_integers(native: bool) -> None:
    params = {
        "steps": Param(1, type="integer"),
        "maybe": Param(None, type=["null", "integer"]),
        "rate": Param(0.1, type="number"),
        "layers": Param([1], type="array", items={"type": "integer"}),
        "more": Param({"n": 1}, type="object", properties={"n": {"type": "integer"}}),
        "either": Param(None, anyOf=[{"type": "integer"}, {"type": "null"}]),
        "number": Param(1.0, anyOf=[{"type": "integer"}, {"type": "number"}]),
        "counts": Param({"a": 1}, type="object", additionalProperties={"type": "integer"}),
        "pair": Param([1, 0.5], type="array", prefixItems=[{"type": "integer"}, {"type": "number"}]),
    }
    words = ["--steps", "{{ params.steps }}", "--maybe={{ params.maybe }}", "{{ params.rate }}"]
    nested = ["{{ params.layers | join(',') }}", "{{ params['more'].n }}", "{{ params.either }}", "{{ params.number }}"]
    nested += ["{{ params.counts.a }}", "{{ params.pair | join(',') }}"]
    with DAG("d", schedule=None, params=params, render_template_as_native_obj=native):
        operator = make(
            "submit",
            args=[*words, *nested],
            replica_counts={"worker": "{{ params.steps }}", "ps": "{{ params.maybe }}"},
        )
    given = {"steps": 400.0, "maybe": 2.0, "rate": 1.0, "layers": [128.0, 64.0], "more": {"n": 3.0}}
    given |= {"either": 4.0, "number": 5.0, "counts": {"a": 6.0}, "pair": [7.0, 8.0]}
    render(operator, params=given)
    assert operator.args == ["--steps", "400", "--maybe=2", "1.0", "128,64", "3", "4", "5.0", "6", "7,8.0"]
    assert operator.replica_counts == {"worker": "400", "ps": "2"}


def test_a_count_can_be_a_float_without_fraction() -> None:
    assert submit._counts({"worker": "2.0", "ps": 1.0, "evaluator": "", "chief": "1"}) == {
        Role.WORKER: 2,
        Role.PS: 1,
        Role.CHIEF: 1,
    }
    for wrong in ("2.5", "two", "nan", "inf"):
        with pytest.raises(JobFileError, match="is invalid"):
            submit._counts({"worker": wrong})


def test_mapped_tasks_are_rendered_in_the_same_way() -> None:
    with DAG("d", schedule=None, params={"value": "1.20"}, render_template_as_native_obj=True) as dag:
        mapped = PrepareJobDirOperator.partial(task_id="prepare", model="{{ params.value }}").expand(
            job_id_hint=[20261101, "1.10"]
        )
    hints = []
    for index in (0, 1):
        values = context(dag, {}, map_index=index)
        values["ti"].task = mapped
        values["expanded_ti_count"] = 2
        mapped.render_template_fields(values, dag.get_template_env())
        rendered: Any = values["task"]
        hints.append((rendered.model, rendered.job_id_hint))
    assert hints == [("1.20", "20261101"), ("1.20", "1.10")]


@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
def test_an_undefined_name_is_an_error(native: bool) -> None:
    with DAG("d", schedule=None, render_template_as_native_obj=native, template_undefined=jinja2.StrictUndefined):
        operator = make("prepare", model="{{ params.value }}")
    with pytest.raises(jinja2.UndefinedError):
        render(operator, params={})


@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
def test_numbers_of_submit_and_wait_are_templates(native: bool) -> None:
    names = ["max_attempts", "queued_timeout_seconds", "running_timeout_seconds", "retry_backoff_seconds"]
    names += ["poll_interval_seconds", "progress_interval_seconds"]
    for value in (7, 7.0, "7", None, ""):
        with DAG("d", schedule=None, render_template_as_native_obj=native):
            wait = render(
                make("wait", **dict.fromkeys(names, "{{ params.value }}")),
                params={"value": value},
            )
            submit_task = render(make("submit", max_attempts="{{ params.value }}"), params={"value": value})
        for task, name in [(submit_task, "max_attempts"), *[(wait, name) for name in names]]:
            expected = float(settings.SETTINGS[name].default) if value in (None, "") else 7.0
            assert task.access.number(name, getattr(task, name)) == expected
        assert wait._poke_interval() == (wait.poke_interval if value in (None, "") else 7.0)


@pytest.mark.parametrize("stage", NEEDED)
def test_strings_are_templates(stage: str) -> None:
    operator, needed = NEEDED[stage]
    strings = {name for name, value in vars(make(stage)).items() if isinstance(value, str) and name in needed}
    assert strings <= set(operator.template_fields)  # type: ignore[attr-defined]
