"""Runs the commands and samples of the page "Bring your own data" in order, on small tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from mlengine import cli, datasets
from mlengine.cli.exit_codes import ExitCode
from mlengine.core.layout import dataset_dir
from mlengine.storage.client import Storage
from tests.support import tables
from tests.support.manual import BLOCKS, COMMANDS, words

pytestmark = pytest.mark.integration

PAGE = "datasets.md"


def churn(rows: int, seed: int, first: int) -> pa.Table:
    table = tables.people(rows, seed, first)
    return table.rename_columns(["customer", *table.column_names[1:]])


@pytest.fixture
def place(storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the page names."""
    for split, rows, seed in (("train", 1_000, 1), ("heldout", 300, 2)):
        tables.write(churn(rows, seed, seed * 10_000), tmp_path / "november" / split / "part-0.parquet")
    tables.write(churn(2_000, 4, 40_000), tmp_path / "people.csv")
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    given, _ = words(command)
    return cli.main([word for word in given if word != "VERSION"])


def test_the_commands_of_the_page_work(
    storage: Storage, bucket: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.client.create_bucket("warehouse")
    storage.upload(place / "november/heldout/part-0.parquet", "gs://warehouse/churn/2026-12/heldout/part-0.parquet")
    later = tables.write(churn(1_100, 3, 30_000), place / "december.parquet")
    storage.upload(later, "gs://warehouse/churn/2026-12/train/part-0.parquet")
    commands = [command for block, command in COMMANDS if PAGE in block.place and " churn" in command]
    added = [command for command in commands if " add " in command]
    assert len(added) == 3
    for command in added:
        assert run(command) == 0, capsys.readouterr().err
    assert set(datasets.list_versions(storage, bucket, "churn")) == {"2026-11-01", "2026-12-01", "v1"}
    december = datasets.load_manifest(storage, bucket, "churn", "2026-12-01")
    assert (december.by_reference, december.schema.target, december.license) == (True, "left", "internal")
    shared = datasets.load_manifest(storage, bucket, "churn", "v1")
    assert shared.heldout_policy == "rolling"
    for command in commands:
        if " add " not in command:
            expected = ExitCode.DIFFERENT if " diff " in command else ExitCode.OK
            assert run(command) == expected, f"{command}: {capsys.readouterr().err}"


def test_the_python_samples_of_the_page_work(
    storage: Storage, bucket: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [block.text for block in BLOCKS if block.language == "python" and PAGE in block.place]
    reader = next(text for text in samples if "for file in manifest" in text)
    check = next(text for text in samples if "def enough_customers" in text)
    found: dict[str, Any] = {}
    exec(check, found)
    terms: dict[str, Any] = {"license": "internal", "source": "x", "target": "left", "key": "customer"}
    manifest = datasets.add(
        storage, bucket, "churn", "2026-11-01", place / "november", own_checks=[found["enough_customers"]], **terms
    )
    assert manifest.checks[-1].name == "enough_customers"
    uri = dataset_dir(bucket, "churn", "2026-11-01")
    name = bucket.removeprefix("gs://")
    blob = lambda uri: storage.client.bucket(name).blob(uri.removeprefix(f"{bucket}/"))  # noqa: E731
    import pyarrow.parquet

    scope: dict[str, Any] = {"json": json, "blob": blob, "args": SimpleNamespace(dataset=uri), "pyarrow": pyarrow}
    exec(reader, scope)
    assert (scope["table"].num_rows, scope["target"], scope["classes"]) == (1_000, "left", [0, 1])
    usage = next(text for text in samples if "datasets.open_split(" in text).replace("gs://BUCKET", bucket)
    scope = {"Path": Path}
    exec(usage, scope)
    assert scope["version"] == "2026-11-01"
    assert scope["batch"].schema.names == ["age", "city"]
    assert list((place / "cache" / "churn").iterdir())
