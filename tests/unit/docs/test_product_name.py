"""Google renamed Vertex AI: each page says so once, and otherwise uses the old name, which users still search for."""

from __future__ import annotations

import pytest

from tests.support.manual import ROOT

_GENERATED = {"errors.md", "reference.md"}
PAGES = [page for page in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"] if page.name not in _GENERATED]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_about_the_service_names_both_names_once(page: object) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())  # type: ignore[attr-defined]
    assert text.count("Agent Platform") == ("Vertex AI" in text)
