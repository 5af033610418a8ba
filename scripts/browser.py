"""Takes the screenshots for ``make screenshots``: logs in, opens the pages and saves pictures.

It runs in a separate environment that has playwright, but not this project.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.visit import SIZE, Order, login, visit

_HIDE = """clone => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) walk.currentNode.data = walk.currentNode.data.replaceAll(clone, "mlengine");
}"""


def see(browser: Any, order: Order) -> dict[str, Any]:
    page = browser.new_page(viewport=SIZE, color_scheme="light")
    page.goto(f"{order['url']}/")
    login(page, order)
    pages = _pages(order)
    for name, where in pages.items():
        _shoot(page, order, name, where)
    return {"taken": list(pages)}


def _pages(order: Order) -> dict[str, str]:
    """The names of the pictures and their pages, either ``while`` the job trains or ``after`` it."""
    dag, run = order["dag"], quote(order["run"], safe="")
    task = f"dags/{dag}/runs/{run}/tasks"
    if order["when"] == "while":
        return {"page-job": "plugin/mlengine"}
    return {
        "grid": f"dags/{dag}/runs/{run}",
        "graph": f"dags/{dag}/runs/{run}",
        "log": f"{task}/retrain.wait",
        "verdict": f"{task}/retrain.validate",
        "trigger": f"dags/{dag}",
        "trigger-cluster": f"dags/{dag}",
        "page-jobs": "plugin/mlengine",
        "page-model": "plugin/mlengine",
        "report": "plugin/mlengine",
        "page-dark": "plugin/mlengine",
    }


def _shoot(page: Any, order: Order, name: str, where: str) -> None:
    if name == "page-dark":
        page.evaluate("localStorage.setItem('theme', 'dark')")
    page.goto(f"{order['url']}/{where}")
    if where.startswith("dags/"):
        _expand(page)
    _PREPARE.get(name, lambda _: None)(page)
    page.wait_for_timeout(4000)  # the UI renders some elements after all requests have finished
    _save(page, order, name)
    if name == "graph":
        page.get_by_role("button", name="Show Grid").click()  # the UI remembers the choice


def _graph(page: Any) -> None:
    page.get_by_role("button", name="Show Graph").click()
    _expand(page)


def _trigger(page: Any) -> None:
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("Dataset version").wait_for()


def _cluster(page: Any) -> None:
    _trigger(page)
    page.get_by_role("button", name="Backend and cluster").click()  # one section is open at a time


def _job(page: Any) -> None:
    page.frame_locator("iframe").locator("td.job a").first.click()


def _model(page: Any) -> None:
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Models").click()
    frame.locator("td.job a").first.click()


def _report(page: Any) -> None:
    _model(page)
    frame = page.frame_locator("iframe").first
    frame.locator(".cards a").first.click()
    frame.locator("#report").scroll_into_view_if_needed()


# Functions that prepare a page before its picture is taken.
_PREPARE = {
    "graph": _graph,
    "trigger": _trigger,
    "trigger-cluster": _cluster,
    "page-job": _job,
    "page-dark": _job,
    "page-model": _model,
    "report": _report,
}


def _expand(page: Any) -> None:
    """Show the tasks inside of groups. The button is disabled if they are already visible."""
    button = page.get_by_role("button", name="Expand all task groups")
    page.wait_for_timeout(2500)
    if button.count() and button.is_enabled():
        button.click()


def _save(page: Any, order: Order, name: str) -> None:
    """Take a picture, with the path of this clone replaced by "mlengine"."""
    for frame in page.frames:
        frame.evaluate(_HIDE, order["clone"])
    page.screenshot(path=str(Path(order["out"]) / f"{name}.png"))


if __name__ == "__main__":
    sys.exit(visit(see))
