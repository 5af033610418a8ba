"""A backfill as a person starts it in Airflow's UI, in a real browser.

Run by ``test_backfill.py`` in an environment with playwright.

Reads an order (JSON) from the file named, and prints what it saw as JSON, the last line of its output.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PATIENCE = 60_000  # milliseconds


def main(path: str) -> int:
    from playwright.sync_api import sync_playwright

    order = json.loads(Path(path).read_text(encoding="utf-8"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=order["browser"], args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        try:
            seen = _backfill(page, order)
        finally:
            page.screenshot(path=str(Path(order["out"]) / "backfill.png"))
            browser.close()
    sys.stdout.write(json.dumps(seen) + "\n")
    return 0


def _backfill(page: Any, order: dict[str, str]) -> dict[str, str]:
    page.goto(f"{order['url']}/")
    page.fill("input[name=username]", order["user"])
    page.fill("input[name=password]", order["password"])
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)
    page.goto(f"{order['url']}/dags/{order['dag']}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.get_by_text("Run this Dag for a range of dates").click()
    for number, day in enumerate((order["first"], order["last"])):
        form.get_by_test_id("datetime-input").nth(number).click()
        date = page.get_by_placeholder("YYYY/MM/DD")
        date.fill(day.replace("-", "/"))
        page.get_by_placeholder("HH:mm").fill("00:00")
        page.keyboard.press("Escape")
        date.wait_for(state="detached")
    told = form.get_by_text("will be triggered.")
    told.wait_for()
    words = str(told.inner_text())
    page.screenshot(path=str(Path(order["out"]) / "backfill-form.png"))
    form.get_by_role("button", name="Run Backfill").click()
    page.get_by_text("Backfill generated").wait_for()
    return {"told": words}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
