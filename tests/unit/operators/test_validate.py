"""ValidateModelOperator: result, log and errors. The checks are tested in tests/integration/test_validation.py.

The models are files that are not a SavedModel, so TensorFlow is not needed.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlengine.connections import forget_connections
from mlengine.core.errors import MlengineError, ModelError
from mlengine.core.job import JobRecord
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Check, Decision
from mlengine.core.xcoms import ValidationXCom
from mlengine.links.report import ReportLink, browser_url
from mlengine.operators.validate import ValidateModelOperator
from mlengine.promotion.publish import publish
from mlengine.storage.client import Storage
from mlengine.validation.report import load_report
from tests.support.log_recorder import LogRecorder

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _no_client_of_another_test() -> Iterator[None]:
    forget_connections()
    yield
    forget_connections()


class TaskInstance:
    """A task instance that records the XComs that were pushed."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    handler = LogRecorder()
    log = logging.Logger("test")
    log.addHandler(handler)
    monkeypatch.setattr(ValidateModelOperator, "log", log)
    return handler.lines


@pytest.fixture
def job(storage: Storage, bucket: str) -> JobDir:
    """A finished job whose trainer does not use TensorFlow."""
    job_dir = JobDir.of(bucket, "hello", "hello_1")
    record = JobRecord(
        key="k",
        job_id="hello_1",
        model="hello",
        backend="local",
        spec={"package_uris": ["gs://bkt/hello.tar.gz"], "module": "hello.task", "args": ["--max_steps", "3"]},
        inputs={"dataset": {}, "package": {"digest": "abc"}},
    )
    storage.write(job_dir.claim, record.to_bytes())
    storage.write(job_dir.model + ".keep", b"")
    storage.write(job_dir.model + "weights.json", b"{}")
    return job_dir


def context(ti: TaskInstance) -> Any:
    return {"ti": ti}


def run(job: Any, **fields: Any) -> tuple[ValidationXCom, TaskInstance]:
    ti = TaskInstance()
    fields = {"validation_level": "files", "gcp_conn_id": None, **fields}
    return ValidateModelOperator(task_id="validate", job=job, **fields).execute(context(ti)), ti


def too_small(model: Path, figures: object) -> Check:
    size = (model / "weights.json").stat().st_size
    return Check("weights", size, "≥ 100", passed=size >= 100, message=f"The weights have {size} bytes.")


def test_a_metric_that_is_not_a_number_does_not_reach_xcom(
    job: JobDir, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ValidateModelOperator._validate

    def recorded_validate(self: ValidateModelOperator, *arguments: Any) -> Any:
        return replace(original(self, *arguments), metrics={"f1": float("nan")}, main_metric="f1")

    monkeypatch.setattr(ValidateModelOperator, "_validate", recorded_validate)
    result, _ = run(job.uri)
    assert result["metric_value"] is None
    json.dumps(result, allow_nan=False)


def test_the_operator_returns_the_verdict_and_the_report(storage: Storage, job: JobDir, logged: list[str]) -> None:
    result, ti = run({"job_dir": job.uri, "job_id": "hello_1"})
    assert result == {
        "verdict": "first",
        "metric": "",
        "metric_value": None,
        "reasons": ["There is no champion yet; all 2 checks passed."],
        "report": job.report,
        "page": job.page,
        "model": "hello",
        "model_uri": job.uri + "/model",
        "job_id": "hello_1",
        "job_dir": job.uri,
        "champion": None,
    }
    assert json.loads(json.dumps(result)) == result
    assert ti.pushed == {}
    assert logged[-2:] == ["verdict: first", "  There is no champion yet; all 2 checks passed."]
    assert [line.split() for line in logged if line.split()[:1] == ["check"]] == [["check", "value", "threshold"]]
    report = load_report(storage, job)
    assert report.verdict.decision is Decision.FIRST
    assert report.lineage["package_uris"] == ["gs://bkt/hello.tar.gz"]
    assert report.lineage["args"] == ["--max_steps", "3"]
    assert report.lineage["inputs"]["package"] == {"digest": "abc"}
    assert b"hello_1" in storage.read(job.page)


@pytest.mark.parametrize(
    ("on_reject", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException), ("continue", None)]
)
def test_a_rejection_skips_fails_or_continues_and_logs_the_reasons(
    storage: Storage, job: JobDir, logged: list[str], on_reject: str, error: type[Exception] | None
) -> None:
    ti = TaskInstance()
    operator = ValidateModelOperator(
        task_id="validate",
        job=job.uri,
        validation_level="files",
        extra_checks=[too_small],
        on_reject=on_reject,
        gcp_conn_id=None,
    )
    if error is None:
        result = operator.execute(context(ti))
    else:
        with pytest.raises(error, match="rejected: The weights have 2 bytes"):
            operator.execute(context(ti))
        result = ti.pushed["return_value"]
    assert (result["verdict"], result["reasons"]) == ("rejected", ["The weights have 2 bytes."])
    assert logged[-2:] == ["verdict: rejected", "  The weights have 2 bytes."]
    assert load_report(storage, job).verdict.decision is Decision.REJECTED
    assert not storage.exists(f"{job.uri.rsplit('/', 1)[0]}/champion.json")


def champion(storage: Storage, bucket: str) -> None:
    """Publish a job of another run as the champion of the model ``hello``."""
    job_dir = JobDir.of(bucket, "hello", "hello_0")
    storage.write(job_dir.model + "weights.json", b"{}")
    run(job_dir.uri)
    publish(storage, bucket, load_report(storage, job_dir), by="test")


@pytest.mark.parametrize("on_reject", ["skip", "fail", "continue"])
def test_a_model_that_is_not_compared_with_the_champion_is_not_accepted(
    storage: Storage, bucket: str, job: JobDir, logged: list[str], on_reject: str
) -> None:
    champion(storage, bucket)
    ti = TaskInstance()
    operator = ValidateModelOperator(
        task_id="validate", job=job.uri, validation_level="files", on_reject=on_reject, gcp_conn_id=None
    )
    if on_reject == "continue":
        result = operator.execute(context(ti))
    else:
        error = {"skip": AirflowSkipException, "fail": AirflowFailException}[on_reject]
        with pytest.raises(
            error,
            match="not_compared: The model was not compared with the champion hello_0: The model is not run",
        ):
            operator.execute(context(ti))
        result = ti.pushed["return_value"]
    assert result["verdict"] == "not_compared"
    assert result["champion"] == "hello_0"
    assert logged[-3] == "verdict: not_compared"
    assert "Not compared with the champion" in storage.read(job.page).decode()


@pytest.mark.parametrize("said", [False, "False", "false", "no", "0"])
def test_a_dag_can_turn_off_the_comparison(storage: Storage, bucket: str, job: JobDir, said: Any) -> None:
    champion(storage, bucket)
    result, _ = run(job.uri, require_comparison=said)
    assert result["verdict"] == "accepted"
    assert result["reasons"][-1].endswith("No comparison is required.")
    assert "hello_0" in result["reasons"][-1]


def test_a_report_is_not_replaced_by_one_with_fewer_checks(storage: Storage, job: JobDir) -> None:
    """This protects a job that is given by its URI, where it is unknown whether this DAG decides about its checks."""
    storage.write(job.model + "weights.json", b"x" * 100)
    run(job.uri, extra_checks=[too_small])
    with pytest.raises(ModelError, match="has checks that this validation does not make: extra check too_small"):
        run(job.uri)
    assert load_report(storage, job).extra_checks[0]["name"] == "too_small"
    run(job.uri, replace_report=True)
    assert load_report(storage, job).extra_checks == ()
    run(job.uri, extra_checks=[too_small])
    run({"job_dir": job.uri, "decision": "fresh_submit"})
    assert load_report(storage, job).extra_checks == (), "the checks of the DAG must be used for the run's own job"


def test_a_report_about_other_files_is_replaced(storage: Storage, job: JobDir) -> None:
    storage.write(job.model + "weights.json", b"x" * 100)
    run(job.uri, extra_checks=[too_small])
    storage.write(job.model + "weights.json", b"y" * 100)
    result, _ = run(job.uri)
    assert result["verdict"] == "first"


def test_a_job_without_a_model_is_rejected(storage: Storage, job: JobDir) -> None:
    storage.delete(job.model + "weights.json")
    with pytest.raises(AirflowSkipException, match="there is no model in"):
        run(job.uri)
    storage.write(job.model + "weights.json", b"{}")
    with pytest.raises(AirflowSkipException, match=r"no model of a known kind.*weights\.json"):
        run(job.uri, validation_level="signature")


def test_strings_from_a_trigger_form_are_accepted(job: JobDir) -> None:
    with pytest.raises(AirflowSkipException, match="has 2 bytes; the maximum is 1 byte"):
        run(job.uri, thresholds={"accuracy": "0.97", "worst_class_recall": "", "size_bytes": "1"})
    result, _ = run(job.uri, thresholds={"size_bytes": ""}, package_uris="", dataset="", model="", bucket="")
    assert result["verdict"] == "first"


def test_package_uris_can_be_one_uri_but_not_a_list_in_a_string(job: JobDir) -> None:
    result, _ = run(job.uri, package_uris="gs://bkt/hello.tar.gz")
    assert result["verdict"] == "first"
    with pytest.raises(MlengineError, match="package_uris must be a list of URIs"):
        run(job.uri, package_uris="['gs://bkt/hello.tar.gz']")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"thresholds": {"acuracy": 1}}, "unknown metric or threshold: acuracy"),
        ({"validation_level": "some"}, "unknown validation_level"),
        ({"on_reject": "explode"}, "invalid on_reject: 'explode'"),
        ({"require_comparison": "perhaps"}, "require_comparison='perhaps'"),
        (
            {"serving_signature": {"outputs": {"y": "float32"}, "output": "x"}},
            "output='x' is not in the serving signature",
        ),
    ],
)
def test_a_wrong_argument_is_refused_before_any_download(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(MlengineError, match=words):
        run("gs://no-such-bucket/hello/hello_1", **fields)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("", "validate has no job"),
        (None, "validate has no job"),
        ("hello_1", "not a job: 'hello_1'"),
        ({"job_id": "hello_1"}, "job has no job_dir"),
    ],
)
def test_an_invalid_job_is_refused(storage: Storage, job: Any, words: str) -> None:
    with pytest.raises(MlengineError, match=words):
        run(job)


def test_the_report_opens_from_the_tasks_link(storage: Storage, job: JobDir) -> None:
    operator = ValidateModelOperator(
        task_id="validate", job=job.uri, validation_level="files", extra_checks=[too_small], gcp_conn_id=None
    )
    link = ReportLink()
    assert link.get_link(operator, ti_key=None) == ""  # type: ignore[arg-type]
    with pytest.raises(AirflowSkipException):
        operator.execute(context(TaskInstance()))
    url = link.get_link(operator, ti_key=None)  # type: ignore[arg-type]
    with urllib.request.urlopen(url) as page:
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b"Rejected" in page.read()


def test_on_google_cloud_the_link_is_an_authenticated_browser_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    google = Storage(lambda: Client(project="p", credentials=credentials))
    url = browser_url(google, "gs://bucket/mnist/j/report.html")
    assert url == "https://storage.cloud.google.com/bucket/mnist/j/report.html"


def test_every_template_field_is_an_attribute() -> None:
    operator = ValidateModelOperator(task_id="validate", job="x")
    assert all(hasattr(operator, name) for name in operator.template_fields)
