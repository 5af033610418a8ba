"""The task group: its tasks, their order, and their arguments."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseSensorOperator, TaskGroup
from airflow.sdk import task as make_task
from jinja2 import Environment, StrictUndefined

from mlengine.assets import champions_alias
from mlengine.core.errors import JobFileError, MlengineError
from mlengine.core.verdict import Check
from mlengine.operators._base import MlengineOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.task_groups import RetrainingTaskGroup
from tests.support.operators import NEEDED

TASKS = tuple(NEEDED)


def group(dag_args: dict[str, Any] | None = None, **options: Any) -> RetrainingTaskGroup:
    with DAG("any", schedule=None, **(dag_args or {})):
        given: dict[str, Any] = {"model": "m", "trainer": "trainer", "job_file": {"trainingInput": {}}, **options}
        return RetrainingTaskGroup(**given)


def whole(dag_args: dict[str, Any] | None = None, **options: Any) -> RetrainingTaskGroup:
    """A group with all optional tasks."""
    return group(dag_args, **{"dataset": "digits", "registries": ["mlflow"], **options})


def tasks(of: RetrainingTaskGroup) -> dict[str, Any]:
    return {task.task_id.removeprefix("retrain."): task for task in of}


def test_tasks_are_attributes_of_the_group() -> None:
    made = whole()
    assert isinstance(made, TaskGroup)
    assert set(tasks(made)) == set(TASKS)
    assert all(getattr(made, name) is task for name, task in tasks(made).items())


def test_tasks_that_are_turned_off_are_none() -> None:
    made = group(publish=False, registries=["mlflow"])
    assert (made.dataset, made.publish, made.register) == (None, None, None)
    assert set(tasks(made)) == {"package", "prepare", "submit", "wait", "validate"}
    assert made.submit.dataset_arg is None


def test_a_task_waits_for_those_whose_output_it_uses() -> None:
    upstream = {
        name: {one.removeprefix("retrain.") for one in task.upstream_task_ids} for name, task in tasks(whole()).items()
    }
    assert upstream == {
        "package": set(),
        "dataset": set(),
        "prepare": {"dataset"},
        "submit": {"package", "dataset", "prepare"},
        "wait": {"submit"},
        "validate": {"wait"},
        "publish": {"validate"},
        "register": {"publish"},
    }


def test_a_champion_is_announced() -> None:
    made = whole()
    assert made.publish is not None
    assert made.publish.outlets == [champions_alias()]


def test_arguments_not_given_to_the_group_are_not_passed_on() -> None:
    """This way, every argument of every operator can come from the DAG's ``default_args``."""
    taken = {
        "group_id", "model", "trainer", "job_file", "publish", "registries", "dataset", "task_args",
        # Templates that connect the tasks.
        "job_id_hint",
    }  # fmt: skip
    for name, task in tasks(whole()).items():
        own = type(task)(**{"task_id": "alone", **NEEDED[name][1]})
        for argument in arguments(type(task)) - taken - {"job", "package", "source", "outlets", "dataset_arg"}:
            assert getattr(task, argument) == getattr(own, argument), f"{name}.{argument}"


def arguments(operator: type) -> set[str]:
    ours = [
        one for one in inspect.getmro(operator) if one.__module__.startswith("mlengine.") and "__init__" in vars(one)
    ]
    names = {name for one in ours for name in inspect.signature(vars(one)["__init__"]).parameters}
    return names - {"self", "kwargs"}


def test_default_args_reach_the_tasks() -> None:
    defaults = {
        "gcp_conn_id": "c",
        "impersonation_chain": "a@p",
        "retry_policy": None,
        "deferrable": True,
        "bucket": "gs://b",
        "project_id": "p",
        "region": "r",
        "backend_options": {"x": 1},
        "max_attempts": 9,
        "queued_timeout_seconds": 5,
        "validation_level": "files",
        "on_not_published": "fail",
        "labels": {"team": "x"},
        "retries": 4,
    }
    for made in (whole({"default_args": defaults}), whole(default_args=defaults)):
        seen = set()
        for name, task in tasks(made).items():
            for argument in (arguments(type(task)) | {"retries"}) & defaults.keys():
                assert getattr(task, argument) == defaults[argument], f"{name}.{argument}"
                seen.add(argument)
        assert seen == defaults.keys()


@pytest.mark.parametrize("where", ["dag", "group"])
def test_default_args_replace_the_defaults_of_the_group(where: str) -> None:
    """This holds for arguments that the group sets itself if they are not given."""
    defaults = {"dataset_arg": "--data", "job_id_hint": "{{ ds }}", "registries": ["mlflow"]}
    options = {"default_args": defaults} if where == "group" else {}
    dag_args = {"default_args": defaults} if where == "dag" else {}
    made = group(dag_args, dataset="digits", **options)
    assert made.register is not None
    found = (made.submit.dataset_arg, made.prepare.job_id_hint, made.register.registries)
    assert found == ("--data", "{{ ds }}", ["mlflow"])
    made = group(dag_args, dataset="digits", dataset_arg="", job_id_hint="x", registries=(), **options)
    assert (made.submit.dataset_arg, made.prepare.job_id_hint, made.register) == ("", "x", None)
    assert group(dataset="digits").submit.dataset_arg == "--dataset"


def test_arguments_of_the_group_take_precedence_over_default_args() -> None:
    defaults = {"gcp_conn_id": "c", "bucket": "gs://b", "max_attempts": 9, "deferrable": True}
    made = whole({"default_args": defaults}, gcp_conn_id=None, bucket="gs://mine", max_attempts=1, deferrable=False)
    assert {task.gcp_conn_id for task in tasks(made).values()} == {None}
    assert {task.bucket for task in tasks(made).values() if hasattr(task, "bucket")} == {"gs://mine"}
    assert (made.submit.max_attempts, made.wait.max_attempts, made.wait.deferrable) == (1, 1, False)


# Argument of the group → value, and the tasks and arguments that it sets.
OPTIONS: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "module": ("trainer.task", [("package", "module"), ("submit", "module")]),
    "requirements": (["numpy"], [("package", "requirements")]),
    "dataset_version": ("v1", [("dataset", "version")]),
    "dataset_arg": ("--data", [("submit", "dataset_arg")]),
    "job_dir_arg": ("--output", [("submit", "job_dir_arg")]),
    "args": (["--x", "1"], [("submit", "args")]),
    "scale_tier": ("BASIC", [("submit", "scale_tier")]),
    "replica_counts": ({"worker": 2}, [("submit", "replica_counts")]),
    "labels": ({"team": "x"}, [("submit", "labels")]),
    "job_id_hint": ("{{ ds }}", [("prepare", "job_id_hint")]),
    "force_retrain": (True, [("submit", "force_retrain")]),
    "max_attempts": (5, [("submit", "max_attempts"), ("wait", "max_attempts")]),
    "backend": ("vertex", [("submit", "backend")]),
    "backend_options": ({"x": 1}, [(name, "backend_options") for name in ("submit", "wait", "validate")]),
    "project_id": ("p", [(name, "project_id") for name in ("submit", "wait", "validate")]),
    "region": ("r", [(name, "region") for name in ("submit", "wait", "validate")]),
    "bucket": ("gs://b", [(name, "bucket") for name in set(TASKS) - {"submit", "wait"}]),
    "gcp_conn_id": ("c", [(name, "gcp_conn_id") for name in TASKS]),
    "impersonation_chain": (["a@p"], [(name, "impersonation_chain") for name in TASKS]),
    "deferrable": (True, [("wait", "deferrable")]),
    "poll_interval_seconds": (2.0, [("wait", "poll_interval_seconds")]),
    "progress_interval_seconds": (3.0, [("wait", "progress_interval_seconds")]),
    "queued_timeout_seconds": (4.0, [("wait", "queued_timeout_seconds")]),
    "running_timeout_seconds": (5.0, [("wait", "running_timeout_seconds")]),
    "retry_backoff_seconds": (6.0, [("wait", "retry_backoff_seconds")]),
    "thresholds": ({"accuracy": 0.9}, [("validate", "thresholds")]),
    "validation_level": ("files", [("validate", "validation_level")]),
    "serving_signature": ({"inputs": {}}, [("validate", "serving_signature")]),
    "extra_checks": ([lambda *_: Check("x", 1, "1", passed=True, message="")], [("validate", "extra_checks")]),
    "scorer": ("churn.score:load", [("validate", "scorer")]),
    "prediction_task": ("binary", [("validate", "prediction_task")]),
    "on_reject": ("fail", [("validate", "on_reject")]),
    "require_comparison": (False, [("validate", "require_comparison")]),
    "validation_time_limit_seconds": (7.0, [("validate", "time_limit_seconds")]),
    "validation_memory_limit_gib": (8.0, [("validate", "memory_limit_gib")]),
    "on_not_published": ("fail", [("publish", "on_not_published")]),
    "registries": (["mlflow", {"kind": "vertex"}], [("register", "registries")]),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_reaches_its_tasks(option: str) -> None:
    value, there = OPTIONS[option]
    made = whole(**{option: value})
    for task, argument in there:
        assert getattr(getattr(made, task), argument) == value


def test_only_listed_arguments_have_no_option_of_the_group() -> None:
    """These arguments need ``task_args``. A new argument of an operator must get an option or be added here."""
    reached = {target for _, there in OPTIONS.values() for target in there}
    reached |= {("package", "source"), ("prepare", "model"), ("dataset", "dataset"), ("submit", "job_file")}
    reached |= {(task, "job") for task in TASKS} | {("submit", "package"), ("submit", "dataset")}
    others = {(name, argument) for name, task in tasks(whole()).items() for argument in arguments(type(task))} - reached
    assert others == {
        ("dataset", "partition_key"),
        ("dataset", "at"),
        ("wait", "mode"),
        ("validate", "dataset"),
        ("validate", "package_uris"),
        ("validate", "model"),
        ("validate", "replace_report"),
        ("publish", "published_by"),
        ("publish", "force_reason"),
        ("publish", "force_by"),
        *((task, "retry_policy") for task in TASKS),
    }
    named = {"group_id", "model", "trainer", "job_file", "dataset", "publish", "task_args"}
    assert OPTIONS.keys() | named == arguments(RetrainingTaskGroup)


@pytest.mark.parametrize(("returned", "hint"), [({"version": "v1"}, "v1"), (None, "None")])
def test_the_job_id_contains_the_dataset_version(returned: dict[str, str] | None, hint: str) -> None:
    """A dataset task that was manually marked successful returns nothing; ``prepare`` rejects ``None``."""
    ti = SimpleNamespace(xcom_pull=lambda task_ids, map_indexes: returned, map_index=-1)
    template = Environment(undefined=StrictUndefined).from_string(whole().prepare.job_id_hint)
    assert template.render(ti=ti) == hint


def test_task_args_are_passed_to_single_tasks() -> None:
    made = whole(task_args={"submit": {"retries": 5, "max_attempts": 2}, "wait": {"pool": "training"}}, max_attempts=1)
    assert (made.submit.retries, made.submit.max_attempts) == (5, 2)
    assert (made.wait.pool, made.wait.max_attempts) == ("training", 1)
    with pytest.raises(MlengineError, match="task_args contains unknown tasks: sumbit"):
        whole(task_args={"sumbit": {}})
    with pytest.raises(MlengineError, match="task_args contains unknown tasks: register"):
        group(task_args={"register": {}})


def test_the_group_works_like_other_task_groups() -> None:
    with DAG("any", schedule=None):
        first = RetrainingTaskGroup("digits", model="a", trainer="t", job_file="j.yaml", tooltip="mine")
        second = RetrainingTaskGroup("letters", model="b", trainer=[Path("t"), "u"], job_file=Path("j.yaml"))
        first >> second
    assert first.tooltip == "mine"
    assert second.package.source == ["t", "u"]
    assert second.submit.job_file == "j.yaml"
    assert first.publish is not None
    assert first.publish.task_id in second.package.upstream_task_ids


def test_arguments_that_are_one_string_are_refused() -> None:
    with pytest.raises(JobFileError, match="args must be a list of strings, not the string '--epochs 5'"):
        group(args="--epochs 5")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("model", "My model", r"retrain\.prepare: not a model name: 'My model'"),
        ("dataset", "My data", r"retrain\.dataset: invalid dataset name: 'My data'"),
        ("replica_counts", {"wroker": 2}, r"retrain\.submit: replica_counts=.*'wroker'"),
        ("labels", ["team"], r"retrain\.submit: labels is not a mapping"),
        ("max_attempts", 0, r"retrain\.submit: max_attempts must be at least 1"),
        ("force_retrain", "perhaps", r"retrain\.submit: force_retrain='perhaps'"),
        ("poll_interval_seconds", 0, r"retrain\.wait: poll_interval_seconds must be at least"),
        ("queued_timeout_seconds", timedelta(hours=1), r"retrain\.wait: queued_timeout_seconds must be a number"),
        ("on_reject", "explode", r"retrain\.validate: invalid on_reject: 'explode'"),
        ("thresholds", {"acuracy": 0.9}, r"retrain\.validate: unknown metric or threshold: acuracy"),
        ("validation_level", "some", r"retrain\.validate: unknown validation_level: 'some'"),
        ("prediction_task", "ranking", r"retrain\.validate: unknown prediction_task: 'ranking'"),
        ("validation_memory_limit_gib", "much", r"retrain\.validate: memory_limit_gib='much'"),
        ("on_not_published", "explode", r"retrain\.publish: invalid on_not_published: 'explode'"),
    ],
)
def test_an_invalid_value_is_an_error_of_the_dag_file(option: str, value: Any, words: str) -> None:
    """Otherwise, the task would fail after the training."""
    with pytest.raises(MlengineError, match=words):
        group(**{option: value})


@pytest.mark.parametrize("name", ["publish", "deferrable"])
@pytest.mark.parametrize("value", ["{{ params.any }}", "False"])
def test_a_flag_that_is_needed_in_the_dag_file_cannot_be_a_string(name: str, value: str) -> None:
    """A string would count as true: each model would be published, whatever the trigger form says."""
    with pytest.raises(MlengineError, match=f"{name} must be True or False, not '{value}'"):
        group(None, **{name: value})


@pytest.mark.parametrize("value", [{"wait": None}, {"wait": ["pool"]}, ["wait"]])
def test_task_args_that_are_no_mappings_are_refused(value: Any) -> None:
    with pytest.raises(MlengineError, match="task_args must contain a mapping for each task"):
        group(task_args=value)


def test_templates_and_outputs_of_tasks_are_not_checked_in_the_dag_file() -> None:
    template = "{{ params.any }}"
    with DAG("any", params={"any": 1}) as dag:
        made = make_task(task_id="make")(lambda: 1)()
        for number, value in enumerate((template, made, dag.param("any"), None, "")):
            names = ("labels", "max_attempts", "queued_timeout_seconds", "thresholds")
            options: dict[str, Any] = dict.fromkeys(names, value)
            nested: dict[str, Any] = {"replica_counts": {"worker": value}, "serving_signature": {"scale": value}}
            RetrainingTaskGroup(f"g{number}", model="m", trainer="t", job_file="j.yaml", **options, **nested)
    group({"jinja_environment_kwargs": {"variable_start_string": "<<"}}, on_reject="<< params.any >>")


@pytest.mark.filterwarnings("ignore:.*was never mapped")
def test_mapped_tasks_are_checked_in_the_dag_file_too() -> None:
    with pytest.raises(MlengineError, match="task validate: invalid on_reject: 'explode'"), DAG("any"):
        ValidateModelOperator.partial(task_id="validate", on_reject="explode")
    with DAG("any"):
        task: Any = ValidateModelOperator.partial(task_id="validate").expand(job=["a"], on_reject=["explode"])
    # The task runs, and fails in its `execute`.
    assert task.unmap({"job": "a", "on_reject": "explode"}).on_reject == "explode"


def test_registries_as_one_string_are_refused() -> None:
    with pytest.raises(MlengineError, match="registries must be a list, not the string 'mlflow'"):
        group(registries="mlflow")


def test_paths_and_registries_can_come_from_another_task() -> None:
    with DAG("d") as dag:
        made = make_task(task_id="make")(lambda: "job.yaml")()
        RetrainingTaskGroup(model="m", trainer=made, job_file=made, registries=made)
    for name in ("package", "submit", "register"):
        assert "make" in dag.get_task(f"retrain.{name}").upstream_task_ids


def test_the_tooltip_contains_only_a_known_name() -> None:
    with DAG("d"):
        made = make_task(task_id="make")(lambda: "churn")()
        assert RetrainingTaskGroup("a", model=made, trainer="t", job_file="j.yaml").tooltip == "retrain a model"
        assert RetrainingTaskGroup("b", model="churn", trainer="t", job_file="j.yaml").tooltip == "retrain churn"


def test_the_group_needs_a_dag() -> None:
    with pytest.raises(RuntimeError, match="inside a dag"):
        RetrainingTaskGroup(model="m", trainer="trainer", job_file="job.yaml")


def test_every_task_has_the_common_base_class() -> None:
    made = tasks(whole())
    assert all(isinstance(task, MlengineOperator) for task in made.values())
    assert isinstance(made["wait"], BaseSensorOperator)
