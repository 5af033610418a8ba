"""Tests Croissant metadata: the real ``mlcroissant`` reads a version's records, and metadata can define a version."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlengine import cli, datasets
from mlengine.core.dataset import Manifest
from mlengine.core.layout import dataset_dir
from mlengine.datasets import croissant
from mlengine.datasets.croissant_import import read_croissant
from mlengine.datasets.register import Options
from mlengine.storage.client import Storage
from tests.support import tables
from tests.support.environments import environment, packages

pytestmark = pytest.mark.integration

READER = Path(__file__).with_name("croissant_reader.py")


@pytest.fixture(scope="session")
def mlcroissant() -> Path:
    return environment("mlcroissant[parquet,image]==1.1.1")


def add(storage: Storage, bucket: str, path: Path | str, **fields: Any) -> Manifest:
    given = {"license": "CC0-1.0", "source": "tests", "limits": {"class-balance": 1.0}, **fields}
    return datasets.add(storage, bucket, "people", "2026-11-01", path, **given)


def records(python: Path, path: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run([python, READER, path, *options], capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("errors") == []
    assert croissant.CONFORMS_TO in found.pop("conforms_to")
    return found


def test_mlcroissant_reads_the_rows_of_tables(storage: Storage, bucket: str, tmp_path: Path, mlcroissant: Path) -> None:
    folder = tables.version(tmp_path / "given", "parquet", train=50, heldout=20)
    tables.write(tables.people(30, 77, first=900), folder / "train" / "part-1.parquet")
    add(storage, bucket, folder, target="left", key="id")
    root = dataset_dir(bucket, "people", "2026-11-01")
    copy = datasets.fetch(storage, root, tmp_path / "cache")
    assert (copy / croissant.CROISSANT).read_bytes() == storage.read(f"{root}/{croissant.CROISSANT}")
    found = records(mlcroissant, copy / croissant.CROISSANT)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 80, "heldout": 20}
    first = tables.people(20, 99, first=50).to_pylist()[0]
    assert found["heldout"][0] == {**first, "income": pytest.approx(first["income"])}


def test_mlcroissant_reads_images_with_their_classes(
    storage: Storage, bucket: str, tmp_path: Path, mlcroissant: Path
) -> None:
    for split in ("train", "heldout"):
        for label, grey in (("dark", 3), ("light", 250)):
            path = tmp_path / "given" / split / label / f"{split}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(grey + (split == "heldout")))
    add(storage, bucket, tmp_path / "given")
    copy = datasets.fetch(storage, dataset_dir(bucket, "people", "2026-11-01"), tmp_path / "cache")
    found = records(mlcroissant, copy / croissant.CROISSANT)
    assert sorted((row["label"], row["image"]) for row in found["train"]) == [("dark", 3), ("light", 250)]


def _png(grey: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes([0, grey])))
        + chunk(b"IEND", b"")
    )


def test_metadata_of_a_version_by_reference_is_valid(
    storage: Storage, bucket: str, tmp_path: Path, mlcroissant: Path
) -> None:
    for path in tables.version(tmp_path / "given", "parquet").rglob("*.parquet"):
        storage.upload(path, f"{bucket}/raw/{path.relative_to(tmp_path / 'given').as_posix()}")
    manifest = add(storage, bucket, f"{bucket}/raw", target="left")
    (tmp_path / "croissant.json").write_bytes(croissant.to_bytes(manifest, f"{bucket}/x"))
    assert records(mlcroissant, tmp_path / "croissant.json", "--metadata") == {}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server that serves ``tmp_path/web``."""
    (tmp_path / "web").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_version_is_registered_from_metadata(
    storage: Storage, bucket: str, tmp_path: Path, web: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = add(storage, bucket, tables.version(tmp_path / "given", "parquet"), target="left", key="id", task="binary")
    copy = datasets.fetch(storage, dataset_dir(bucket, "people", "2026-11-01"), tmp_path / "cache")

    def again(name: str, path: Path) -> tuple[int, str]:
        command = ["datasets", "add", name, "v1", "--from-croissant", str(path), "--task", "binary"]
        code = cli.main([*command, "--bucket", bucket])
        return code, "".join(capsys.readouterr())

    assert again("local", copy / croissant.CROISSANT)[0] == 0
    manifest = datasets.load_manifest(storage, bucket, "local", "v1")
    assert (manifest.digest, manifest.license) == (first.digest, "CC0-1.0")
    data = json.loads((copy / croissant.CROISSANT).read_bytes())
    for item in data["distribution"]:
        if "contentUrl" in item:
            target = tmp_path / "web" / item["contentUrl"]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((copy / item["contentUrl"]).read_bytes())
            item["contentUrl"] = f"{web}/{item['contentUrl']}"
    (tmp_path / "remote.json").write_text(json.dumps(data))
    assert again("remote", tmp_path / "remote.json")[0] == 0
    assert datasets.load_manifest(storage, bucket, "remote", "v1").digest == first.digest
    target.write_bytes(b"other")
    code, text = again("damaged", tmp_path / "remote.json")
    assert code == 1
    assert "in the metadata" in text
    (tmp_path / "none.json").write_text("{}")
    code, text = again("none", tmp_path / "none.json")
    assert (code, "none.json is not Croissant metadata" in text) == (1, True)


FILE = {"@type": "cr:FileObject", "name": "a.csv", "contentUrl": "a.csv"}


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"distribution": [{"@type": "cr:FileObject", "contentUrl": "a.csv"}]}, "KeyError('@id')"),
        ({"distribution": ["a.csv"]}, "TypeError"),
        ({"distribution": [FILE], "recordSet": ["a"]}, "AttributeError"),
    ],
)
def test_invalid_metadata_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metadata: dict[str, Any], reason: str
) -> None:
    (tmp_path / "croissant.json").write_text(json.dumps(metadata))
    command = ["datasets", "add", "d", "v1", "--from-croissant", str(tmp_path / "croissant.json")]
    assert cli.main([*command, "--bucket", "gs://bucket"]) == 1
    assert f"croissant.json is not Croissant metadata: {reason}" in capsys.readouterr().err


def test_a_single_object_is_accepted_in_place_of_a_list(tmp_path: Path) -> None:
    """JSON-LD allows this."""
    field = {"name": "left", "dataType": ["sc:Boolean", "cr:Label"], "source": {"extract": {"column": "left"}}}
    metadata = {"distribution": FILE, "recordSet": {"field": field, "key": {"@id": "people/id"}}}
    (tmp_path / "croissant.json").write_text(json.dumps(metadata))
    place, options = read_croissant(str(tmp_path / "croissant.json"), Options(), tmp_path, print)
    assert (place, options.roles.target, options.roles.key) == (str(tmp_path), "left", "id")


@pytest.mark.parametrize(
    ("urls", "prefix"),
    [
        (["gs://b/a/x.csv"], "gs://b/a/"),
        (["gs://b/a/train/x.csv", "gs://b/a/test/x.csv"], "gs://b/a/"),
        (["gs://b/one/data/x.csv", "gs://b/two/data/x.csv"], "gs://b/"),
        (["gs://b/x.csv", "gs://b/a/x.csv"], "gs://b/"),
    ],
)
def test_files_in_a_bucket_are_registered_from_their_common_folder(
    tmp_path: Path, urls: list[str], prefix: str
) -> None:
    files = [{**FILE, "name": str(number), "contentUrl": url} for number, url in enumerate(urls)]
    (tmp_path / "croissant.json").write_text(json.dumps({"distribution": files}))
    assert read_croissant(str(tmp_path / "croissant.json"), Options(), tmp_path, print)[0] == prefix


SCHEMA = """
import pandera.pandas as pa
people = pa.DataFrameSchema({"age": pa.Column(int, pa.Check.in_range(18, 79))}, name="people")
strict = pa.DataFrameSchema({"age": pa.Column(int, pa.Check.in_range(18, 60))}, name="strict")
"""


def test_a_pandera_schema_works_as_a_check(storage: Storage, bucket: str, tmp_path: Path) -> None:
    found = packages("pandera==0.35.0", "typing_inspect", "typeguard", "mypy_extensions")
    (tmp_path / "schemas.py").write_text(SCHEMA)
    tables.version(tmp_path / "given", "parquet")
    program = "import sys; from mlengine.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "datasets", "add", "people", "v1", str(tmp_path / "given")]
    command += ["--license", "x", "--source", "x", "--bucket", bucket, "--target", "left"]
    plugins = Path(cli.__file__).parents[2]

    def run(check: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": f"{plugins}:{found}"}
        return subprocess.run(
            [*command, "--check", check], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
        )

    failed = run("schemas:strict")
    assert failed.returncode == 1
    assert "  - strict: split train: " in failed.stderr
    passed = run("schemas:people")
    assert passed.returncode == 0, passed.stderr
