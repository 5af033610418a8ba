"""The reference describes each key of each JSON document."""

from __future__ import annotations

from pathlib import Path
from typing import is_typeddict

from mlengine.cli import documents

REFERENCE = Path(__file__).parents[3] / "docs" / "reference.md"


def test_each_json_document_is_in_the_reference() -> None:
    text = REFERENCE.read_text("utf-8").partition("### JSON documents")[2]
    found = [one for one in vars(documents).values() if is_typeddict(one)]
    assert len(found) > 8
    for one in found:
        assert f"| `{one.__name__}` | {', '.join(f'`{key}`' for key in one.__annotations__)} |" in text
