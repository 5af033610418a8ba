"""The IDX reader: round trips, and errors for files of the wrong length."""

from __future__ import annotations

import gzip
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats import idx
from mlengine.datasets.sources import LocalFile

_SIZES = {0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}


def _read(content: bytes) -> tuple[idx.IdxHeader, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        with idx.opened(LocalFile("file", path)) as stream:
            header = idx.read_header(stream, "file")
            return header, b"".join(idx.batches(stream, header, "file", 7))


@st.composite
def _files(draw: st.DrawFn) -> tuple[int, tuple[int, ...], int, bytes]:
    code = draw(st.sampled_from(sorted(_SIZES)))
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    rows = draw(st.integers(0, 20))
    length = rows * math.prod(shape) * _SIZES[code]
    return rows, shape, code, draw(st.randoms(use_true_random=False)).randbytes(length)


@settings(max_examples=60, deadline=None)
@given(_files(), st.booleans(), st.integers(-8, 8))
def test_idx_files_are_read_and_a_wrong_length_is_refused(
    file: tuple[int, tuple[int, ...], int, bytes], packed: bool, change: int
) -> None:
    rows, shape, code, values = file
    content = idx.header_bytes(rows, shape, code) + values
    spoilt = content[:change] if change < 0 else content + bytes(change)
    if packed:
        content, spoilt = gzip.compress(content), gzip.compress(spoilt)
    header, read = _read(content)
    assert (header.rows, header.shape, header.type_code, read) == (rows, shape, code, values)
    assert header.total == header.length + len(values)
    if change:
        with pytest.raises(DatasetError):
            _read(spoilt)


@settings(max_examples=40, deadline=None)
@given(_files(), st.data())
def test_a_truncated_compressed_file_is_refused(
    file: tuple[int, tuple[int, ...], int, bytes], data: st.DataObject
) -> None:
    rows, shape, code, values = file
    packed = gzip.compress(idx.header_bytes(rows, shape, code) + values)
    with pytest.raises(DatasetError):
        _read(packed[: data.draw(st.integers(0, len(packed) - 1))])


@pytest.mark.parametrize("start", [b"", b"\0", b"\0\0\x08", b"\0\1\x08\1", b"\0\0\x07\1", b"\0\0\x08\0", b"PK\3\4"])
def test_other_files_than_idx_are_refused(start: bytes) -> None:
    with pytest.raises(DatasetError, match="not an IDX file"):
        _read(start + b"" if len(start) < 4 else start + bytes(8))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(DatasetError, match=r"nothing\.gz cannot be read: .*No such file"),
        idx.opened(LocalFile("nothing.gz", tmp_path / "nothing.gz")),
    ):
        pass
