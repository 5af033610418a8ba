"""Uses the page in a real browser as a user would; run by ``test_page.py`` (see ``scripts/visit.py``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scripts.visit import SIZE, Order, login, visit

PATIENCE = 300_000  # milliseconds


class Visit:
    """A user's visit, beginning with the login."""

    def __init__(self, browser: Any, order: Order) -> None:
        self.order, self.url = order, order["url"]
        self.context = browser.new_context(viewport=SIZE, color_scheme="light")
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))

    def all(self) -> dict[str, Any]:
        seen: dict[str, Any] = {"before_login": self._before_login()}
        login(self.page, self.order)
        seen["navigation"] = self._through_the_navigation()
        seen["job"] = self._job()
        seen["dark"] = self._dark()
        seen["run_tab"] = self._run_tab()
        seen["hostile"] = self._hostile()
        seen["narrow"] = self._narrow()
        seen["model"] = self._model()
        seen["cancelled"] = self._cancel()
        return {**seen, "elsewhere": self.elsewhere, "errors": self.errors}

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:", "about:")):
            self.elsewhere.append(url)

    def _before_login(self) -> str:
        self.page.goto(f"{self.url}/mlengine/page")
        self.page.wait_for_selector("input[name=username]")
        return str(self.page.url)

    @property
    def frame(self) -> Any:
        return self.page.frame_locator("iframe[src*='/mlengine/page']")

    def _through_the_navigation(self) -> str:
        self.page.goto(f"{self.url}/")
        self.page.get_by_role("button", name="Browse").click()
        self.page.get_by_text("Models & jobs").first.click()
        self.frame.get_by_role("link", name=self.order["job"]).wait_for()
        self._shot("page-jobs")
        return str(self.frame.locator("table").inner_text())

    def _job(self) -> dict[str, Any]:
        self.frame.get_by_role("link", name=self.order["job"]).click()
        self.frame.locator("#log div").first.wait_for()
        self.page.wait_for_timeout(1500)
        self._shot("page-job")
        report = self.frame.frame_locator("#report")
        return {
            "log": self.frame.locator("#log").inner_text(),
            "head": self.frame.locator("main").inner_text(),
            "report": report.locator("body").inner_text(),
        }

    def _dark(self) -> dict[str, Any]:
        """The page follows the theme of Airflow's own UI rather than that of the operating system."""
        self.page.evaluate("localStorage.setItem('theme', 'dark')")
        self.page.goto(f"{self.url}/plugin/mlengine")
        self.frame.get_by_role("link", name=self.order["job"]).wait_for()
        self.page.wait_for_timeout(1000)
        self._shot("page-jobs-dark")
        found = {
            "host": self.page.evaluate("document.documentElement.className"),
            "page": self.frame.locator("html").get_attribute("data-theme"),
        }
        self.page.evaluate("localStorage.setItem('theme', 'light')")
        return found

    def _run_tab(self) -> str:
        run = self.order["run"].replace("+", "%2B").replace(":", "%3A")
        self.page.goto(f"{self.url}/dags/{self.order['dag']}/runs/{run}/plugin/mlengine-run")
        self.frame.locator("table").wait_for()
        self._shot("page-run")
        return str(self.frame.locator("table").inner_text())

    def _hostile(self) -> dict[str, Any]:
        self.page.goto(f"{self.url}/mlengine/page#/job/{self.order['hostile']}")
        self.page.locator("#log div").first.wait_for()
        self.page.wait_for_timeout(1000)
        return {
            "text": self.page.locator("main").inner_text(),
            "ran": self.page.evaluate("window.pwned === undefined ? 'nothing' : 'something'"),
            "made": self.page.locator("main img, main script").count(),
        }

    def _narrow(self) -> dict[str, Any]:
        """On a phone's screen nothing is wider than the window, and the page can be used with the keyboard."""
        self.page.set_viewport_size({"width": 390, "height": 800})
        self.page.goto(f"{self.url}/mlengine/page#/jobs")
        link = self.page.get_by_role("link", name=self.order["job"])
        link.wait_for()
        self._shot("page-narrow")
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        for _ in range(40):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("document.activeElement.textContent") == self.order["job"]:
                break
        self.page.keyboard.press("Enter")
        self.page.locator("#log").wait_for()
        address = self.page.url
        self.page.set_viewport_size(SIZE)
        return {"too_wide": wide, "address": address}

    def _model(self) -> dict[str, Any]:
        self.page.goto(f"{self.url}/plugin/mlengine")
        self.frame.get_by_role("link", name="Models").click()
        self.frame.get_by_role("link", name=self.order["model"], exact=True).click()
        self.frame.get_by_role("heading", name="History").wait_for()
        self._shot("page-model")
        return {"text": self.frame.locator("main").inner_text(), "dots": self.frame.locator("circle.dot").count()}

    def _cancel(self) -> dict[str, Any]:
        """The cancel button asks for confirmation and requires a reason."""
        self.page.goto(f"{self.url}/plugin/mlengine")
        self.frame.get_by_role("link", name=self.order["running"]).click()
        self.frame.get_by_role("button", name="Cancel …").click()
        yes = self.frame.get_by_role("button", name="Cancel job")
        yes.click()  # without a reason: the browser keeps the dialog open
        kept_open = self.frame.locator("dialog[open]").count()
        self._shot("page-cancel")
        self.frame.locator("#ask-why").fill("the data are wrong")
        yes.click()
        self.frame.locator("h1 + p .chip.CANCELLED").wait_for()
        return {"asked": kept_open, "text": self.frame.locator("main").inner_text()}

    def _shot(self, name: str) -> None:
        self.page.screenshot(path=str(Path(self.order["out"]) / f"{name}.png"))


if __name__ == "__main__":
    sys.exit(visit(lambda browser, order: Visit(browser, order).all()))
