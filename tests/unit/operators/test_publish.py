"""The publication stage: what it returns, announces and raises; the pointer: tests/integration/test_champions.py."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlengine.champions.history import Action, current
from mlengine.connections import forget_connections
from mlengine.core.errors import ModelError, PublishError
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


class Context(dict[str, Any]):
    """What of Airflow's context the operator touches."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        events: dict[Asset, Any] = defaultdict(lambda: SimpleNamespace(extra=self.extra))
        super().__init__(ti=SimpleNamespace(xcom_push=self._push), outlet_events=events)

    def _push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def validated(storage: Storage, bucket: str, job_id: str, version: str = "2026-11-01") -> JobDir:
    job_dir = JobDir.of(bucket, "mnist", job_id)
    storage.write(job_dir.model + "weights.json", job_id.encode())
    dataset = f"{bucket}/datasets/mnist/{version}"
    operator = ValidateModelOperator(
        task_id="validate", job=job_dir.uri, validation_level="files", dataset=dataset, gcp_conn_id=None
    )
    operator.execute(Context())
    return job_dir


def publish(job: Any, context: Context | None = None, **fields: Any) -> PublicationXCom:
    fields = {"published_by": "dag run 1", "force_by": "", "gcp_conn_id": None, "outlets": [CHAMPION], **fields}
    return PublishModelOperator(task_id="publish", job=job, **fields).execute(context or Context())


def test_it_publishes_and_announces(storage: Storage, bucket: str) -> None:
    publish({"job_dir": validated(storage, bucket, "a").uri})
    job_dir, context = validated(storage, bucket, "b"), Context()
    result = publish({"job_dir": job_dir.uri, "verdict": "accepted"}, context)
    assert result == {
        "published": True,
        "decision": "published",
        "reason": "b is the champion of mnist, serial 2.",
        "model": "mnist",
        "job_id": "b",
        "job_dir": job_dir.uri,
        "accuracy": None,
        "dataset_version": "2026-11-01",
        "champion": job_dir.uri + "/model",
        "serial": 2,
        "previous": 1,
    }
    assert json.loads(json.dumps(result)) == result
    assert context.extra == result
    champion = current(storage, bucket, "mnist")
    assert champion is not None
    assert (champion.job_id, champion.by) == ("b", "dag run 1")
    again = publish(job_dir.uri)
    assert (again["decision"], again["published"], again["serial"]) == ("already_champion", True, 2)


def test_an_accuracy_that_is_not_a_number_reaches_neither_xcom_nor_event(storage: Storage, bucket: str) -> None:
    """Airflow would fail the task after it has published."""
    job_dir, context = validated(storage, bucket, "a"), Context()
    report = json.loads(storage.read(job_dir.report))
    storage.write(job_dir.report, json.dumps({**report, "figures": {"accuracy": float("nan")}}).encode())
    result = publish(job_dir.uri, context)
    assert (result["published"], result["accuracy"]) == (True, None)
    json.dumps([result, context.extra], allow_nan=False)


@pytest.mark.parametrize(
    ("on_not_published", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException)]
)
def test_what_is_not_published_is_not_announced(
    storage: Storage, bucket: str, on_not_published: str, error: type[Exception]
) -> None:
    publish(validated(storage, bucket, "new").uri)
    old, context = validated(storage, bucket, "old", "2026-06-01"), Context()
    with pytest.raises(error, match=r"not published \(older_dataset\): old was trained on 2026-06-01"):
        publish(old.uri, context, on_not_published=on_not_published)
    assert context.extra == {}
    left = context.pushed["return_value"]
    assert (left["published"], left["decision"], left["serial"]) == (False, "older_dataset", 1)
    assert left["champion"].endswith("/mnist/new/model")
    assert publish(old.uri, on_not_published="continue") == left


def test_force_is_kept_with_name_and_reason(storage: Storage, bucket: str) -> None:
    publish(validated(storage, bucket, "new").uri)
    old = validated(storage, bucket, "old", "2026-06-01")
    with pytest.raises(PublishError, match="force needs a name"):
        publish(old.uri, force_reason="new labels are wrong")
    result = publish(old.uri, force_reason="new labels are wrong", force_by="anna")
    assert result["published"]
    champion = current(storage, bucket, "mnist")
    assert champion is not None
    assert (champion.action, champion.by, champion.why) == (Action.FORCED, "anna", "new labels are wrong")


def test_a_job_that_was_not_validated_is_refused(storage: Storage, bucket: str) -> None:
    with pytest.raises(ModelError, match="validate the model first"):
        publish(f"{bucket}/mnist/nobody")


def test_every_template_field_is_an_attribute() -> None:
    operator = PublishModelOperator(task_id="publish", job="x")
    assert all(hasattr(operator, name) for name in operator.template_fields)
