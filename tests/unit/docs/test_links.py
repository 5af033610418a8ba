"""Every link in the manual points to an existing file and heading; every page and picture is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.manual import PAGES, ROOT

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    """A page that cites a test as proof must cite one that exists."""
    for file, name in _NAMED.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / file).exists(), f"{page.name}: {file}"
        assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{page.name}: {file}::{name}"


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert contents.count(f"- {page.name}\n") == 1, page.name


def test_every_picture_is_used() -> None:
    shown = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in (ROOT / "docs" / "img").iterdir():
        assert picture.name in shown, picture.name
