"""The part of :mod:`scripts.chromium` that runs in the environment with playwright: start a browser, log in to Airflow.

This project is not installed there.
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
    """Start the browser, and print the result of ``see(browser, order)`` as JSON, as the last line of the output."""
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
    """Log in on the current page."""
    page.wait_for_selector("input[name=username]")
    page.fill("input[name=username]", order["user"])
    page.fill("input[name=password]", order["password"])
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)
