"""CONTRIBUTING.md: each file and name in “Where to change what” exists."""

from __future__ import annotations

import re

import pytest

from tests.support.manual import ROOT

PACKAGE = ROOT / "plugins" / "mlengine"


def cells() -> list[str]:
    """The cells of the table's column “change”."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## Where to change what")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [row[1].strip() for row in rows[1:]]


CELLS = cells()


def test_the_table_of_files_is_found() -> None:
    assert len(CELLS) >= 15


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell[:40])
def test_files_exist_and_define_the_names(cell: str) -> None:
    found = re.findall(r"`([\w/]+(?:\.\w+|/))`(?: \(([^)]*)\))?", cell)
    assert found
    for path, names in found:
        file = PACKAGE / path
        assert file.exists(), path
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(class |def |async def )?{name}\b", file.read_text(encoding="utf-8"), re.MULTILINE), (
                name
            )
