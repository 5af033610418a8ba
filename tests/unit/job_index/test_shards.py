"""Rows of one job from two sources, and the content of an index object."""

from __future__ import annotations

import gzip
import json

import pytest

from mlengine.job_index.rows import Row
from mlengine.job_index.shards import FORMAT, SHARDS, Shard, _decode, encode, merged, number_of

ROW = Row("m", "m_1", "local", 1, "SUCCEEDED", 10.0, dag_id="d", run_id="r", claim_generation=5, report_generation=3)


def test_the_row_of_the_newer_objects_wins() -> None:
    assert merged(None, ROW) == ROW
    for newer in (
        ROW._replace(claim_generation=6, report_generation=0, seen=1.0),
        ROW._replace(report_generation=4, seen=1.0),
        ROW._replace(seen=11.0),
    ):
        assert merged(ROW, newer) == newer
        assert merged(newer, ROW) == newer


def test_the_user_of_a_run_is_kept() -> None:
    newer = ROW._replace(seen=11.0)
    assert merged(ROW._replace(by="ann"), newer).by == "ann"
    assert merged(newer, ROW._replace(by="ann")).by == "ann"
    assert merged(ROW._replace(by="ann", run_id="other"), newer).by == ""


def test_jobs_are_spread_over_all_objects() -> None:
    numbers = [number_of("mnist", f"mnist_2026_10_{at:02}_abcdef01") for at in range(400)]
    assert set(numbers) == set(range(SHARDS))
    assert max(map(numbers.count, range(SHARDS))) < 60


def test_shards_survive_serialization() -> None:
    rows = {("m", f"m_{at}"): ROW._replace(job_id=f"m_{at}") for at in range(3)}
    assert _decode(encode(rows), 7) == Shard(7, rows)
    assert encode(rows) == encode(rows), "equal rows must give equal bytes"


def test_an_object_of_a_newer_version_is_left_alone() -> None:
    found = _decode(gzip.compress(json.dumps({"format": FORMAT + 1, "columns": 7}).encode()), 7)
    assert (found.newer, found.rows) == (True, {})


def test_an_object_that_is_truncated_or_too_large_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode({("m", "m_1"): ROW})
    with pytest.raises(ValueError, match="truncated"):
        _decode(data[:-9], 1)
    monkeypatch.setattr("mlengine.job_index.shards._MAX_BYTES", 100)
    with pytest.raises(ValueError, match="too large"):
        _decode(data, 1)
