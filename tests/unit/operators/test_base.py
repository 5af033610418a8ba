"""The sources of an operator's credentials, settings and inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, XComArg, task_group
from airflow.serialization.serialized_objects import DagSerialization

from mlengine.connections import CloudAccess, forget_connections
from mlengine.core.errors import MlengineError, SettingError, XComMissingError
from mlengine.core.thresholds import Thresholds
from mlengine.operators._base import BackendOperator, RetryByCause
from mlengine.operators.prepare import PrepareJobDirOperator
from tests.support.operators import JOB, NEEDED, context, make, render

STAGES = list(NEEDED)
# The arguments that are the output of another task.
OUTPUTS = [
    ("submit", "job"),
    ("submit", "package"),
    ("submit", "dataset"),
    ("wait", "job"),
    ("validate", "job"),
    ("validate", "dataset"),
    ("validate", "package_uris"),
    ("validate", "thresholds"),
    ("validate", "serving_signature"),
    ("wait", "running_timeout_seconds"),
    ("wait", "max_attempts"),
    ("submit", "backend"),
    ("submit", "max_attempts"),
    ("submit", "args"),
    ("submit", "module"),
    ("submit", "scale_tier"),
    ("submit", "replica_counts"),
    ("submit", "labels"),
    ("dataset", "version"),
    ("package", "module"),
    ("package", "requirements"),
    ("publish", "job"),
    ("register", "job"),
]


@pytest.fixture(autouse=True)
def _no_connections() -> Any:
    forget_connections()
    yield
    forget_connections()


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a connection that sets, among others, the bucket and the number of attempts."""
    extra = {"bucket": "gs://of-the-connection", "max_attempts": 7, "backend": "vertex", "local_max_ps": 3}
    monkeypatch.setenv("AIRFLOW_CONN_STAGING", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
    return "staging"


@pytest.mark.parametrize("hint", [None, "None"])
def test_a_missing_version_is_not_put_into_a_job_id(hint: Any) -> None:
    prepare = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint=hint, bucket="gs://bkt")
    with pytest.raises(XComMissingError, match="prepare has no job_id_hint"):
        prepare.execute({})


@pytest.mark.parametrize("stage", STAGES)
def test_default_args_reach_every_operator(stage: str) -> None:
    policy = RetryByCause()
    defaults = {
        "gcp_conn_id": "of_the_dag",
        "impersonation_chain": ["a@p", "b@p"],
        "retry_policy": policy,
        "bucket": "gs://of-the-dag",
        "project_id": "p",
        "region": "r",
        "backend_options": {"x": 1},
        "deferrable": True,
        "poll_interval_seconds": 3,
    }
    with DAG("d", schedule=None, default_args=defaults):
        operator = make(stage)
    taken = {name: getattr(operator, name) for name in defaults if hasattr(operator, name)}
    assert taken == {name: defaults[name] for name in taken}
    assert {"gcp_conn_id", "impersonation_chain", "retry_policy"} <= set(taken)
    assert isinstance(operator, BackendOperator) == ("project_id" in taken)


@pytest.mark.parametrize("stage", STAGES)
def test_without_default_args_the_cause_of_a_failure_decides_about_retries(stage: str) -> None:
    assert isinstance(make(stage).retry_policy, RetryByCause)
    with DAG("d", schedule=None, default_args={"retry_policy": None}):
        assert make(stage).retry_policy is None
    assert make(stage, retry_policy=None).retry_policy is None


@pytest.mark.parametrize("stage", STAGES)
def test_mapped_tasks_have_the_same_retry_policy(stage: str) -> None:
    operator: Any = NEEDED[stage][0]
    needed = NEEDED[stage][1]

    def mapped(**given: Any) -> Any:
        return operator.partial(task_id=stage, **given).expand_kwargs([needed])

    with DAG("d", schedule=None) as dag:
        task = mapped()
    assert isinstance(task.retry_policy, RetryByCause)
    assert task.unmap(needed).retry_policy is task.retry_policy
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task(stage).has_retry_policy
    with DAG("d", schedule=None):
        assert mapped(retry_policy=None).retry_policy is None
    with DAG("d", schedule=None, default_args={"retry_policy": None}):
        assert mapped().retry_policy is None


@pytest.mark.parametrize("stage", STAGES)
def test_the_default_connection_comes_from_the_settings(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__GCP_CONN_ID", "of_the_settings")
    with DAG("d", schedule=None):
        assert render(make(stage), params={}).gcp_conn_id == "of_the_settings"
    for given, used in (("{{ params.conn }}", "mine"), ("{{ params.no or '' }}", "of_the_settings"), (None, None)):
        with DAG("d", schedule=None):
            operator = make(stage, gcp_conn_id=given)
        assert render(operator, params={"conn": "mine", "no": None}).gcp_conn_id == used


@pytest.mark.parametrize(("name", "set_to"), [("default_deferrable", "True"), ("default_deferrable", "False")])
def test_the_default_of_deferrable_comes_from_airflows_configuration(
    name: str, set_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AIRFLOW__OPERATORS__{name.upper()}", set_to)
    assert make("wait").deferrable is (set_to == "True")
    assert make("wait", deferrable=True).deferrable
    assert not make("wait", deferrable=False).deferrable
    assert make("wait").mode == "reschedule"


def test_a_connection_takes_precedence_over_the_configuration(connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", "gs://of-the-settings")
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_MAX_PS", "5")
    access = CloudAccess(connection)
    assert access.bucket() == "gs://of-the-connection"
    assert access.bucket("mine") == "gs://mine"
    assert access.integer("max_attempts") == 7
    assert access.integer("max_attempts", 2) == 2
    assert access.integer("local_max_ps") == 5, "a connection must not change this setting"
    for other in (None, "no_such_connection"):
        assert CloudAccess(other).bucket() == "gs://of-the-settings"


def test_the_backend_of_a_connection_is_in_the_rendered_field(connection: str) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"gcp_conn_id": connection}, "vertex"),
        ({"gcp_conn_id": connection, "backend": "local"}, "local"),
        ({"gcp_conn_id": None}, "local"),
    ]
    for given, backend in cases:
        with DAG("d", schedule=None):
            operator = make("submit", **given)
        assert render(operator, params={}).backend == backend


def test_impersonation_requires_a_connection() -> None:
    for build in (CloudAccess(None, "a@p").storage, CloudAccess(None, "a@p").backend):
        with pytest.raises(SettingError, match="impersonation_chain requires an Airflow connection"):
            build()


def test_project_region_and_impersonation_reach_a_backend_that_knows_them() -> None:
    access = CloudAccess("c", ["a@p"], "my-project", "europe-west4")
    backend: Any = access.backend("vertex")
    assert (backend._project, backend._region) == ("my-project", "europe-west4")
    assert (backend._gcp_conn_id, backend._impersonation) == ("c", ["a@p"])
    assert access.backend("local").name == "local"
    options: Any = CloudAccess("c", None, "one", None, {"project": "other"}).backend("vertex")
    assert options._project == "other"


@pytest.mark.parametrize(("stage", "field"), OUTPUTS)
def test_a_missing_output_is_named_with_its_task(stage: str, field: str) -> None:
    with DAG("d", schedule=None):
        upstream = PrepareJobDirOperator(task_id="upstream", model="m")
        given: dict[str, Any] = {"job_file": {"trainingInput": {"pythonModule": "t"}}} if stage == "submit" else {}
        if stage == "wait":
            given["deferrable"] = True
        if stage in {"dataset", "package"}:
            given["bucket"] = "gs://bkt"
        elif field != "job":
            handle = {"backend": "local", "name": "key-1", "job_id": "job", "attempt": 1, "job_dir": JOB}
            given["job"] = {"submit": {"model": "m", "job_dir": JOB}, "wait": handle}.get(stage, JOB)
        operator = make(stage, gcp_conn_id=None, **{**given, field: upstream.output})
    values = context(operator.dag, {})
    operator.render_template_fields(values, operator.dag.get_template_env())
    with pytest.raises(XComMissingError) as error:
        operator.execute(values)
    assert f"{stage} has no {field}: 'upstream' returned nothing" in error.value.message
    assert "clear the task" in error.value.hint
    assert not error.value.retryable


def test_a_missing_output_in_a_list_or_mapping_is_named_with_its_task() -> None:
    """Otherwise, a training would get the argument ``None``, and a threshold would be disabled."""
    with DAG("d", schedule=None):
        upstream = PrepareJobDirOperator(task_id="upstream", model="m").output
        submit = make("submit", gcp_conn_id=None, job={"model": "m", "job_dir": JOB}, args=["--epochs", upstream])
        submit.job_file = {"trainingInput": {"pythonModule": "t"}}
        validate = make("validate", gcp_conn_id=None, thresholds={"slices": [{"by": "x", "min": upstream}]})
    for operator, field in ((submit, "args"), (validate, "thresholds")):
        with pytest.raises(XComMissingError, match=f"has no {field}: 'upstream' returned nothing"):
            render(operator, params={}).execute(context(operator.dag, {}))


def test_a_missing_value_of_a_mapped_group_is_not_a_missing_output() -> None:
    @task_group
    def tenant(thresholds: Any) -> None:
        make("validate", thresholds=thresholds)

    with DAG("d", schedule=None) as dag:
        tenants = PrepareJobDirOperator(task_id="tenants", model="m").output
        tenant.expand_kwargs(tenants)
    values = context(dag, {}, {"tenants": [{"thresholds": None}]}, map_index=0)
    operator: Any = dag.get_task("tenant.validate")
    operator.render_template_fields(values, dag.get_template_env())
    assert operator.parsed("thresholds") == Thresholds()


@pytest.mark.parametrize("stage", ["submit", "wait", "validate", "publish", "register"])
@pytest.mark.parametrize("value", [None, "", "None", {}, {"unrelated": 1}, "text", 7, ["gs://bkt/m/j"]])
def test_a_missing_job_is_a_clear_error(stage: str, value: Any) -> None:
    with DAG("d", schedule=None):
        operator = make(stage, gcp_conn_id=None, job=value)
    with pytest.raises(MlengineError, match="job"):
        operator.execute(context(operator.dag, {}))


def test_a_missing_key_of_an_output_is_named() -> None:
    with DAG("d", schedule=None):
        upstream = PrepareJobDirOperator(task_id="upstream", model="m")
        operator = make("publish", gcp_conn_id=None, job=XComArg(upstream, "job"))
    values = context(operator.dag, {})
    with pytest.raises(Exception, match="upstream"):
        operator.render_template_fields(values, operator.dag.get_template_env())


def test_paths_are_relative_to_the_dag_file(tmp_path: Path) -> None:
    with DAG("d", schedule=None) as dag:
        operator = make("package")
    dag.fileloc = str(tmp_path / "dag.py")
    assert operator.relative_to_dag("trainer") == tmp_path / "trainer"
    assert operator.relative_to_dag(Path("/absolute")) == Path("/absolute")
    assert operator.relative_to_dag("gs://bucket/trainer.tar.gz") == "gs://bucket/trainer.tar.gz"
    assert make("package").relative_to_dag("trainer") == Path("trainer")


@pytest.mark.parametrize("where", ["default_args", "argument"])
def test_a_timeout_of_the_dag_limits_the_wait(where: str) -> None:
    given = {"timeout": 60.0}
    with DAG("d", schedule=None, default_args=given if where == "default_args" else {}):
        wait = make("wait", **(given if where == "argument" else {}))
    assert wait._own_timeout
    assert wait.timeout == 60.0
    assert not make("wait")._own_timeout


def test_the_polling_interval_of_a_wait_in_a_worker(connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interval(**given: Any) -> float:
        seconds: float = make("wait", gcp_conn_id=connection, **given)._poke_interval()
        return seconds

    assert interval() == 60.0, "Airflow's own: a reschedule costs the scheduler more than a poll"
    assert interval(poke_interval=30.0) == 30.0
    assert interval(poll_interval_seconds=2.0, poke_interval=30.0) == 2.0
    monkeypatch.setenv("AIRFLOW__MLENGINE__POLL_INTERVAL_SECONDS", "9")
    assert interval() == 9.0
    assert interval(poke_interval=30.0) == 30.0
    with DAG("d", schedule=None, default_args={"poke_interval": 20.0}):
        assert interval() == 20.0
