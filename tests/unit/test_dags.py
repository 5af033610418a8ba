"""Every DAG file of the project: fast import without errors, a valid form, and serialisation.

A separate process with an empty AIRFLOW_HOME reads the files, as the DAG processor does.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
# Values with which no run of the MNIST DAGs may start.
WRONG = {
    "dataset_version": "../x",
    "max_steps": "many",
    "force_retrain": "perhaps",
    "backend": "moon",
    "scale_tier": "HUGE",
    "workers": -1,
    "parameter_servers": 1.5,
    "min_accuracy": 98,
    "min_class_accuracy": None,
    "tolerance": -0.1,
    "batch_size": 0,
    "learning_rate": 0,
    "seed": "a",
}
# CPU seconds per file, without Airflow itself, which the DAG processor imports once. Google's Vertex operators alone
# take 10 s.
PARSE_SECONDS = 1.5

_READ = """
import json, sys, time
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.param import process_params
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
began = time.process_time()
wrong = json.loads(sys.argv[2])
def refusal(dag, conf):
    # What a task of the run says: it checks the values again before it does anything.
    try:
        process_params(dag, dag.tasks[0], conf, suppress_exception=False)
    except ParamValidationError as error:
        return str(error)
bag = DagBag(dag_folder=sys.argv[1])
seconds = time.process_time() - began
dags = {}
for dag_id, dag in bag.dags.items():
    stored = DagSerialization.to_dict(dag)
    json.dumps(stored)
    again = DagSerialization.from_dict(stored)
    dags[dag_id] = {
        "file": dag.fileloc,
        "tasks": sorted(task.task_id for task in dag.tasks),
        "tasks_again": sorted(again.task_dict),
        "edges": sorted([task.task_id, below] for task in dag.tasks for below in task.downstream_task_ids),
        "params": {name: dag.params.get_param(name).dump() for name in dag.params},
        "submit": {
            name: getattr(task, name)
            for task in dag.tasks
            if task.task_id == "retrain.submit"
            for name in ("args", "backend", "scale_tier", "replica_counts")
        },
        "refused": {name: refusal(dag, {name: value}) for name, value in wrong.items()} if len(dag.params) > 5 else {},
        "doc": dag.doc_md,
        "catchup": dag.catchup,
    }
heavy = [name for name in ("google.cloud.storage", "tensorflow", "numpy", "requests") if name in sys.modules]
errors = {str(file): text for file, text in bag.import_errors.items()}
files = {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats}
print(json.dumps({"errors": errors, "dags": dags, "seconds": seconds, "files": files, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("airflow")
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{ROOT / 'plugins'}:{DAGS}",
    }
    command = [sys.executable, "-c", _READ, str(DAGS), json.dumps(WRONG)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_all_files_import(read: dict[str, Any]) -> None:
    assert read["errors"] == {}
    assert set(read["dags"]) >= {
        "mnist_retraining",
        "mnist_on_new_version",
        "hello_trainer",
        "flights_retraining",
        "flights_xgboost",
        "churn_monthly",
    }
    files = {Path(dag["file"]).name for dag in read["dags"].values()}
    assert files == {path.name for path in DAGS.glob("*.py")} - {"mnist_pipeline.py", "flights_pipeline.py"}


def test_parsing_is_cheap(read: dict[str, Any]) -> None:
    sys.stdout.write(f"parsed in {read['seconds']:.2f} s: {read['files']}\n")
    assert read["heavy"] == []
    assert read["seconds"] < PARSE_SECONDS * len(read["dags"])


def test_dags_survive_serialization(read: dict[str, Any]) -> None:
    for dag in read["dags"].values():
        assert dag["tasks_again"] == dag["tasks"]


def test_every_parameter_has_a_form(read: dict[str, Any]) -> None:
    """Each parameter has a title, a description, and a valid default, which scheduled runs use."""
    from jsonschema import Draft202012Validator

    params = read["dags"]["mnist_retraining"]["params"]
    assert {"dataset_version", "max_steps", "batch_size", "min_accuracy", "tolerance"} <= set(params)
    for name, param in itertools.chain(*(dag["params"].items() for dag in read["dags"].values())):
        Draft202012Validator.check_schema(param["schema"])
        assert Draft202012Validator(param["schema"]).is_valid(param["value"]), name
        assert param["schema"].get("title"), name
        assert param["description"], name


def test_rarely_changed_parameters_are_in_folded_sections(read: dict[str, Any]) -> None:
    params = read["dags"]["mnist_retraining"]["params"]
    open_fields = [name for name, param in params.items() if "section" not in param["schema"]]
    assert open_fields == ["dataset_version", "max_steps", "force_retrain"]


@pytest.mark.parametrize("dag_id", ["mnist_retraining", "mnist_on_new_version"])
def test_an_invalid_value_is_also_refused_by_the_run(read: dict[str, Any], dag_id: str) -> None:
    """The form and Airflow's API check the schema; a run that was created in another way checks it too."""
    assert set(WRONG) == set(read["dags"][dag_id]["params"])
    for name, refusal in read["dags"][dag_id]["refused"].items():
        assert f"param {name}" in (refusal or ""), name


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"backend": "", "scale_tier": "", "replica_counts": {"worker": "2", "ps": "1"}}),
        (
            {"scale_tier": "STANDARD_1", "backend": "vertex"},
            {"backend": "vertex", "scale_tier": "STANDARD_1", "replica_counts": {"worker": "", "ps": ""}},
        ),
        ({"workers": 0, "parameter_servers": 0}, {"replica_counts": {"worker": "0", "ps": "0"}}),
    ],
)
def test_values_of_the_form_are_submitted(
    read: dict[str, Any], chosen: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A scale tier replaces the replica counts, because the two together would be contradictory."""
    from jinja2 import Template

    dag = read["dags"]["mnist_retraining"]
    params = {name: param["value"] for name, param in dag["params"].items()} | chosen
    written = {**dag["submit"], "args": dag["submit"]["args"][:-2]}  # without --dataset, which the run resolves
    submit = json.loads(Template(json.dumps(written)).render(params=params))
    assert {name: submit[name] for name in expected} == expected
    given = dict(zip(submit["args"][::2], submit["args"][1::2], strict=True))
    assert (given["--max_steps"], given["--learning_rate"]) == ("1000", "0.0002")


@pytest.mark.parametrize(
    "dag_id", ["mnist_retraining", "mnist_on_new_version", "flights_retraining", "flights_xgboost"]
)
def test_the_stages_are_in_order(read: dict[str, Any], dag_id: str) -> None:
    dag = read["dags"][dag_id]
    stages = ["prepare", "submit", "wait", "validate", "publish"]
    edges = {tuple(edge) for edge in dag["edges"]}
    for first, second in itertools.pairwise(stages):
        assert (f"retrain.{first}", f"retrain.{second}") in edges
    assert ("retrain.package", "retrain.submit") in edges
    assert ("retrain.dataset", "retrain.prepare") in edges
    assert dag["catchup"] is False


def test_each_dag_has_a_description(read: dict[str, Any]) -> None:
    for dag_id, dag in read["dags"].items():
        assert dag["doc"], dag_id
