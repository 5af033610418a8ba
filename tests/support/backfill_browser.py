"""Starts a backfill in Airflow's UI, in a real browser, as a user would.

Run by ``test_backfill.py`` (see ``scripts/visit.py``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scripts.visit import SIZE, Order, login, visit

PATIENCE = 300_000  # milliseconds


def see(browser: Any, order: Order) -> dict[str, str]:
    page = browser.new_page(viewport=SIZE, color_scheme="light")
    page.set_default_timeout(PATIENCE)
    try:
        return _backfill(page, order)
    finally:
        page.screenshot(path=str(Path(order["out"]) / "backfill.png"))


def _backfill(page: Any, order: Order) -> dict[str, str]:
    page.goto(f"{order['url']}/")
    login(page, order)
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
    summary = form.get_by_text("will be triggered.")
    summary.wait_for()
    words = str(summary.inner_text())
    page.screenshot(path=str(Path(order["out"]) / "backfill-form.png"))
    form.get_by_role("button", name="Run Backfill").click()
    page.get_by_text("Backfill generated").first.wait_for()
    return {"summary": words}


if __name__ == "__main__":
    sys.exit(visit(see))
