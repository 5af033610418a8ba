"""Tests the page in a real browser against an API whose responses are late, out of order, or of rare content.

Run by ``tests/integration/test_page_script.py`` (see ``scripts/visit.py``). No request leaves the browser.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.visit import Order, visit

PAGE = "http://page.test/mlengine/page"
PATIENCE = 300_000  # milliseconds
ROW = dict.fromkeys(
    [
        "step",
        "of",
        "eta",
        "rate",
        "claimed",
        "started",
        "ended",
        "metric_value",
        "cost_usd",
        "detail",
        "dag_id",
        "run_id",
        "by",
        "cluster",
        "decision",
        "dataset",
        "verdict",
        "metric",
    ]
)


class Stub:
    """Serves the page's files, and the API responses that a test provides."""

    def __init__(self, browser: Any, static: str, answer: Callable[[Any, str], None]) -> None:
        self._static, self._answer = Path(static), answer
        self.page = browser.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.route("**/*", self._serve)

    def _serve(self, route: Any) -> None:
        url = urllib.parse.urlsplit(route.request.url)
        name = url.path.removeprefix("/mlengine/")
        if name.startswith("api/"):
            self._answer(route, name)
        else:
            route.fulfill(path=self._static / (name if "." in name else f"{name}.html"))


def run_clock_until(page: Any, found: Any) -> None:
    """Run the page's clock, which the page uses for its pauses, until ``found`` is shown."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not found.is_visible():
        assert time.monotonic() < deadline, page.locator("main").inner_text()
        page.clock.run_for(5100)
        page.wait_for_timeout(200)


def reply(route: Any, document: Any) -> None:
    route.fulfill(body=json.dumps(document), content_type="application/json")


def row(job_id: str, **fields: Any) -> dict[str, Any]:
    return {
        **ROW,
        "model": "m",
        "job_id": job_id,
        "state": "SUCCEEDED",
        "attempt": 1,
        "backend": "x",
        "seen": 1.0,
        **fields,
    }


def jobs(names: list[str], total: int) -> dict[str, Any]:
    rows = [row(name) for name in names]
    return {"jobs": rows, "total": total, "active": 0, "models": ["m"], "at": 1.0, "error": "", "bucket": "gs://b"}


def last_page(browser: Any, order: Order) -> dict[str, Any]:
    """The number of jobs falls from 60 to 45 while the second page is open."""
    total = 60

    def answer(route: Any, _: str) -> None:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(route.request.url).query))
        first = int(query["offset"])
        names = [f"job-{number}" for number in range(total)][first : first + 50]
        reply(route, jobs(names, total))

    page = Stub(browser, order["static"], answer).page
    page.goto(PAGE)
    page.get_by_role("button", name="Older").click()
    page.get_by_text(re.compile("51.60 of 60 jobs")).wait_for()
    total = 45
    page.get_by_text(re.compile("1.45 of 45 jobs")).wait_for()
    return {"rows": page.get_by_role("link", name="job-").count()}


def late_response(browser: Any, order: Order) -> dict[str, Any]:
    """The response to the search text ``a`` arrives after the response to ``ab``."""
    held: list[Any] = []

    def answer(route: Any, _: str) -> None:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(route.request.url).query))
        if query.get("text") == "a":
            held.append(route)
        else:
            reply(route, jobs([f"found-for-[{query.get('text', '')}]"], 1))

    page = Stub(browser, order["static"], answer).page
    page.goto(PAGE)
    page.get_by_text("found-for-[]").wait_for()
    search = page.get_by_role("searchbox")
    search.press_sequentially("ab")
    page.get_by_text("found-for-[ab]").wait_for()
    with page.expect_response("**/api/jobs?*text=a&*"):
        for route in held:
            reply(route, jobs(["found-for-[a]"], 1))
    page.wait_for_timeout(500)
    return {"text": search.input_value(), "shown": page.get_by_role("link", name="found-for").inner_text()}


def other_attempt(browser: Any, order: Order) -> dict[str, Any]:
    """The user selects attempt 1 while the log of attempt 2 is loading."""
    held: list[Any] = []
    asked: list[dict[str, Any]] = []

    def answer(route: Any, name: str) -> None:
        if not name.endswith("/logs"):
            reply(route, detail)
            return
        body = route.request.post_data_json
        asked.append(body)
        if body["attempt"] is None:
            held.append(route)
        else:
            reply(route, log("a line of attempt 1"))

    detail = job(row("j", attempt=2), stored_logs=[1])
    page = Stub(browser, order["static"], answer).page
    page.goto(f"{PAGE}#/job/m/j")
    page.get_by_label("Attempt").select_option("1")
    shown = page.get_by_role("log")
    shown.get_by_text("a line of attempt 1").wait_for()
    for route in held:
        reply(route, log("a line of attempt 2"))
    page.wait_for_timeout(500)
    return {"lines": shown.inner_text().strip(), "cursors": [body["cursor"] for body in asked if body["attempt"]]}


def cancel_in_pause(browser: Any, order: Order) -> dict[str, Any]:
    """The user cancels a job that has failed and waits for its next attempt. The job's row does not change."""
    detail = job(row("j", state="FAILED"), cancellable=True, may_be_tried_again=True, may_change=True)
    reasons: list[str] = []

    def answer(route: Any, name: str) -> None:
        if name.endswith("/logs"):
            reply(route, log("a line"))
        elif name.endswith("/cancel"):
            reasons.append(route.request.post_data_json["reason"])
            detail.update(cancellable=False, may_be_tried_again=False)
            reply(route, {"row": detail["row"]})
        else:
            reply(route, detail)

    page = Stub(browser, order["static"], answer).page
    page.goto(f"{PAGE}#/job/m/j")
    page.get_by_role("button", name="Cancel …").click()
    dialog = page.get_by_role("dialog")
    text = dialog.inner_text()
    dialog.get_by_role("textbox").fill("wrong data")
    dialog.get_by_role("button", name="Cancel job").click()
    page.get_by_role("button", name="Cancel …").wait_for(state="detached")
    return {"text": text, "reasons": reasons}


def champion_again(browser: Any, order: Order) -> dict[str, Any]:
    """The latest validation is that of the champion itself, so it was compared with itself."""
    metric = {"name": "accuracy", "note": "", "main": True, "value": "0.98", "champion": "0.98", "gain": "0"}
    compared = {
        "job_id": "m_a", "verdict": "accepted", "reasons": ["Every check passed."], "compared_with": {"job_id": "m_a"},
        "metrics": [{**metric, "interval": "-0.001 to 0.001", "mark": ""}], "size": [2**20, 2**20],
    }  # fmt: skip
    model: dict[str, Any] = {
        "model": "m", "champion": None, "history": [], "metric": "accuracy", "higher_is_better": True, "points": [],
        "comparison": compared, "may_change": False,
    }  # fmt: skip

    def answer(route: Any, _: str) -> None:
        reply(route, model)

    page = Stub(browser, order["static"], answer).page
    page.goto(f"{PAGE}#/model/m")
    section = page.get_by_role("heading", name="Latest").locator("..")
    return {"text": section.inner_text(), "columns": section.get_by_role("columnheader").all_inner_texts()}


def skip_link(browser: Any, order: Order) -> dict[str, Any]:
    """A user of the keyboard skips the navigation on a job's page."""

    def answer(route: Any, name: str) -> None:
        reply(route, log("a line") if name.endswith("/logs") else job(row("j")))

    page = Stub(browser, order["static"], answer).page
    page.goto(f"{PAGE}#/job/m/j")
    page.get_by_role("heading", name="Lineage").wait_for()
    page.get_by_role("link", name="Skip to content").press("Enter")
    page.wait_for_timeout(500)
    focused = page.evaluate("document.activeElement.id")
    return {"focused": focused, "address": page.url, "titles": page.locator("h1").all_inner_texts()}


def announcements(browser: Any, order: Order) -> dict[str, Any]:
    """The list is refreshed twice. The second refresh fails."""
    answers = [jobs(["job-1"], 1), {**jobs(["job-1"], 1), "at": 6.0}, {**jobs(["job-1"], 1), "error": "no network"}]

    def answer(route: Any, _: str) -> None:
        reply(route, answers.pop(0) if len(answers) > 1 else answers[0])

    page = Stub(browser, order["static"], answer).page
    page.clock.install()
    page.goto(PAGE)
    header, shown = page.locator("header"), []
    header.get_by_text("Updated").wait_for()
    for text in (":01", ":06", "Could not refresh"):
        run_clock_until(page, header.get_by_text(text))
        shown.append(page.get_by_role("status").inner_text())
    return {"announced": shown}


def unread_bucket(browser: Any, order: Order) -> dict[str, Any]:
    """The server could not read the bucket yet, so it knows of no jobs."""
    found = {**jobs([], 0), "models": [], "at": None, "error": "no permission"}

    def answer(route: Any, _: str) -> None:
        reply(route, found)

    page = Stub(browser, order["static"], answer).page
    shown = []
    for view in ("jobs", "models"):
        page.goto(f"{PAGE}#/{view}")
        page.get_by_text("Could not refresh: no permission").wait_for()
        page.get_by_text(f"The {view} could not be read from the bucket.").wait_for()
        shown.append(page.locator("main").inner_text().splitlines()[-1])
    return {"shown": shown}


def busy_server(browser: Any, order: Order) -> dict[str, Any]:
    """The first request for a job, and for a model, is rejected."""
    rejected: set[str] = set()
    model: dict[str, Any] = {
        "model": "m", "champion": None, "history": [], "metric": "", "higher_is_better": True, "points": [],
        "comparison": None, "may_change": False,
    }  # fmt: skip

    def answer(route: Any, name: str) -> None:
        if name not in rejected:
            rejected.add(name)
            body = {"error": "too many requests", "hint": "try again in a moment"}
            route.fulfill(status=503, body=json.dumps(body), content_type="application/json")
        elif name.endswith("/logs"):
            reply(route, log("a line"))
        else:
            reply(route, model if "models" in name else job(row("j")))

    page = Stub(browser, order["static"], answer).page
    page.clock.install()
    shown = []
    for view, heading in (("job/m/j", "Lineage"), ("model/m", "Champion history")):
        page.goto(f"{PAGE}#/{view}")
        page.get_by_text("Too many requests. Try again in a moment.").wait_for()
        run_clock_until(page, page.get_by_role("heading", name=heading))
        shown.append(page.locator("main").inner_text())
    return {"shown": shown}


def last_lines(browser: Any, order: Order) -> dict[str, Any]:
    """A job ends while the backend does not permit reading its log yet."""
    detail = job(row("j", state="RUNNING"))
    pages = [{**log("an early line"), "wait": 7.0}, log("the last line")]

    def answer(route: Any, name: str) -> None:
        if name.endswith("/logs"):
            reply(route, pages.pop(0) if pages else {**log(""), "lines": []})
        else:
            reply(route, detail)

    page = Stub(browser, order["static"], answer).page
    page.clock.install()
    page.goto(f"{PAGE}#/job/m/j")
    page.get_by_role("log").get_by_text("an early line").wait_for()
    detail["row"]["state"] = "FAILED"
    run_clock_until(page, page.get_by_role("log").get_by_text("the last line"))
    return {"lines": page.get_by_role("log").inner_text()}


def axis_labels(browser: Any, order: Order) -> dict[str, Any]:
    """The values of a metric differ in the fifth digit, or only by rounding errors."""
    values = {"near": [0.98761, 0.98769], "equal": [1.0, 0.9999999999999999]}
    labels = {}
    for name, pair in values.items():
        plots = {"auc": {"auc": list(enumerate(pair))}}

        def answer(route: Any, name: str, plots: Any = plots) -> None:
            reply(route, log("a line") if name.endswith("/logs") else job(row("j"), curves=plots))

        page = Stub(browser, order["static"], answer).page
        page.goto(f"{PAGE}#/job/m/j")
        plot = page.get_by_role("img", name="auc over steps")
        labels[name] = plot.locator("text[x='48']").all_text_contents()
    return labels


def long_keys(browser: Any, order: Order) -> dict[str, Any]:
    """Two series have long names, so that their key does not fit next to the plot's title."""
    name = "mean_absolute_error_of_the_delay_in_minutes"
    plots = {name: {f"{prefix}_{name}": [[1, 2], [2, 3]] for prefix in ("train", "val")}}

    def answer(route: Any, path: str) -> None:
        reply(route, log("a line") if path.endswith("/logs") else job(row("j"), curves=plots))

    page = Stub(browser, order["static"], answer).page
    page.goto(f"{PAGE}#/job/m/j")
    plot = page.get_by_role("img", name="over steps")
    plot.wait_for()
    boxes = [text.bounding_box() for text in plot.get_by_text("delay in minutes").all()]
    return {"plot": plot.bounding_box(), "texts": boxes}


def numbers(browser: Any, order: Order) -> dict[str, Any]:
    """A job is slow and cheap; another one is fast and expensive, and has overshot its last step."""
    slow = {"step": 3, "of": 9, "rate": 0.34, "cost_usd": 0.0032}
    fast = {"step": 1002, "of": 1000, "rate": 17_703.4, "cost_usd": 12_345.678}
    shown = {}
    for name, fields in {"slow": slow, "fast": fast}.items():

        def answer(route: Any, path: str, fields: Any = fields) -> None:
            reply(route, log("a line") if path.endswith("/logs") else job(row("j", **fields)))

        page = Stub(browser, order["static"], answer).page
        page.goto(f"{PAGE}#/job/m/j")
        page.get_by_role("heading", name="Lineage").wait_for()
        titles = ("Progress", "Throughput", "Estimated cost")
        cards = [page.locator(f".cards div:has(dt:text-is('{title}')) dd") for title in titles]
        shown[name] = [card.inner_text().splitlines()[-1] for card in cards]
    return shown


def slow_cancellation(browser: Any, order: Order) -> dict[str, Any]:
    """The user wants to leave the dialog while the cancellation is under way, which then fails."""
    detail = job(row("j", state="RUNNING"), cancellable=True, may_change=True)
    held: list[Any] = []

    def answer(route: Any, name: str) -> None:
        if name.endswith("/cancel"):
            held.append(route)
        else:
            reply(route, log("a line") if name.endswith("/logs") else detail)

    page = Stub(browser, order["static"], answer).page
    page.goto(f"{PAGE}#/job/m/j")
    page.get_by_role("button", name="Cancel …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("wrong data")
    dialog.get_by_role("button", name="Cancel job").click()
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    kept = dialog.is_visible()
    disabled = page.locator("#ask-no").is_disabled()
    body = {"error": "the backend does not respond", "hint": "try again"}
    held[0].fulfill(status=503, body=json.dumps(body), content_type="application/json")
    shown = dialog.get_by_text("Try again.")
    shown.wait_for()
    text = shown.text_content()
    return {"open": kept, "disabled": disabled, "error": text, "free": page.locator("#ask-no").is_enabled()}


def login_of_a_proxy(browser: Any, order: Order) -> dict[str, Any]:
    """The session at a proxy has expired: it answers with its login page."""

    def answer(route: Any, _: str) -> None:
        route.fulfill(body="<html>Log in</html>", content_type="text/html")

    page = Stub(browser, order["static"], answer).page
    page.goto(PAGE)
    return {"shown": page.get_by_role("alert").inner_text()}


def plain_percent(browser: Any, order: Order) -> dict[str, Any]:
    """The address of a job whose name has a percent sign, typed by hand."""
    asked: list[str] = []

    def answer(route: Any, name: str) -> None:
        asked.append(name)
        if name.startswith("api/log"):
            reply(route, log("first"))
        else:
            reply(route, job(row("grown-50%")))

    page = Stub(browser, order["static"], answer).page
    page.goto(f"{PAGE}#/job/m/grown-50%")
    page.get_by_role("heading", name="grown-50%").wait_for()
    return {"asked": asked[0]}


def job(shown: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The API's response about one job."""
    return {
        "row": shown, "job_dir": "gs://b/m/j", "owner": {}, "inputs": {}, "spec": {"env": []}, "history": [],
        "curves": {}, "report": None, "cancellable": False, "may_be_tried_again": False, "stored_logs": [],
        "may_change": False, "tensorboard": "", "console": "", "links": {}, **fields,
    }  # fmt: skip


def log(text: str) -> dict[str, Any]:
    lines = [{"replica": "chief-0", "text": text, "time": None}]
    return {"lines": lines, "cursor": text, "more": False, "wait": 0.0}


def see(browser: Any, order: Order) -> dict[str, Any]:
    scenes = (
        last_page, late_response, other_attempt, cancel_in_pause, champion_again, skip_link, announcements,
        unread_bucket, busy_server, last_lines, axis_labels, long_keys, numbers,
        slow_cancellation, login_of_a_proxy, plain_percent,
    )  # fmt: skip
    return {scene.__name__: scene(browser, order) for scene in scenes}


if __name__ == "__main__":
    sys.exit(visit(see))
