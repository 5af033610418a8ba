"""A visit to Airflow's UI: the half of :mod:`scripts.chromium` that runs beside the browser.

Imported where playwright is, and this project is not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SIZE = {"width": 1440, "height": 900}

Order = Mapping[str, Any]


def visit(see: Callable[[Any, Order], Mapping[str, Any]]) -> int:
    """Open the browser, and print what ``see(browser, order)`` saw as JSON, the last line of the output."""
    from playwright.sync_api import sync_playwright

    order: Order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=order["browser"], args=["--no-sandbox"])
        try:
            seen = see(browser, order)
        finally:
            browser.close()
    sys.stdout.write(json.dumps(seen) + "\n")
    return 0


def login(page: Any, order: Order) -> None:
    """On whatever page asks for it."""
    page.wait_for_selector("input[name=username]")
    page.fill("input[name=username]", order["user"])
    page.fill("input[name=password]", order["password"])
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)
