"""Tests the page's server on a real bucket: access, what is shown, the buttons, and hostile names and logs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from mlengine.backends import LogLine, LogPage
from mlengine.backends.vertex.logs import MAX_SEEN
from mlengine.core import layout
from mlengine.core.dataset import Column, ColumnStatistics, DataFile, Manifest, Schema, Split
from mlengine.core.errors import BackendError, BackendUnavailableError, StorageForbiddenError
from mlengine.core.job import JobState
from mlengine.core.layout import JobDir, dataset_dir
from mlengine.core.verdict import Decision
from mlengine.storage.client import Storage
from mlengine.web import guard, routes
from mlengine.web.app import make_app
from tests.support import sample_reports
from tests.support.page_client import BUTTON, champion
from tests.support.sample_jobs import BACKEND, DAY, NOW, SampleJobs

pytestmark = pytest.mark.integration


# --- access -------------------------------------------------------------------------------------------------------


def test_nothing_is_served_to_anonymous_users(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    """Covers every route, because Airflow checks nothing before it passes a request on."""
    sample_jobs.job("mnist_1")
    stranger, forger = visit(None), visit(None)
    forger.cookies.set("_token", "no.token.ofours")
    paths = [
        (method, route.path.format(model="mnist", job_id="mnist_1"))
        for route in make_app().routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    assert len(paths) > 10
    for method, path in paths:
        for client in (stranger, forger):
            answer = client.request(method, path.lstrip("/"), headers=BUTTON, json={"reason": "because"})
            assert answer.status_code in {401, 403}, (method, path)
            assert "mnist" not in answer.text, (method, path)
    for path in ("docs", "redoc", "openapi.json", "api", "static/page.html"):
        assert stranger.get(path).status_code == 404


def test_anonymous_users_are_redirected_to_the_login(visit: Callable[..., TestClient]) -> None:
    answer = visit(None).get("page?job=mnist/mnist_1", headers={"accept": "text/html"}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/auth/login?next=")
    assert answer.text == ""


def test_every_response_has_security_headers(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    for client, path in ((visit(), "page"), (visit(), "api/jobs"), (visit(None), "api/jobs"), (visit(), "nowhere")):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "frame-ancestors 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"


class PerDag(SimpleAuthManager):
    """Ann has all permissions for her own DAG, and none for others."""

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        return details is None or details.id in {None, "mine"}


def test_jobs_of_dags_that_a_user_may_not_read_are_hidden(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.job("mnist_mine", dag_id="mine")
    sample_jobs.job("mnist_theirs", dag_id="theirs")
    sample_jobs.job("other_theirs", dag_id="theirs", model="secret")
    client = visit()
    monkeypatch.setattr(guard, "get_auth_manager", PerDag)
    found = client.get("api/jobs").json()
    assert [job["job_id"] for job in found["jobs"]] == ["mnist_mine"]
    assert (found["total"], found["models"]) == (1, ["mnist"])
    assert client.get("api/jobs/mnist/mnist_mine").status_code == 200
    for path in ("", "/logs", "/report"):
        assert client.get(f"api/jobs/mnist/mnist_theirs{path}").status_code == 404
    assert client.post("api/jobs/mnist/mnist_theirs/cancel", headers=BUTTON, json={"reason": "x"}).status_code == 404
    assert client.get("api/models/secret").status_code == 404
    assert [model["model"] for model in client.get("api/models").json()["models"]] == ["mnist"]


@pytest.mark.parametrize("damage", ["progress", "report", "history"])
def test_a_damaged_job_of_a_dag_that_a_user_may_not_read_is_hidden(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    job_dir = sample_jobs.job("mnist_theirs", state=JobState.RUNNING, dag_id="theirs")
    if damage == "progress":
        sample_jobs.storage.write(job_dir.progress, b'{"step": 1' + b"0" * 301 + b', "of": 10}')
    elif damage == "report":
        sample_jobs.storage.write(job_dir.report, b'{"format": 1, "metrics": {"accuracy": Infinity}}')
    else:
        claim = json.loads(sample_jobs.storage.read(job_dir.claim))
        sample_jobs.storage.write(job_dir.claim, json.dumps({**claim, "history": [{"time": 1e999}]}).encode())
    client = visit()
    monkeypatch.setattr(guard, "get_auth_manager", PerDag)
    assert client.get("api/jobs").json()["jobs"] == []
    for path in ("", "/logs", "/report"):
        assert client.get(f"api/jobs/mnist/mnist_theirs{path}").status_code == 404
    assert client.post("api/jobs/mnist/mnist_theirs/cancel", headers=BUTTON, json={"reason": "x"}).status_code == 404
    assert BACKEND.live


# --- what is shown ------------------------------------------------------------------------------------------------


def test_running_and_finished_jobs_are_listed(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    sample_jobs.job("mnist_old", began=NOW - 40 * DAY, metric_value=0.97)
    sample_jobs.job("mnist_bad", began=NOW - 30 * DAY, state=JobState.FAILED)
    sample_jobs.job("mnist_now", began=NOW, state=JobState.RUNNING, run_id="manual")
    sample_jobs.storage.write(JobDir.of(sample_jobs.bucket, "mnist", "mnist_prepared").train + ".keep", b"")
    client = visit()
    found = client.get("api/jobs").json()
    assert [(job["job_id"], job["state"]) for job in found["jobs"]] == [
        ("mnist_now", "RUNNING"),
        ("mnist_bad", "FAILED"),
        ("mnist_old", "SUCCEEDED"),
    ]
    running, _, old = found["jobs"]
    assert (running["step"], running["of"], running["eta"], running["by"]) == (412, 1000, 66.0, "ann")
    assert (old["verdict"], old["metric_value"], old["final_at"] < old["seen"]) == ("accepted", 0.97, True)
    assert (found["active"], found["total"]) == (1, 3)
    for query, names in {
        "state=active": ["mnist_now"],
        "state=ended": ["mnist_bad", "mnist_old"],
        "state=FAILED": ["mnist_bad"],
        "text=ANN": ["mnist_now"],
        "dag_id=mnist_retraining&run_id=manual": ["mnist_now"],
        "model=other": [],
        "limit=1&offset=1": ["mnist_bad"],
    }.items():
        assert [job["job_id"] for job in client.get(f"api/jobs?{query}").json()["jobs"]] == names, query


def test_a_job_page_shows_the_current_state(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    client = visit()
    assert client.get("api/jobs/mnist/mnist_1").json()["row"]["state"] == "RUNNING"
    BACKEND.end("mnist_1-1", JobState.SUCCEEDED)
    found = client.get("api/jobs/mnist/mnist_1").json()
    assert (found["row"]["state"], found["cancellable"]) == ("SUCCEEDED", False)
    assert [event["event"] for event in found["history"]] == ["claimed", "fresh_submit"]
    assert found["curves"]["accuracy"]["test_accuracy"][0][0] == 100
    assert found["inputs"]["dataset"]["version"] == "2026-10-01"
    assert client.get("api/jobs/mnist/unknown").status_code == 404
    assert client.get("api/jobs/champions/..%2f..").status_code == 404


def test_a_running_job_shows_its_web_access_links(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    shell = "https://0123-dot-us-central1.aiplatform-training.googleusercontent.com"
    BACKEND.links.update({"chief-0": shell, "worker-0": "javascript:alert(1)"})
    client = visit()
    client.get("api/jobs/mnist/unknown")
    BACKEND.calls.clear()
    assert client.get("api/jobs/mnist/mnist_1").json()["links"] == {"chief-0": shell}
    assert BACKEND.calls == ["describe"], "the state must be read with one call"
    assert shell not in client.get("api/jobs").text
    BACKEND.end("mnist_1-1", JobState.SUCCEEDED)
    assert client.get("api/jobs/mnist/mnist_1").json()["links"] == {}


def test_a_backend_that_this_server_cannot_connect_to_does_not_hide_the_job(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backends of Vertex AI and Ray connect at their first call, and raise if they have no project or address."""
    sample_jobs.job("mnist_1", state=JobState.RUNNING)

    def fail(*_: Any) -> Any:
        raise BackendError("no Google Cloud project")

    for name in ("describe", "logs", "console_url"):
        monkeypatch.setattr(BACKEND, name, fail)
    answer = visit().get("api/jobs/mnist/mnist_1")
    assert answer.status_code == 200
    assert (answer.json()["row"]["state"], answer.json()["console"]) == ("UNKNOWN", "")
    assert visit().get("api/jobs/mnist/mnist_1/logs").status_code == 200


def test_jobs_unknown_to_a_local_backend_keep_their_recorded_state(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    """If the API server is on a different machine than the training, its local backend knows no job."""
    job_dir = sample_jobs.job("mnist_1", state=JobState.RUNNING)
    BACKEND.jobs.clear()
    status = {"attempt": 1, "logs": {}, "state": "RUNNING", "detail": "", "step": 3}
    sample_jobs.storage.write(job_dir.cursor, json.dumps(status).encode())
    row = visit().get("api/jobs").json()["jobs"][0]
    assert row["state"] == "UNKNOWN"
    assert "RUNNING" in row["detail"]
    sample_jobs.storage.write(
        job_dir.cursor, json.dumps({**status, "state": "FAILED", "detail": "chief: exit 3"}).encode()
    )
    row = visit().get("api/jobs/mnist/mnist_1").json()["row"]
    assert (row["state"], row["detail"]) == ("FAILED", "chief: exit 3")


def test_only_the_names_of_a_jobs_environment_variables_are_shown(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    job_dir = sample_jobs.job("mnist_1")
    raw = json.loads(sample_jobs.storage.read(job_dir.claim))
    raw["spec"]["env"] = {"API_TOKEN": "hunter2"}
    sample_jobs.storage.write(job_dir.claim, json.dumps(raw).encode())
    text = visit().get("api/jobs/mnist/mnist_1").text
    assert "API_TOKEN" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "damage",
    [{"environment": [1]}, {"champion": 5}, {"metrics": {"accuracy": "x"}}, {"baseline": 5}, {"checks": 5}],
    ids=str,
)
def test_an_invalid_report_does_not_hide_its_job(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], damage: dict[str, Any]
) -> None:
    """A trainer can write into its job dir."""
    job_dir = sample_jobs.job("mnist_1")
    raw = json.loads(sample_jobs.storage.read(job_dir.report))
    sample_jobs.storage.write(job_dir.report, json.dumps({**raw, **damage}).encode())
    claim = json.loads(sample_jobs.storage.read(job_dir.claim))
    claim["spec"]["env"] = 5
    sample_jobs.storage.write(job_dir.claim, json.dumps(claim).encode())
    answer = visit().get("api/jobs/mnist/mnist_1")
    assert answer.status_code == 200, answer.text


def test_an_invalid_request_is_refused_with_the_reason(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    answer = visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": ""})
    assert (answer.status_code, sorted(answer.json())) == (422, ["error", "hint"])
    assert answer.json()["error"].startswith("reason: ")


def test_logs_are_read_page_by_page_to_the_last_line(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    job_dir = sample_jobs.job("mnist_1")
    chief = [f"line {at} of the chief" for at in range(30_000)]
    sample_jobs.logs(job_dir, "chief-0", "\n".join(chief).encode() + b"\n")
    sample_jobs.logs(job_dir, "worker-0", b"only one")
    sample_jobs.logs(job_dir, "chief-0", b"the first attempt", attempt=0)
    client, cursor, seen = visit(), "", []
    for _ in range(20):
        page = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": cursor}).json()
        seen += [(line["replica"], line["text"]) for line in page["lines"]]
        cursor = page["cursor"]
        if not page["more"]:
            break
    assert [text for replica, text in seen if replica == "chief-0"] == chief
    assert [text for replica, text in seen if replica == "worker-0"] == ["only one"]
    again = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": cursor}).json()
    assert (again["lines"], again["more"]) == ([], False)
    for wrong in ("%%%", "bm8=", "e30", "W10="):
        assert client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": wrong}).status_code == 400
    for offset in ("x", -1, 1.5, None, True, [1]):
        wrong = base64.urlsafe_b64encode(json.dumps({"stored": {"chief-0": offset}}).encode()).decode()
        answer = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": wrong})
        assert (answer.status_code, "invalid log cursor" in answer.json()["error"]) == (400, True), offset


def test_a_new_attempt_without_output_does_not_show_the_log_of_the_attempt_before(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempt 2 is queued. Its output follows, and must not be read from the stored log of attempt 1."""
    job_dir = sample_jobs.job("mnist_1", state=JobState.RUNNING)
    claim = json.loads(sample_jobs.storage.read(job_dir.claim))
    sample_jobs.storage.write(job_dir.claim, json.dumps({**claim, "attempt": 2}).encode())
    sample_jobs.logs(job_dir, "chief-0", b"the first attempt")
    client, pages = visit(), [LogPage((), {}), LogPage((LogLine("chief-0", "the second attempt"),), {"chief-0": 18})]
    monkeypatch.setattr(BACKEND, "logs", lambda *_: pages.pop(0))
    cursor, seen = "", []
    for _ in range(2):
        page = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": cursor}).json()
        seen.append([line["text"] for line in page["lines"]])
        cursor = page["cursor"]
    assert seen == [[], ["the second attempt"]]
    page = client.post("api/jobs/mnist/mnist_1/logs", json={"attempt": 1}).json()
    assert [line["text"] for line in page["lines"]] == ["the first attempt"]


def test_a_truncated_log_is_shown_from_its_start(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log was replaced between two pages, or between listing and reading one page."""
    job_dir = sample_jobs.job("mnist_1")
    sample_jobs.logs(job_dir, "chief-0", b"a long line\n" * 30_000)
    client = visit()
    page = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": ""}).json()
    assert page["more"]
    with monkeypatch.context() as patch:
        listed = sample_jobs.storage.ls(job_dir.logs)
        patch.setattr(Storage, "ls", lambda *_: listed)
        sample_jobs.logs(job_dir, "chief-0", b"replaced\n")
        answer = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": page["cursor"]})
        assert (answer.status_code, answer.json()["lines"]) == (200, [])
    for cursor in (page["cursor"], answer.json()["cursor"]):
        after = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": cursor}).json()
        assert [line["text"] for line in after["lines"]] == ["replaced"]
        assert not after["more"]
    sample_jobs.logs(job_dir, "chief-0", b"replaced\nand continued\n")
    after = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": after["cursor"]}).json()
    assert [line["text"] for line in after["lines"]] == ["and continued"]


def test_a_long_log_cursor_of_vertex_ai_is_accepted(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    stamp = "2026-11-23T12:00:00.123456789Z"
    cursor = {"since": stamp, "window": [[stamp, f"{at:010}"] for at in range(MAX_SEEN)]}
    seen: list[Any] = []

    def logs(_: Any, after: Any, __: int) -> LogPage:
        seen.append(after)
        return LogPage((), cursor)

    monkeypatch.setattr(BACKEND, "logs", logs)
    client = visit()
    first = client.get("api/jobs/mnist/mnist_1/logs").json()
    answer = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": first["cursor"]})
    assert (answer.status_code, seen) == (200, [{}, cursor])


def test_a_throttled_log_response_says_when_to_retry(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    client = visit()
    cursor = ""
    for answer, wait in ((LogPage((), {"at": 1}, wait=7.0), 7.0), (LogPage((), {"at": 1}), 0.0), (None, 5.0)):

        def logs(*_: Any, answer: LogPage | None = answer) -> LogPage:
            if answer is None:
                raise BackendUnavailableError("no answer")
            return answer

        monkeypatch.setattr(BACKEND, "logs", logs)
        found = client.post("api/jobs/mnist/mnist_1/logs", json={"cursor": cursor}).json()
        assert (found["wait"], found["more"]) == (wait, wait > 0)
        cursor = found["cursor"]


def test_html_in_logs_and_names_is_shown_as_text(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    """The page inserts strings without HTML. The server must send them as JSON that no browser renders as HTML."""
    evil = "<script>alert(1)</script>"
    job_dir = sample_jobs.job("mnist_1", dag_id=evil, run_id=evil, version=evil, args=(evil,))
    sample_jobs.logs(job_dir, "chief-0", f"{evil}\x1b[2J\x1b[31m\u202egnp.exe\x07\n".encode())
    client = visit()
    for path in ("api/jobs", "api/jobs/mnist/mnist_1", "api/jobs/mnist/mnist_1/logs"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
    line = client.get("api/jobs/mnist/mnist_1/logs").json()["lines"][0]["text"]
    assert line == f"{evil}\\x202egnp.exe\\x07"


def test_the_report_is_sandboxed_and_cannot_run_scripts(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    sample_jobs.job("mnist_1")
    client = visit()
    answer = client.get("api/jobs/mnist/mnist_1/report?theme=dark")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox;")
    assert "script" not in policy
    assert "default-src 'none'" in policy
    assert "@media all" in answer.text
    assert "@media(prefers" in client.get("api/jobs/mnist/mnist_1/report").text


def test_the_page_loads_nothing_from_other_hosts_and_has_no_inline_code(visit: Callable[..., TestClient]) -> None:
    client = visit()
    page = client.get("page").text
    scripts = {name: client.get(name).text for name in ("page.js", "draw.js", "page.css")}
    assert "<script>" not in page
    assert " on" not in page.split("<body>")[1].split("JavaScript")[0].replace(" only", "")
    for name, text in {"page": page, **scripts}.items():
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc", "style="):
            assert word not in text, (name, word)
    assert client.get("page.js").headers["content-type"].startswith("text/javascript")


# --- models ---------------------------------------------------------------------------------------------------


def test_a_model_page_shows_history_and_challengers(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    champion(sample_jobs, "mnist_a", 0.97, "v9", NOW - 30 * DAY)
    champion(sample_jobs, "mnist_b", 0.98, "v12", NOW - 20 * DAY)
    sample_jobs.job("mnist_c", metric_value=0.95, version="v13", verdict=Decision.REJECTED, began=NOW - 10 * DAY)
    client = visit()
    overview = client.get("api/models").json()["models"]
    assert [(model["model"], model["jobs"], model["champion"]["job_id"]) for model in overview] == [
        ("mnist", 3, "mnist_b")
    ]
    model = client.get("api/models/mnist").json()
    assert [entry["job_id"] for entry in model["history"]] == ["mnist_b", "mnist_a"]
    assert (model["metric"], model["higher_is_better"]) == ("accuracy", True)
    assert [(p["dataset"], p["champion"]) for p in model["points"]] == [("v9", True), ("v12", True), ("v13", False)]
    assert (model["comparison"]["job_id"], model["comparison"]["verdict"]) == ("mnist_c", "rejected")
    assert client.get("api/models/mnist/drift").json()["columns"] == [], "its versions have been deleted"


def test_champions_are_read_once_for_all_users(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(4):
        champion(sample_jobs, f"mnist_{at}", 0.97 + at / 1000, f"v{at}", NOW - (30 - at) * DAY)
    sample_jobs.job("other_1", model="other")
    read: list[str] = []

    real = Storage.read_with_generation

    def counted(self: Storage, uri: str) -> tuple[bytes, int]:
        read.append(uri.removeprefix(f"{sample_jobs.bucket}/"))
        return real(self, uri)

    monkeypatch.setattr(Storage, "read_with_generation", counted)
    client = visit()
    for _ in range(2):
        assert [model["model"] for model in client.get("api/models").json()["models"]] == ["mnist", "other"]
    assert sorted(uri for uri in read if "champion" in uri) == ["mnist/champion.json", "other/champion.json"]
    read.clear()
    for _ in range(2):
        assert len(client.get("api/models/mnist").json()["history"]) == 4
    entries = [uri for uri in read if "champions/" in uri]
    assert sorted(entries) == [f"mnist/champions/00000{serial}.json" for serial in (1, 2, 3)]
    champion(sample_jobs, "mnist_4", 0.98, "v4", NOW - 20 * DAY)
    newest = client.get("api/models/mnist").json()["history"][0]
    assert newest["job_id"] == "mnist_4", "the model's page must read the champion pointer"
    assert client.post("api/models/mnist/rollback", headers=BUTTON, json={"reason": "x"}).status_code == 200
    assert client.get("api/models").json()["models"][0]["champion"]["job_id"] == "mnist_3"


@pytest.mark.parametrize(
    "change", [{"dataset": []}, {"metric_value": float("nan")}, {"action": "x"}, {"dataset": {"version": 1}}]
)
def test_a_damaged_champion_does_not_hide_the_other_models(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], change: dict[str, Any]
) -> None:
    champion(sample_jobs, "mnist_a", 0.97, "v9", NOW - 30 * DAY)
    sample_jobs.job("other_1", model="other")
    uri = layout.champion(sample_jobs.bucket, "mnist")
    raw = json.loads(sample_jobs.storage.read(uri))
    sample_jobs.storage.write(layout.champion(sample_jobs.bucket, "other"), json.dumps({**raw, **change}).encode())
    found = {model["model"]: model["champion"] for model in visit().get("api/models").json()["models"]}
    assert found["mnist"]["job_id"] == "mnist_a"
    assert ("error" in found["other"]) is (change != {"dataset": {"version": 1}})


def test_names_that_cannot_be_encoded_do_not_hide_the_job_or_the_model(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    """A job that could hide its page could not be cancelled there."""
    job_dir = sample_jobs.job("mnist_1")
    name = "a\ud800"
    changed: dict[str, dict[str, Any]] = {
        job_dir.claim: {"inputs": {name: {name: 1}}, "history": [{"time": NOW, "event": "claimed", name: [{name: 1}]}]},
        job_dir.report: {"environment": {name: "1"}, "champion": {name: "1"}},
    }
    for uri, changes in changed.items():
        raw = json.loads(sample_jobs.storage.read(uri))
        sample_jobs.storage.write(uri, json.dumps({**raw, **changes}).encode())
    client = visit()
    shown = client.get("api/jobs/mnist/mnist_1")
    assert shown.status_code == 200
    assert (shown.json()["inputs"], shown.json()["report"]["environment"]) == ({"a?": {"a?": 1}}, {"a?": "1"})
    assert client.get("api/models/mnist").json()["comparison"]["compared_with"] == {"a?": "1"}


@pytest.mark.parametrize(("args", "shown"), [("--epochs 3", ["--epochs 3"]), (["--epochs", "3"], ["--epochs", "3"])])
def test_arguments_that_a_job_has_written_itself_are_shown(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], args: Any, shown: list[str]
) -> None:
    job_dir = sample_jobs.job("mnist_1")
    raw = json.loads(sample_jobs.storage.read(job_dir.claim))
    raw["spec"] = {**(raw.get("spec") or {}), "args": args, "package_uris": None}
    sample_jobs.storage.write(job_dir.claim, json.dumps(raw).encode())
    spec = visit().get("api/jobs/mnist/mnist_1").json()["spec"]
    assert spec["args"] == shown
    assert "package_uris" not in spec


def test_an_invalid_report_does_not_hide_the_model(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    """The newest job's own code has changed its report."""
    champion(sample_jobs, "mnist_a", 0.97, "2026-09-01", NOW - 2 * DAY)
    job_dir = sample_jobs.job("mnist_b", began=NOW - DAY)
    report = json.loads(sample_jobs.storage.read(job_dir.report))
    report["baseline"] = {"metrics": {"accuracy": "x"}}
    sample_jobs.storage.write(job_dir.report, json.dumps(report).encode())
    shown = visit().get("api/models/mnist")
    assert shown.status_code == 200
    assert shown.json()["champion"]["job_id"] == "mnist_a"
    assert shown.json()["comparison"] is None


def test_a_model_is_not_reported_missing_before_the_bucket_was_read(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion(sample_jobs, "mnist_a", 0.97, "2026-09-01", NOW - 2 * DAY)

    def fail(*_: object) -> None:
        raise StorageForbiddenError("no permission to list the bucket")

    with monkeypatch.context() as patch:
        patch.setattr(sample_jobs.storage, "list_dirs", fail)
        client = visit()
        for path in ("api/models/mnist", "api/models/mnist/drift"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]) == (503, "no permission to list the bucket"), path
        routes.clear_caches()
    assert client.get("api/models/mnist").status_code == 200
    assert client.get("api/models/other").status_code == 404


def test_a_model_page_shows_metrics_other_than_accuracy(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    """Values of another metric, from before the thresholds changed, are not in the same plot."""
    sample_jobs.job("prices_a", model="prices", metric="r2", metric_value=0.8, version="v1", began=NOW - 30 * DAY)
    sample_jobs.job("prices_b", model="prices", version="v2", began=NOW - 20 * DAY, report=sample_reports.regression())
    client = visit()
    model = client.get("api/models/prices").json()
    assert (model["metric"], model["higher_is_better"]) == ("mean_absolute_error", False)
    assert [(point["dataset"], round(point["metric_value"])) for point in model["points"]] == [("v2", 34058)]
    main = model["comparison"]["metrics"][0]
    assert (main["name"], main["value"], main["champion"]) == ("mean_absolute_error", "34,058", "37,806")
    assert (main["gain"], main["mark"], main["note"]) == ("+3748", "better", "lower is better")
    job = client.get("api/jobs/prices/prices_b").json()
    assert job["report"]["metrics"] == model["comparison"]["metrics"]
    assert job["row"]["metric"] == "mean_absolute_error"
    assert "Predicted against actual" in client.get("api/jobs/prices/prices_b/report").text


def flights(version: str, low: float) -> Manifest:
    """A version whose distances are evenly spread over 100 miles."""
    schema = Schema((Column("distance", "float64"), Column("carrier", "string"), Column("late", "bool")), "late")
    statistics = {
        "distance": ColumnStatistics(nulls=0, quantiles=tuple(low + 5 * at for at in range(21))),
        "carrier": ColumnStatistics(nulls=0, top=(("AA", 60), ("UA", 40))),
    }
    train, heldout = (
        Split(100, (DataFile(f"{name}.parquet", 10, sha256="ab" * 32, rows=100),), found)
        for name, found in (("train", statistics), ("heldout", {}))
    )
    return Manifest(
        name="flights",
        version=version,
        created="2026-11-01T00:00:00+00:00",
        license="MIT",
        source="a test",
        format="parquet",
        schema=replace(schema, classes=(False, True)),
        splits={"train": train, "heldout": heldout},
        task="binary",
        heldout_policy="rolling",
    )


def test_drift_of_columns_over_dataset_versions_is_shown(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    storage, bucket = sample_jobs.storage, sample_jobs.bucket
    for version, low in (("2026-08", 0), ("2026-09", 0), ("2026-10", 40)):
        root = dataset_dir(bucket, "flights", version)
        storage.write(f"{root}/manifest.json", flights(version, low).to_bytes())
        champion(sample_jobs, f"flights_{version[-2:]}", 0.9, version, NOW - 20 * DAY, dataset="flights")
    sample_jobs.job("mnist_bad", version="../../secret", dataset="flights")
    found = visit().get("api/models/mnist/drift").json()
    assert (found["dataset"], found["versions"]) == ("flights", ["2026-08", "2026-09", "2026-10"])
    drift = {column["name"]: column["values"] for column in found["columns"]}
    assert found["columns"][0]["name"] == "distance"
    assert drift["distance"][0] is None
    assert drift["distance"][1] == pytest.approx(0, abs=0.001)
    assert drift["distance"][2] > 0.25
    assert drift["carrier"][2] == pytest.approx(0, abs=0.001)
