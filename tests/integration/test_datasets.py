"""Tests dataset versions of real digits in a real bucket: registered completely or not at all; verified when read."""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from scripts import mnist

from mlengine import cli, datasets
from mlengine.cli.exit_codes import ExitCode
from mlengine.core.dataset import Manifest
from mlengine.core.errors import DatasetError, StorageConflictError, StorageForbiddenError
from mlengine.core.layout import dataset_dir
from mlengine.datasets import register
from mlengine.datasets import scan as scanning
from mlengine.storage.client import Storage
from mlengine.testing import faults, gcs

pytestmark = pytest.mark.integration

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
HELD_IMAGES, HELD_LABELS = "heldout-images-idx3-ubyte", "heldout-labels-idx1-ubyte"
TRAIN, HELDOUT = 2_000, 1_000


@pytest.fixture(scope="session")
def small(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mnist.subset(digits, tmp_path_factory.mktemp("small"), train=TRAIN, heldout=HELDOUT)


@pytest.fixture
def source(small: Path, tmp_path: Path) -> Path:
    """A copy of the small dataset that the test may modify."""
    return Path(shutil.copytree(small, tmp_path / "source"))


def add(storage: Storage, bucket: str, source: Path, version: str = "2026-06-01", **more: Any) -> Manifest:
    fields = {"license": "CC BY-SA 3.0", "source": "MNIST", "classes": tuple("0123456789"), **more}
    return datasets.add(storage, bucket, "mnist", version, source, **fields)


def grown(digits: Path, target: Path, rows: int) -> Path:
    target.mkdir()
    return mnist.subset(digits, target, train=rows, heldout=HELDOUT)


def test_a_version_is_read_back_unchanged(storage: Storage, bucket: str, small: Path, tmp_path: Path) -> None:
    manifest = add(storage, bucket, small)
    assert (manifest.train.rows, manifest.heldout.rows) == (2000, 1000)
    assert str(manifest.schema.column("image")) == "uint8[28x28]"
    assert sum(manifest.train.statistics["label"].counts.values()) == 2000
    assert datasets.load_manifest(storage, bucket, "mnist", "2026-06-01") == manifest
    assert datasets.verify(storage, bucket, "mnist", "2026-06-01") == []
    copy = datasets.fetch(storage, dataset_dir(bucket, "mnist", "2026-06-01"), tmp_path / "cache")
    for name in (TRAIN_IMAGES, TRAIN_LABELS, HELD_IMAGES, HELD_LABELS):
        assert gzip.decompress((copy / f"{name}.gz").read_bytes()) == (small / name).read_bytes()
    stored = json.loads(storage.read(f"{bucket}/datasets/mnist/2026-06-01/manifest.json"))
    packed = (copy / f"{TRAIN_IMAGES}.gz").read_bytes()
    entry = stored["splits"]["train"]["files"][0]
    assert {name: entry[name] for name in entry if name not in ("rows", "crc32c")} == {
        "column": "image",
        "path": f"{TRAIN_IMAGES}.gz",
        "size": len(packed),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "content_sha256": hashlib.sha256((small / TRAIN_IMAGES).read_bytes()).hexdigest(),
    }


def test_registering_a_version_again_fails_only_with_other_content(
    storage: Storage, bucket: str, source: Path, digits: Path, tmp_path: Path
) -> None:
    first = add(storage, bucket, source)
    before = storage.ls(f"{bucket}/datasets/")
    for name in (TRAIN_IMAGES, HELD_IMAGES):  # compressed with another level: the digits are still the same
        (source / f"{name}.gz").write_bytes(gzip.compress((source / name).read_bytes(), 1))
        (source / name).unlink()
    assert add(storage, bucket, source) == first
    with pytest.raises(DatasetError, match=r"exists with other content \(train: 2,000 rows .* 2,500 rows of"):
        add(storage, bucket, grown(digits, tmp_path / "grown", 2_500))
    assert storage.ls(f"{bucket}/datasets/") == before


def _patch(name: str, at: int, data: bytes) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        content = bytearray((source / name).read_bytes())
        content[at : at + len(data)] = data
        (source / name).write_bytes(content)

    return spoil


def _resize(name: str, change: int) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        content = (source / name).read_bytes()
        (source / name).write_bytes(content[:change] if change < 0 else content + bytes(change))

    return spoil


def _cut_gzip(source: Path) -> None:
    packed = gzip.compress((source / TRAIN_IMAGES).read_bytes())
    (source / TRAIN_IMAGES).unlink()
    (source / f"{TRAIN_IMAGES}.gz").write_bytes(packed[: len(packed) // 2])


def _flip_in_gzip(source: Path) -> None:
    packed = bytearray(gzip.compress((source / TRAIN_LABELS).read_bytes()))
    packed[len(packed) // 2] ^= 0x55
    (source / TRAIN_LABELS).unlink()
    (source / f"{TRAIN_LABELS}.gz").write_bytes(packed)


def _examined_on_what_was_learnt(source: Path) -> None:
    held = (source / HELD_IMAGES).read_bytes()[16:]
    _patch(TRAIN_IMAGES, 16 + 784 * 7, held[784 * 3 : 784 * 5])(source)


def _fewer_labels(source: Path) -> None:
    labels = (source / TRAIN_LABELS).read_bytes()[8:-1]
    (source / TRAIN_LABELS).write_bytes(b"\0\0\x08\x01" + len(labels).to_bytes(4, "big") + labels)


def _all_sevens(source: Path) -> None:
    labels = bytearray((source / TRAIN_LABELS).read_bytes())
    for at in range(8, 8 + 400):
        labels[at] = 7
    (source / TRAIN_LABELS).write_bytes(labels)


def _empty(source: Path) -> None:
    (source / TRAIN_IMAGES).write_bytes(bytes.fromhex("00000803 00000000 0000001c 0000001c"))
    (source / TRAIN_LABELS).write_bytes(bytes.fromhex("00000801 00000000"))


INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
    "an image file is missing": (
        lambda s: (s / HELD_IMAGES).unlink(),
        r"0 IDX files of images in one split, 1 is needed",
    ),
    "no IDX file": (_patch(TRAIN_IMAGES, 0, b"\x89PNG"), r"not an IDX file: it begins with 89 50 4e 47"),
    "an empty file": (_resize(TRAIN_LABELS, -2008), r"train-labels-idx1-ubyte \(split train\) is empty"),
    "truncated in its header": (_resize(TRAIN_LABELS, -2003), r"cut short inside its header"),
    "rows are missing": (_resize(TRAIN_IMAGES, -784 * 100 - 392), r"header says 2000 rows, it has 1899\.5"),
    "bytes are left over": (_resize(TRAIN_LABELS, 1), r"bytes are left after the 2000 rows"),
    "a dimension of 0": (_patch(TRAIN_IMAGES, 8, bytes(4)), r"a dimension is 0"),
    "the compressed file is truncated": (_cut_gzip, r"gzip compression is damaged or cut short"),
    "the compressed file is damaged": (_flip_in_gzip, r"gzip compression is damaged|no IDX|rows|label"),
    "a label too few": (
        _fewer_labels,
        r"train-images-idx3-ubyte has 2000 images, .*train-labels-idx1-ubyte 1999 labels",
    ),
    "labels out of range": (_patch(TRAIN_LABELS, 8, b"\x0a\xff\x0a"), r"10 in 2 rows, 255 in 1 row"),
    "another shape": (
        _patch(HELD_IMAGES, 8, bytes.fromhex("0000000e 00000038")),
        r"uint8\[14x56\], in train uint8\[28x28\]",
    ),
    "labels of two bytes": (
        _patch(TRAIN_LABELS, 0, bytes.fromhex("00000b01 000003e8")),
        r"2000 images, .*train-labels-idx1-ubyte 1000 labels",
    ),
    "held-out images to train on": (
        _examined_on_what_was_learnt,
        r"0\.20 % of the 1,000 held-out rows are training rows too \(0\.10 % allowed; training rows 7, 8, …\)",
    ),
    "classes drifted": (_all_sevens, r"label 7 is 2\d\.\d\d % .*points of change, 5\.00 allowed"),
    "nothing to train on": (_empty, r"has 0 images, .*train-labels-idx1-ubyte 0 labels"),
}


@pytest.mark.parametrize("what", INVALID)
def test_bad_data_is_refused_with_figures_before_the_upload(
    storage: Storage, bucket: str, source: Path, what: str
) -> None:
    spoil, message = INVALID[what]
    spoil(source)
    with pytest.raises(DatasetError, match=message):
        add(storage, bucket, source)
    assert storage.ls(f"{bucket}/") == []


def test_every_reason_is_reported_at_once(storage: Storage, bucket: str, source: Path) -> None:
    _examined_on_what_was_learnt(source)
    _patch(HELD_LABELS, 8, b"\x63")(source)
    with pytest.raises(DatasetError, match=r"2 of \d+ checks failed") as caught:
        add(storage, bucket, source)
    assert "duplicates" in str(caught.value)
    assert "99 in 1 row" in str(caught.value)


def _few_values(source: Path) -> None:
    """Keep only the first pixel of each image, with ten different values, as in a table with few columns."""
    for name in (TRAIN_IMAGES, HELD_IMAGES):
        content = bytearray((source / name).read_bytes())
        for row, at in enumerate(range(16, len(content), 784)):
            content[at : at + 784] = bytes([row % 10]) + bytes(783)
        (source / name).write_bytes(content)


def test_duplicate_rows_are_registered_if_a_reason_is_given(
    storage: Storage, bucket: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _few_values(source)
    with pytest.raises(
        DatasetError, match=r"100\.00 % of the 1,000 held-out rows .*Only 1 % of the held-out rows are different"
    ) as caught:
        add(storage, bucket, source)
    assert "--allow duplicates --reason" in str(caught.value)
    with pytest.raises(DatasetError, match="an exception needs a reason"):
        add(storage, bucket, source, allow=["duplicates"])
    command = ["datasets", "add", "mnist", "2026-06-01", str(source), "--license", "x", "--source", "x"]
    command += ["--bucket", bucket, "--allow", "duplicates", "--reason", "ten distinct rows only"]
    assert cli.main(command) == 0
    assert (
        "accepted although the check duplicates failed: 100.00 % of the 1,000 held-out rows" in capsys.readouterr().out
    )
    manifest = datasets.load_manifest(storage, bucket, "mnist", "2026-06-01")
    (exception,) = manifest.exceptions
    assert (exception.check, exception.reason) == ("duplicates", "ten distinct rows only")
    assert exception.found.startswith("100.00 % of the 1,000 held-out rows")


def test_an_exception_covers_only_the_named_checks(storage: Storage, bucket: str, source: Path) -> None:
    _few_values(source)
    _all_sevens(source)
    with pytest.raises(DatasetError, match=r"1 of \d+ checks failed:\n  - class-balance"):
        add(storage, bucket, source, allow=["duplicates"], reason="meant")
    with pytest.raises(DatasetError, match="no exception can be made from: held-out-set"):
        add(storage, bucket, source, allow=["held-out-set"], reason="meant")
    manifest = add(storage, bucket, source, allow=["duplicates", "class-balance"], reason="meant")
    assert [item.check for item in manifest.exceptions] == ["duplicates", "class-balance"]


def test_a_few_duplicate_rows_are_accepted(storage: Storage, bucket: str, source: Path) -> None:
    held = (source / HELD_IMAGES).read_bytes()[16:]
    _patch(TRAIN_IMAGES, 16 + 784 * 7, held[784 * 3 : 784 * 4])(source)
    assert add(storage, bucket, source, allow=["duplicates"], reason="not needed").exceptions == ()


def test_a_new_version_is_compared_with_the_one_before(
    storage: Storage, bucket: str, source: Path, digits: Path, tmp_path: Path
) -> None:
    add(storage, bucket, source, "v9")
    add(storage, bucket, grown(digits, tmp_path / "v10", 2_500), "v10")
    assert datasets.list_versions(storage, bucket, "mnist") == ["v9", "v10"]
    other = grown(digits, tmp_path / "v11", 3_000)
    _patch(HELD_IMAGES, 16 + 400, b"\x01")(other)
    with pytest.raises(DatasetError, match="must be those of mnist/v10, to the byte"):
        add(storage, bucket, other, "v11")
    drifted = grown(digits, tmp_path / "v12", 3_000)
    _all_sevens(drifted)
    with pytest.raises(DatasetError, match=r"label 7 is .* in mnist/v10"):
        add(storage, bucket, drifted, "v12")
    assert add(storage, bucket, drifted, "v12", limits={"class-balance": 0.3}).train.rows == 3_000
    with pytest.raises(DatasetError, match=r"in mnist/v9: "):  # a late one is compared with v9, the first
        add(storage, bucket, drifted, "v8")


@pytest.fixture
def proxied(
    storage: Storage, gcs_server: gcs.GcsServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[faults.FaultProxy]:
    with faults.before(gcs_server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


def test_a_failed_registration_is_invisible_and_completed_by_the_next(
    storage: Storage, bucket: str, small: Path, proxied: faults.FaultProxy
) -> None:
    proxied.strike(faults.status(403), "POST", "/upload/", body=b"manifest.json")
    with pytest.raises(StorageForbiddenError):
        add(Storage(), bucket, small)
    left = {stat.uri: stat.generation for stat in storage.ls(f"{bucket}/")}
    assert len(left) == 4
    assert datasets.list_versions(storage, bucket, "mnist") == []
    with pytest.raises(DatasetError, match="has no version"):
        datasets.resolve(storage, bucket, "mnist")
    with pytest.raises(DatasetError, match=r"it has no manifest\.json"):
        datasets.fetch(storage, dataset_dir(bucket, "mnist", "2026-06-01"), small)
    add(storage, bucket, small)
    after = {stat.uri: stat.generation for stat in storage.ls(f"{bucket}/")}
    assert {uri: after[uri] for uri in left} == left, "files that were already uploaded must not be uploaded again"
    assert datasets.verify(storage, bucket, "mnist", "2026-06-01") == []


@pytest.mark.parametrize("object_name", [f"{HELD_LABELS}.gz", "manifest.json"])
def test_a_registration_killed_while_it_writes_is_completed_by_the_next(
    storage: Storage, bucket: str, small: Path, proxied: faults.FaultProxy, object_name: str
) -> None:
    proxied.strike(faults.stall(300), "POST", "/upload/", body=rb'"name": ?"[^"]*/' + object_name.encode())
    program = "import sys; from mlengine.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "datasets", "add", "mnist", "v1", str(small)]
    command += ["--license", "x", "--source", "x", "--bucket", bucket]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(mnist.ROOT / "plugins")})
    try:
        deadline = time.monotonic() + 60
        while proxied.unused and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert proxied.unused == []
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert datasets.list_versions(storage, bucket, "mnist") == []
    add(storage, bucket, small, "v1")
    assert datasets.verify(storage, bucket, "mnist", "v1") == []


def test_files_of_a_failed_registration_are_not_mixed_with_other_data(
    storage: Storage, bucket: str, small: Path, digits: Path, tmp_path: Path
) -> None:
    storage.write(f"{bucket}/datasets/mnist/2026-06-01/{TRAIN_IMAGES}.gz", b"of another")
    with pytest.raises(DatasetError, match="another registration is under way, or died") as caught:
        add(storage, bucket, small)
    assert "--discard-partial" in str(caught.value)
    assert datasets.list_versions(storage, bucket, "mnist") == []
    notes = f"{bucket}/datasets/mnist/2026-06-01/raw/notes.txt"
    storage.write(notes, b"a person's")
    add(storage, bucket, small, discard_partial=True)
    assert storage.read(notes) == b"a person's"
    assert datasets.verify(storage, bucket, "mnist", "2026-06-01") == []
    with pytest.raises(DatasetError, match="exists with other content"):  # a complete version is not discarded
        add(storage, bucket, grown(digits, tmp_path / "other", 2_100), discard_partial=True)
    assert datasets.verify(storage, bucket, "mnist", "2026-06-01") == []


def test_a_registration_that_is_completed_meanwhile_is_not_discarded(
    storage: Storage, bucket: str, small: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process registers the version while this one reads its rows."""
    scan = scanning.scan

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(register, "scan", scan)
        add(storage, bucket, small)
        return scan(*arguments)

    monkeypatch.setattr(register, "scan", overtaken)
    with pytest.raises(DatasetError, match="exists with other content"):
        add(storage, bucket, grown(digits, tmp_path / "other", 2_100), discard_partial=True)
    assert datasets.verify(storage, bucket, "mnist", "2026-06-01") == []


def test_a_file_that_another_registration_has_replaced_is_not_discarded(
    storage: Storage, bucket: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced between the listing and the deletion."""
    uri = f"{dataset_dir(bucket, 'mnist', '2026-06-01')}/{TRAIN_IMAGES}.gz"
    storage.write(uri, b"of a registration that died")
    delete = Storage.delete

    def replaced(self: Storage, wanted: str, generation: int | None = None) -> None:
        storage.write(uri, b"of one that is running")
        stat = self.stat(wanted)
        if stat is not None and generation not in {None, stat.generation}:  # fake-gcs-server would delete it
            raise StorageConflictError(f"{wanted} has another generation")
        delete(self, wanted)

    monkeypatch.setattr(Storage, "delete", replaced)
    with pytest.raises(DatasetError, match="another registration is under way"):
        add(storage, bucket, small, discard_partial=True)
    assert storage.read(uri) == b"of one that is running"


def test_concurrent_registrations_of_the_same_data_all_succeed(storage: Storage, bucket: str, small: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        manifests = list(pool.map(lambda _: add(storage, bucket, small), range(4)))
    assert len({manifest.digest for manifest in manifests}) == 1
    assert datasets.verify(storage, bucket, "mnist", "2026-06-01") == []


def test_concurrent_registrations_of_different_data_do_not_mix(
    storage: Storage, bucket: str, digits: Path, tmp_path: Path
) -> None:
    sources = [grown(digits, tmp_path / str(rows), rows) for rows in (1_000, 1_001, 1_002)]

    def race(source: Path) -> str | None:
        try:
            return add(storage, bucket, source, "v1", limits={"class-balance": 1.0}).digest
        except DatasetError:
            return None

    with ThreadPoolExecutor(3) as pool:
        won = [digest for digest in pool.map(race, sources) if digest]
    assert len(won) <= 1
    if won:
        assert datasets.load_manifest(storage, bucket, "mnist", "v1").digest == won[0]
        assert datasets.verify(storage, bucket, "mnist", "v1") == []
    else:  # each found a file of another registration: no version is visible
        assert datasets.list_versions(storage, bucket, "mnist") == []


def test_resolve_returns_a_version_or_lists_the_available_ones(
    storage: Storage, bucket: str, small: Path, digits: Path, tmp_path: Path
) -> None:
    add(storage, bucket, small, "2026-06-01")
    add(storage, bucket, grown(digits, tmp_path / "july", 2_500), "2026-07-01")

    def resolve(**what: object) -> str:
        return datasets.resolve(storage, bucket, "mnist", **what)  # type: ignore[arg-type]

    assert resolve() == "2026-07-01"
    assert resolve(version="2026-06-01", at="2030-01-01") == "2026-06-01"
    assert (
        resolve(at="2026-06-30") == resolve(at=date(2026, 6, 30)) == resolve(at="2026-06-30T22:00:00Z") == "2026-06-01"
    )
    assert resolve(at="2026-07-01") == "2026-07-01"
    for what, message in (
        ({"version": "2026-08-01"}, "no version '2026-08-01'"),
        ({"at": "2026-05-31"}, "no version yet at 2026-05-31"),
        ({"at": "soon"}, "not a date: 'soon'"),
        ({"version": "../x"}, "invalid dataset version"),
    ):
        with pytest.raises(DatasetError, match=message) as caught:
            resolve(**what)
        assert "versions: 2026-06-01, 2026-07-01" in str(caught.value) or "not a" in message or "invalid" in message
    with pytest.raises(DatasetError, match=r"no version '1' of dataset 'mnist'.*versions: 2026-06-01, 2026-07-01"):
        datasets.load_manifest(storage, bucket, "mnist", "1")


def test_versions_without_dates_are_dated_by_their_registration(storage: Storage, bucket: str, small: Path) -> None:
    created = add(storage, bucket, small, "v1").created
    assert datasets.resolve(storage, bucket, "mnist", at=created[:10]) == "v1"
    with pytest.raises(DatasetError, match="no version yet"):
        datasets.resolve(storage, bucket, "mnist", at="2020-01-01")


DAMAGE: dict[str, tuple[Callable[[Storage, str], object], str]] = {
    "missing": (lambda storage, uri: storage.delete(uri), "is missing"),
    "cut": (lambda storage, uri: storage.write(uri, storage.read(uri)[:-1]), r"has \d+ bytes, \d+ in the manifest"),
    "changed": (
        lambda storage, uri: storage.write(uri, storage.read(uri)[:-1] + b"?"),
        r"has sha256 .* in the manifest",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_version_is_detected_and_never_fetched(
    storage: Storage, bucket: str, small: Path, tmp_path: Path, how: str
) -> None:
    add(storage, bucket, small)
    root = dataset_dir(bucket, "mnist", "2026-06-01")
    damage, message = DAMAGE[how]
    damage(storage, f"{root}/{HELD_LABELS}.gz")
    assert [problem.uri for problem in datasets.verify(storage, bucket, "mnist", "2026-06-01")] == [
        f"{root}/{HELD_LABELS}.gz"
    ]
    with pytest.raises(DatasetError, match=rf"{HELD_LABELS}\.gz {message}"):
        datasets.fetch(storage, root, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache" / "mnist").iterdir() if not path.name.endswith(".lock")] == []


def test_a_manifest_of_another_version_is_refused(storage: Storage, bucket: str, small: Path) -> None:
    add(storage, bucket, small)
    root = f"{bucket}/datasets/mnist"
    storage.write(f"{root}/2026-07-01/manifest.json", storage.read(f"{root}/2026-06-01/manifest.json"))
    with pytest.raises(DatasetError, match="is the manifest of mnist/2026-06-01"):
        datasets.load_manifest(storage, bucket, "mnist", "2026-07-01")


def test_a_damaged_local_copy_is_downloaded_again(storage: Storage, bucket: str, small: Path, tmp_path: Path) -> None:
    add(storage, bucket, small)
    root = dataset_dir(bucket, "mnist", "2026-06-01")
    copy = datasets.fetch(storage, root, tmp_path)
    whole = (copy / f"{TRAIN_IMAGES}.gz").read_bytes()
    (copy / f"{TRAIN_IMAGES}.gz").write_bytes(whole[:-1] + b"?")
    (copy / f"{TRAIN_LABELS}.gz").unlink()
    assert datasets.fetch(storage, root + "/", tmp_path) == copy
    assert (copy / f"{TRAIN_IMAGES}.gz").read_bytes() == whole
    assert (copy / f"{TRAIN_LABELS}.gz").is_file()


def _fetch(root: str, cache: str) -> str:
    return str(datasets.fetch(Storage(), root, Path(cache)))


def test_concurrent_processes_download_a_version_once(
    storage: Storage, bucket: str, small: Path, tmp_path: Path, proxied: faults.FaultProxy
) -> None:
    add(storage, bucket, small)
    root = dataset_dir(bucket, "mnist", "2026-06-01")
    proxied.strike(faults.delay(60), "GET", r"/download/.*\.gz")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pending = pool.starmap_async(_fetch, [(root, str(tmp_path / "cache"))] * 3)
        deadline = time.monotonic() + 60
        while len(proxied.seen("GET", "/download/.*/manifest.json")) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        proxied.release()  # the first download continues only now
        copies = pending.get(60)
    assert len(set(copies)) == 1
    assert len(proxied.seen("GET", r"/download/.*\.gz")) == 4


def test_added_removed_and_relabelled_rows_are_counted(
    storage: Storage, bucket: str, source: Path, tmp_path: Path
) -> None:
    old = add(storage, bucket, source, "v1")
    images = bytearray((source / TRAIN_IMAGES).read_bytes())
    images[16 : 16 + 784], images[16 + 784] = images[16 + 784 * 5 : 16 + 784 * 6], 77  # row 0 equals row 5, 1 is new
    (source / TRAIN_IMAGES).write_bytes(images)
    labels = bytearray((source / TRAIN_LABELS).read_bytes())
    labels[8] = labels[8 + 5]
    for row in (10, 20, 30):
        labels[8 + row] = (labels[8 + row] + 1) % 10
    (source / TRAIN_LABELS).write_bytes(labels)
    new = add(storage, bucket, source, "v2")
    readers = [
        datasets.open_split(storage, one, dataset_dir(bucket, "mnist", one.version), "train", tmp_path)
        for one in (old, new)
    ]
    assert datasets.diff_rows(*readers) == datasets.RowDiff(1998, 2, 2, 3)
    assert datasets.diff_rows(readers[0], readers[0]) == datasets.RowDiff(2000, 0, 0, 0)


def test_the_command_line(
    storage: Storage, bucket: str, source: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        code = cli.main(["datasets", *arguments, "--bucket", bucket])
        out, err = capsys.readouterr()
        return code, out + err

    terms = ("--license", "CC BY-SA 3.0", "--source", "MNIST")
    assert run("list") == (0, f"no datasets in {bucket}\n")
    assert run("add", "mnist", "v9", str(source), *terms)[0] == 0
    assert run("add", "mnist", "v10", str(grown(digits, tmp_path / "v10", 2_500)), *terms)[0] == 0
    assert run("list") == (0, "DATASET  VERSIONS  NEWEST\nmnist    2         v10\n")
    assert json.loads(run("list", "--json")[1]) == [{"name": "mnist", "versions": ["v9", "v10"]}]
    code, text = run("list", "mnist")
    assert code == 0
    assert [line.split()[:3] for line in text.splitlines()[1:]] == [["v9", "idx", "2,000"], ["v10", "idx", "2,500"]]
    listed = json.loads(run("list", "mnist", "--json")[1])
    assert [one["version"] for one in listed] == ["v9", "v10"]
    assert json.loads(run("show", "mnist", "--json")[1]) == listed[1]
    assert listed[1]["manifest"] == json.loads(storage.read(f"{bucket}/datasets/mnist/v10/manifest.json"))
    assert "license:    CC BY-SA 3.0\n" in run("show", "mnist", "v9")[1]
    code, text = run("diff", "mnist", "v9", "v10", "--rows")
    assert code == ExitCode.DIFFERENT
    assert "train.rows" in text
    assert "training rows: 2000 kept, 500 added, 0 removed, 0 relabelled" in text
    assert "heldout" not in text
    code, text = run("diff", "mnist", "v9", "v10", "--rows", "--json")
    assert code == ExitCode.DIFFERENT
    assert json.loads(text)["rows"] == {"kept": 2000, "added": 500, "removed": 0, "relabelled": 0}
    assert run("diff", "mnist", "v9", "v9")[0] == 0
    assert run("verify", "mnist") == (0, "mnist/v9: ok\nmnist/v10: ok\n")
    code, text = run("fetch", "mnist", "--to", str(tmp_path / "cache"))
    assert code == 0
    assert Path(text.strip(), "manifest.json").is_file()
    storage.delete(f"{bucket}/datasets/mnist/v9/{HELD_IMAGES}.gz")
    assert [one["ok"] for one in json.loads(run("verify", "mnist", "--json")[1])] == [False, True]
    code, text = run("verify", "mnist")
    assert code == ExitCode.DIFFERENT
    assert f"mnist/v9: damaged\n  {bucket}/datasets/mnist/v9/{HELD_IMAGES}.gz is missing" in text
    code, text = run("add", "mnist", "v9", str(tmp_path / "nowhere"), *terms)
    assert code == 1
    assert "no such directory" in text


def test_unreadable_versions_do_not_hide_the_others(
    storage: Storage, bucket: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["datasets", *arguments, "--bucket", bucket])
        return code, *capsys.readouterr()

    for version in ("v1", "v2"):
        add(storage, bucket, small, version)
    storage.write(f"{bucket}/datasets/My Data/v1/manifest.json", b"{}")
    storage.write(f"{bucket}/datasets/mnist/my backup/manifest.json", b"{}")
    assert run("list") == (0, "DATASET  VERSIONS  NEWEST\nmnist    2         v2\n", "")
    manifest = f"{bucket}/datasets/mnist/v1/manifest.json"
    before = storage.read(manifest)
    storage.write(manifest, b"{")
    code, out, err = run("list", "mnist")
    assert (code, [line.split()[0] for line in out.splitlines()[1:]]) == (1, ["v2"])
    assert manifest in err
    code, out, err = run("list", "mnist", "--json")
    assert (code, [one["version"] for one in json.loads(out)]) == (1, ["v2"])
    code, out, err = run("verify", "mnist", "v1")
    assert code == ExitCode.DIFFERENT
    assert "restore an earlier generation of the object; or delete it, and register the same data again" in out
    storage.delete(manifest)
    add(storage, bucket, small, "v1")
    assert json.loads(storage.read(manifest))["splits"] == json.loads(before)["splits"]
    assert run("verify", "mnist", "v1")[0] == 0


@pytest.mark.parametrize("arguments", [("nosuch",), ("mnist", "v9"), ("Bad/Name", "v1"), ("nosuch", "v1")])
def test_a_missing_version_is_not_reported_as_damaged(
    storage: Storage, bucket: str, small: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    add(storage, bucket, small, "v1")
    assert cli.main(["datasets", "verify", *arguments, "--bucket", bucket, "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "What to do" in err


@pytest.mark.parametrize("target", ["a file", "a file/below"])
def test_the_error_names_a_directory_that_cannot_be_written(
    storage: Storage, bucket: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    add(storage, bucket, small, "v1")
    (tmp_path / "a file").write_text("x")
    assert cli.main(["datasets", "fetch", "mnist", "--to", str(tmp_path / target), "--bucket", bucket]) == 1
    assert f"cannot be written to {tmp_path / target}: " in capsys.readouterr().err
