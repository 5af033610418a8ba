"""Types of JSON Lines columns: inferred from the beginning, and held against every row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats import jsonl
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.sources import LocalFile

ROWS = 300


@pytest.mark.parametrize(
    ("first", "last", "kind", "narrow"),
    [
        ("1", "1.5", pa.int64(), True),
        ("1", "99999999999999999999", pa.int64(), False),
        ("1", '"abc"', pa.int64(), False),
        ("1", "true", pa.int64(), False),
        ("1.5", '"abc"', pa.float64(), False),
        ("true", "3", pa.bool_(), False),
        ('"a"', "5", pa.string(), False),
    ],
)
def test_a_value_of_another_type_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, last: str, kind: pa.DataType, narrow: bool
) -> None:
    monkeypatch.setattr(jsonl, "_BLOCK", 1024)
    path = tmp_path / "part-0.jsonl"
    path.write_text("".join(f'{{"id": {row}, "x": {first}}}\n' for row in range(ROWS)) + f'{{"x": {last}}}\n')
    files = [LocalFile(path.name, path)]
    schema = jsonl.FORMAT.infer(files, {})
    assert schema.field("x").type == kind
    name = {"double": "float64"}.get(str(kind), str(kind))
    with pytest.raises(DatasetError) as caught:
        list(jsonl.FORMAT.batches(files, schema, 64))
    assert caught.value.message == f"{path}, line 301: column 'x' has the value {last}, and its type is {name}"
    assert isinstance(caught.value, NarrowTypeError) is narrow
