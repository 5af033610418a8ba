"""docs/validation.md: the table of ``serving_signature``'s fields agrees with the code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlengine.validation.serving_signature import DENIED_OPS, ServingSignature
from tests.support.manual import ROOT

# An example may need other fields: `features` must name an input.
_COMPLETE: dict[str, Any] = {"inputs": {"pixels": "float32[-1,784]", "key": "int64[-1]"},
                             "outputs": {"digit": "float32[-1,10]", "key": "int64[-1]"}}  # fmt: skip


def documented() -> dict[str, tuple[str, str]]:
    """The table: field → its default and its example."""
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    table = page.split("| field | type | default | example |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return {row[0].strip("` "): (row[2], row[3].strip("`")) for row in rows}


FIELDS = documented()


def test_all_fields_are_documented() -> None:
    assert FIELDS.keys() == ServingSignature().to_json().keys()


@pytest.mark.parametrize("field", sorted(FIELDS.keys() - {"denied_ops"}))
def test_a_default_is_as_documented(field: str) -> None:
    assert json.loads(FIELDS[field][0].strip("`")) == ServingSignature().to_json()[field]


@pytest.mark.parametrize("field", FIELDS)
def test_an_example_is_accepted(field: str) -> None:
    value = json.loads(FIELDS[field][1])
    assert value != ServingSignature().to_json()[field], "an example must show another value than the default"
    others = {} if field in {"inputs", "outputs", "columns"} else _COMPLETE
    assert ServingSignature.from_json({**others, field: value}).to_json()[field] == value


def test_the_documented_denied_ops_are_complete() -> None:
    assert {"PyFunc*", "ReadFile", "PrintV2", "*Send"} <= set(DENIED_OPS)
