"""The list in ``docs/security.md`` of code that deletes something names every source file that does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.manual import ROOT

_CALLS = frozenset({"delete", "unlink", "rmtree", "rmdir", "removedirs", "delete_blob", "delete_blobs", "truncate"})


def deletes(file: Path) -> bool:
    """Whether the file calls a function that deletes, by name: ``os.remove`` counts, a set's ``remove`` does not."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                prefix = f"{owner.id}." if isinstance(owner, ast.Name) and owner.id == "os" else ""
                yield prefix + node.func.attr

    return any(name.removeprefix("os.") in _CALLS or name == "os.remove" for name in names())


def test_exactly_the_files_that_delete_are_listed() -> None:
    files = [*(ROOT / "plugins" / "mlengine").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if deletes(file)}
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    section = page.partition("## What deletes")[2].partition("\n## ")[0]
    assert set(re.findall(r"`((?:plugins|scripts)/[\w/]+\.py)`", section)) == found


def test_each_line_of_the_list_names_a_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    section = page.partition("## What deletes")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    assert [row for row in rows if "`tests/" not in row] == []
