"""Which version a run is about: the form, the run's key, the newest; and what nothing stands in for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import mnist

from mlengine import connections
from mlengine.core.errors import DatasetError
from mlengine.core.layout import dataset_dir, join
from mlengine.operators.dataset import ResolveDatasetOperator
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration

VERSIONS = ("2026-01-01", "2026-03-01", "v12")


@pytest.fixture(scope="module")
def registered(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one small version, made once."""
    return mnist.subset(digits, tmp_path_factory.mktemp("digits"), train=300)


@pytest.fixture
def versions(storage: Storage, bucket: str, registered: Path) -> Iterator[str]:
    from mlengine import datasets

    for version in VERSIONS:
        datasets.add(storage, bucket, "digits", version, registered, license="l", source="s")
    connections.connect_storage.cache_clear()
    yield bucket
    connections.connect_storage.cache_clear()


def resolved(bucket: str, *, version: str = "", key: str = "", at: str = "2027-01-01") -> str:
    operator = ResolveDatasetOperator(
        task_id="dataset", dataset="digits", version=version, partition_key=key, at=at, bucket=bucket, gcp_conn_id=None
    )
    result = operator.execute({})
    assert result["uri"] == dataset_dir(bucket, "digits", result["version"])
    assert len(result["digest"]) == 64
    return str(result["version"])


def test_form_then_key_then_newest(versions: str) -> None:
    assert resolved(versions, version="v12", key="2026-01-01") == "v12"
    assert resolved(versions, key="2026-01-01") == "2026-01-01"
    assert resolved(versions, key="v12") == "v12"
    assert resolved(versions) == "2026-03-01"
    assert resolved(versions, at="2026-02-15") == "2026-01-01"


def test_a_date_that_is_no_version_means_the_newest_then(versions: str) -> None:
    assert resolved(versions, key="2026-02-01", at="2026-02-01") == "2026-01-01"


@pytest.mark.parametrize("asked", [{"key": "v13"}, {"version": "2026-02-01"}])
def test_nothing_stands_in_for_a_version_that_was_named(versions: str, asked: dict[str, str]) -> None:
    with pytest.raises(DatasetError, match=r"no version .* versions: v12, 2026-01-01, 2026-03-01"):
        resolved(versions, **asked)


def test_a_damaged_version_is_no_reason_to_take_another(storage: Storage, versions: str) -> None:
    storage.write(join(dataset_dir(versions, "digits", "2026-03-01"), "manifest.json"), b"{")
    with pytest.raises(DatasetError, match=r"2026-03-01/manifest\.json"):
        resolved(versions, key="2026-03-01")
