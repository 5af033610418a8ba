"""What ``make screenshots`` runs beside a browser: logs in and takes the pictures that an order file asks for.

Runs in an environment of its own, with playwright and without this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

SIZE = {"width": 1440, "height": 900}


def main(path: str) -> int:
    from playwright.sync_api import sync_playwright

    order = json.loads(Path(path).read_text(encoding="utf-8"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=order["browser"], args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(f"page: {error}"))
        page.on("requestfailed", lambda request: troubles.append(f"request: {request.url} {request.failure}"))
        _login(page, order)
        for name, where in _pages(order).items():
            _shoot(page, order, name, where)
        browser.close()
    for trouble in dict.fromkeys(troubles):
        sys.stderr.write(f"  {trouble}\n")
    return 0


def _login(page: Any, order: dict[str, str]) -> None:
    page.goto(f"{order['url']}/")
    page.wait_for_selector("input[name=username]")
    if order["when"] == "while":
        _save(page, order, "login")
    page.fill("input[name=username]", order["user"])
    page.fill("input[name=password]", order["password"])
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)


def _pages(order: dict[str, str]) -> dict[str, str]:
    dag, run = order["dag"], quote(order["run"], safe="")
    task = f"dags/{dag}/runs/{run}/tasks"
    if order["when"] == "while":
        return {"training-log": f"{task}/retrain.wait", "trigger": f"dags/{dag}/trigger/single"}
    return {
        "dags": "dags",
        "grid": f"dags/{dag}/runs/{run}",
        "dag": f"dags/{dag}",
        "log": f"{task}/retrain.wait",
        "verdict": f"{task}/retrain.validate",
        "xcom": f"{task}/retrain.publish/xcom",
    }


def _shoot(page: Any, order: dict[str, str], name: str, where: str) -> None:
    page.goto(f"{order['url']}/{where}")
    page.wait_for_load_state("networkidle", timeout=15_000) if order["when"] == "after" else page.wait_for_timeout(6000)
    page.wait_for_timeout(1500)  # pictures only: the UI draws its graph after its requests are answered
    _save(page, order, name)


def _save(page: Any, order: dict[str, str], name: str) -> None:
    page.screenshot(path=str(Path(order["out"]) / f"{name}.png"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
