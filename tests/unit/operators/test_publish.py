"""PublishModelOperator: result, events and errors. Rules and pointer: tests/integration/test_champions.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.context import InletEventsAccessor, OutletEventAccessors

from mlengine.assets import champion_asset, champions_alias
from mlengine.champions.history import Action, current
from mlengine.connections import forget_connections
from mlengine.core.errors import ModelError, PublishError, StorageError
from mlengine.core.layout import JobDir
from mlengine.core.xcoms import PublicationXCom
from mlengine.operators.publish import PublishModelOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration
CHAMPION = Asset(name="mnist-champion", uri="x-mlengine://mnist")


@pytest.fixture(autouse=True)
def _no_client_of_another_test() -> Iterator[None]:
    forget_connections()
    yield
    forget_connections()


class FakeContext(dict[str, Any]):
    """The parts of Airflow's context that the operator uses: a task instance of ``run_id``, and real event objects."""

    def __init__(self, run_id: str = "run 1", *, max_tries: int = 2, run_uid: str = "u1") -> None:
        self.pushed: dict[str, Any] = {}
        self.events = OutletEventAccessors()
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=run_id,
            task_id="publish",
            map_index=-1,
            max_tries=max_tries,
            xcom_push=self._push,
        )
        store = SimpleNamespace(get=lambda _: run_uid)
        super().__init__(ti=ti, outlet_events=self.events, task_state_store=store)

    def _push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    @property
    def extra(self) -> dict[str, Any]:
        """The extra of the event of :data:`CHAMPION`."""
        return dict(self.events[CHAMPION].extra)

    @property
    def announced(self) -> list[tuple[str, dict[str, Any]]]:
        """The events that were added to the alias: asset names and extras."""
        added = self.events[champions_alias()].asset_alias_events
        return [(event.dest_asset_key.name, dict(event.extra)) for event in added]


def validated(
    storage: Storage, bucket: str, job_id: str, version: str = "2026-11-01", *, model: str = "mnist"
) -> JobDir:
    job_dir = JobDir.of(bucket, model, job_id)
    storage.write(job_dir.model + "weights.json", job_id.encode())
    operator = ValidateModelOperator(
        task_id="validate",
        job=job_dir.uri,
        validation_level="files",
        require_comparison=False,
        dataset=f"{bucket}/datasets/mnist/{version}",
        gcp_conn_id=None,
    )
    operator.execute(make_context())
    return job_dir


def task(job: Any, **fields: Any) -> PublishModelOperator:
    outlets = [CHAMPION, champions_alias()]
    fields = {"published_by": "dag run 1", "force_by": "", "gcp_conn_id": None, "outlets": outlets, **fields}
    return PublishModelOperator(task_id="publish", job=job, **fields)


def make_context(*args: Any, **more: Any) -> Any:
    return FakeContext(*args, **more)


def publish(job: Any, context: Any = None, **fields: Any) -> PublicationXCom:
    return task(job, **fields).execute(context or make_context())


def test_the_operator_publishes_and_emits_an_event(storage: Storage, bucket: str) -> None:
    publish({"job_dir": validated(storage, bucket, "a").uri})
    job_dir, context = validated(storage, bucket, "b"), make_context()
    result = publish({"job_dir": job_dir.uri, "verdict": "accepted"}, context)
    assert result == {
        "published": True,
        "decision": "published",
        "reason": "b is the champion of mnist, serial 2.",
        "model": "mnist",
        "job_id": "b",
        "job_dir": job_dir.uri,
        "metric": "",
        "metric_value": None,
        "dataset_version": "2026-11-01",
        "champion": job_dir.uri + "/model",
        "serial": 2,
        "previous": 1,
    }
    assert json.loads(json.dumps(result)) == result
    assert context.extra == result
    assert context.announced == [("champion_mnist", result)]
    champion = current(storage, bucket, "mnist")
    assert champion is not None
    assert (champion.job_id, champion.by) == ("b", "dag run 1")
    key = {"dag_id": "dag", "run_id": "run 1", "task_id": "publish", "map_index": -1, "generation": 2}
    assert champion.publisher == {**key, "run_uid": "u1"}


def test_a_job_that_is_already_champion_is_not_announced(storage: Storage, bucket: str) -> None:
    """The job is reused, and another run has published it."""
    job_dir = validated(storage, bucket, "a")
    publish(job_dir.uri)
    context, again = make_context("run 2"), task(job_dir.uri)
    result = again.execute(context)
    assert (result["decision"], result["published"], result["serial"]) == ("already_champion", True, 1)
    assert again.outlets == [], "no asset may be left, as Airflow sends an event for each"
    assert (context.extra, context.announced) == ({}, [])


def test_a_recreated_run_counts_as_another_run(storage: Storage, bucket: str) -> None:
    job_dir, context = validated(storage, bucket, "a"), make_context(run_uid="u2")
    publish(job_dir.uri)
    assert publish(job_dir.uri, context)["decision"] == "already_champion"
    assert context.announced == []


def test_a_retry_of_the_publishing_task_announces_the_champion(storage: Storage, bucket: str) -> None:
    """The first try died after the swap, and Airflow sends events only for a try that succeeds."""
    job_dir = validated(storage, bucket, "a")
    publish(job_dir.uri)
    context, retry = make_context(), task(job_dir.uri)
    result = retry.execute(context)
    assert result["decision"] == "already_champion"
    assert retry.outlets == [CHAMPION, champions_alias()]
    assert (context.extra, context.announced) == (result, [("champion_mnist", result)])


def test_a_cleared_task_announces_an_unannounced_champion(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's events are faked here; tests/e2e/pipelines/test_champion_events.py uses those of a real Airflow."""
    job_dir = validated(storage, bucket, "a")
    other = {**publish(job_dir.uri), "serial": 9}
    sent = [SimpleNamespace(extra=other), SimpleNamespace(extra=None)]
    monkeypatch.setattr(InletEventsAccessor, "_asset_events", sent)
    context = make_context(max_tries=3)
    publish(job_dir.uri, context)
    assert len(context.announced) == 1, "the event of serial 9 must not count"
    sent.append(SimpleNamespace(extra=context.announced[0][1]))
    cleared, context = task(job_dir.uri), make_context(max_tries=4)
    cleared.execute(context)
    assert (cleared.outlets, context.announced) == ([], [])


def test_a_cleared_task_without_access_to_airflow_announces_the_champion(storage: Storage, bucket: str) -> None:
    job_dir, context = validated(storage, bucket, "a"), make_context(max_tries=3)
    publish(job_dir.uri)
    publish(job_dir.uri, context)
    assert len(context.announced) == 1


def test_the_event_is_of_the_model_that_was_published(storage: Storage, bucket: str) -> None:
    """The name may come from a template or a mapped task; the DAG file knows only the alias."""
    for model in ("de_churn", "us_churn"):
        job_dir, context = validated(storage, bucket, "a", model=model), make_context()
        publish(job_dir.uri, context)
        assert [name for name, _ in context.announced] == [champion_asset(model).name]


@pytest.mark.parametrize("name", ["{{ params.country }}_churn", "De_Churn", ""])
def test_an_invalid_model_name_has_no_asset(name: str) -> None:
    with pytest.raises(StorageError, match="not a model name"):
        champion_asset(name)


def test_a_metric_that_is_not_a_number_reaches_neither_xcom_nor_event(storage: Storage, bucket: str) -> None:
    """Otherwise, Airflow would fail the task after it has published the model."""
    job_dir, context = validated(storage, bucket, "a"), make_context()
    report = json.loads(storage.read(job_dir.report))
    storage.write(
        job_dir.report, json.dumps({**report, "metrics": {"roc_auc": float("nan")}, "main_metric": "roc_auc"}).encode()
    )
    result = publish(job_dir.uri, context)
    assert (result["published"], result["metric_value"]) == (True, None)
    json.dumps([result, context.extra], allow_nan=False)


@pytest.mark.parametrize(
    ("on_not_published", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException)]
)
def test_a_model_that_is_not_published_is_not_announced(
    storage: Storage, bucket: str, on_not_published: str, error: type[Exception]
) -> None:
    publish(validated(storage, bucket, "new").uri)
    old, context = validated(storage, bucket, "old", "2026-06-01"), make_context()
    with pytest.raises(error, match=r"not published \(older_dataset\): old was trained on 2026-06-01"):
        publish(old.uri, context, on_not_published=on_not_published)
    assert (context.extra, context.announced) == ({}, [])
    left = context.pushed["return_value"]
    assert (left["published"], left["decision"], left["serial"]) == (False, "older_dataset", 1)
    assert left["champion"].endswith("/mnist/new/model")
    going_on = task(old.uri, on_not_published="continue")
    assert going_on.execute(make_context()) == left
    assert going_on.outlets == [], "nothing was published"


def test_a_model_that_was_not_compared_is_not_published(storage: Storage, bucket: str) -> None:
    publish(validated(storage, bucket, "a").uri)
    job_dir = JobDir.of(bucket, "mnist", "b")
    storage.write(job_dir.model + "weights.json", b"b")
    operator = ValidateModelOperator(
        task_id="validate", job=job_dir.uri, validation_level="files", on_reject="continue", gcp_conn_id=None
    )
    assert operator.execute(make_context())["verdict"] == "not_compared"
    with pytest.raises(AirflowSkipException, match=r"not published \(not_compared\): .* was not compared with .* a:"):
        publish(job_dir.uri)


def test_force_is_recorded_with_name_and_reason(storage: Storage, bucket: str) -> None:
    publish(validated(storage, bucket, "new").uri)
    old = validated(storage, bucket, "old", "2026-06-01")
    with pytest.raises(PublishError, match="requires a name"):
        publish(old.uri, force_reason="new labels are wrong")
    result = publish(old.uri, force_reason="new labels are wrong", force_by="anna")
    assert result["published"]
    champion = current(storage, bucket, "mnist")
    assert champion is not None
    assert (champion.action, champion.by, champion.why) == (Action.FORCED, "anna", "new labels are wrong")


@pytest.mark.parametrize("nothing", ["", " ", None, "None"])
def test_an_empty_field_of_a_form_forces_nothing(storage: Storage, bucket: str, nothing: str | None) -> None:
    """Without native rendering, a template for an empty field gives the string ``None``."""
    publish(validated(storage, bucket, "new").uri)
    old = validated(storage, bucket, "old", "2026-06-01")
    with pytest.raises(AirflowSkipException, match="older_dataset"):
        publish(old.uri, force_reason=nothing, force_by="anna")


def test_a_job_that_was_not_validated_is_refused(storage: Storage, bucket: str) -> None:
    with pytest.raises(ModelError, match="validate the model first"):
        publish(f"{bucket}/mnist/unknown")


def test_every_template_field_is_an_attribute() -> None:
    operator = PublishModelOperator(task_id="publish", job="x")
    assert all(hasattr(operator, name) for name in operator.template_fields)
