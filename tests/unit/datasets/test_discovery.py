"""Discovery of the split of each file and of a directory's format."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlengine.core.errors import DatasetError
from mlengine.datasets.discovery import find
from mlengine.datasets.roles import Roles, read_schema
from mlengine.datasets.split_names import split_of
from mlengine.storage.client import Storage


def write(tmp_path: Path, *names: str) -> None:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(tmp_path: Path, *names: str, **options: str) -> tuple[str, dict[str, list[str]]]:
    write(tmp_path, *names)
    result = find(Storage(), str(tmp_path), **options)
    return result.format.name, {name: [file.path for file in files] for name, files in result.splits.items()}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/part-0.parquet", "train"),
        ("year=2026/test/part-0.parquet", "heldout"),
        ("Heldout/x.csv", "heldout"),
        ("val/x.csv", "validation"),
        ("t10k-images-idx3-ubyte.gz", "heldout"),
        ("train_2026.csv", "train"),
        ("test.tfrecord-00000-of-00002", "heldout"),
        ("testimony.csv", None),
        ("trainer/x.csv", None),
        ("part-0.csv", None),
    ],
)
def test_the_split_of_a_path_is_recognised(path: str, split: str | None) -> None:
    assert split_of(path) == split


def test_markers_and_documents_are_excluded(tmp_path: Path) -> None:
    names = ("train/a.parquet", "train/_SUCCESS", "train/.a.crc", "README.md", "LICENSE", "test/b.parquet")
    assert found(tmp_path, *names) == ("parquet", {"train": ["train/a.parquet"], "heldout": ["test/b.parquet"]})


def test_hidden_and_temporary_folders_are_excluded(tmp_path: Path) -> None:
    names = ("train/.ipynb_checkpoints/a.parquet", "test/_temporary/0/b.parquet", ".git/x", ".venv/x.csv")
    assert found(tmp_path / ".data", "train/a.parquet", "test/b.parquet", *names) == (
        "parquet",
        {"train": ["train/a.parquet"], "heldout": ["test/b.parquet"]},
    )


def test_files_without_a_split_are_training_rows(tmp_path: Path) -> None:
    assert found(tmp_path, "b.csv", "a.csv.gz") == ("csv", {"train": ["a.csv.gz", "b.csv"]})


FORMATS = {
    "x.pq": "parquet",
    "x.tsv": "csv",
    "x.ndjson.gz": "jsonl",
    "x.tfrecord.gz": "tfrecord",
    "x.tfrecords-00000-of-00001": "tfrecord",
    "images-idx3-ubyte": "idx",
    "cat/x.JPG": "images",
    "x.wav": "files",
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_recognised_by_suffix(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, f"train/{name}")[0] == FORMATS[name]


def test_ambiguous_or_empty_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such directory"):
        find(Storage(), str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="has no files"):
        find(Storage(), str(tmp_path))
    with pytest.raises(DatasetError, match=r"different formats: train/a\.csv \(csv\), train/b\.wav \(files\)"):
        found(tmp_path, "train/a.csv", "train/b.wav")
    assert found(tmp_path, file_format="files")[0] == "files"
    (tmp_path / "train/b.wav").unlink()
    with pytest.raises(DatasetError, match=r"1 file of no split: other\.csv"):
        found(tmp_path, "other.csv")
    with pytest.raises(DatasetError, match="are not in the same place"):
        find(Storage(), str(tmp_path), heldout="gs://bkt/x")


def test_a_directory_without_training_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no training files; splits there: heldout"):
        found(tmp_path, "test/a.csv")


def test_data_with_names_like_documents_is_kept(tmp_path: Path) -> None:
    names = ("train/images/1.npy", "train/labels/1.txt", "train/license_plate_7.npy")
    assert found(tmp_path, *names, "train/README.txt", "LICENSE.md", "manifest.json") == (
        "files",
        {"train": sorted(names)},
    )


def test_notes_are_excluded_but_tables_with_such_names_are_not(tmp_path: Path) -> None:
    names = ("train/licenses-2025.csv", "train/readme-first.csv", "train/notes.txt", "docs/about.pdf", "CHANGELOG")
    assert found(tmp_path, *names) == ("csv", {"train": ["train/licenses-2025.csv", "train/readme-first.csv"]})


def test_a_folder_of_text_files_is_registered_as_files(tmp_path: Path) -> None:
    assert found(tmp_path, "train/a.txt", "test/b.txt") == (
        "files",
        {"train": ["train/a.txt"], "heldout": ["test/b.txt"]},
    )


def test_links_are_followed(tmp_path: Path) -> None:
    """If linked directories were skipped, training rows would silently be missing."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (data / "train" / "jan").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (data / "train" / "jan" / "a.csv", elsewhere / "b.csv"):
        path.write_text("x")
    (data / "train" / "feb").symlink_to(elsewhere)
    (data / "train" / "mar.csv").symlink_to(elsewhere / "b.csv")
    assert found(data) == ("csv", {"train": ["train/feb/b.csv", "train/jan/a.csv", "train/mar.csv"]})
    (data / "train" / "apr.csv").symlink_to(elsewhere / "lost.csv")
    with pytest.raises(DatasetError, match=r"train/apr\.csv is a broken link to .*lost\.csv"):
        found(data)
    (data / "train" / "apr.csv").unlink()
    (data / "train" / ".apr.csv").symlink_to(elsewhere / "lost.csv")  # hidden files are ignored
    (data / "train" / "again").symlink_to(data)
    with pytest.raises(DatasetError, match="train/again is a link to a directory that it is in"):
        found(data)


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train" / "feb").mkdir(parents=True)
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "feb":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DatasetError, match="train/feb cannot be read: Permission denied"):
        found(tmp_path, "train/a.csv")


def two_places(tmp_path: Path, source: str, heldout: str) -> dict[str, list[str]]:
    result = find(Storage(), str(tmp_path / source), heldout=str(tmp_path / heldout))
    return {name: [file.where.removeprefix(f"{tmp_path}/") for file in files] for name, files in result.splits.items()}


def test_no_file_of_two_places_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, "data/train/a.csv", "data/val/b.csv", "data/c.csv", "later/d.csv")
    assert two_places(tmp_path, "data", "later") == {
        "train": ["data/train/a.csv", "data/c.csv"],
        "validation": ["data/val/b.csv"],
        "heldout": ["later/d.csv"],
    }
    write(tmp_path, "data/test/e.csv")
    with pytest.raises(DatasetError, match=r"data has held-out files of its own, such as test/e\.csv"):
        two_places(tmp_path, "data", "later")
    (tmp_path / "data/test/e.csv").unlink()
    write(tmp_path, "later/train/f.csv")
    with pytest.raises(DatasetError, match=r"--heldout .*later has files of other splits: d\.csv, train/f\.csv"):
        two_places(tmp_path, "data", "later")
    (tmp_path / "later/d.csv").unlink()
    with pytest.raises(DatasetError, match=r"--heldout .*later has files of other splits: train/f\.csv"):
        two_places(tmp_path, "data", "later")


def test_one_place_in_the_other(tmp_path: Path) -> None:
    """A file is in one split only."""
    write(tmp_path, "data/train/a.csv", "data/test/b.csv", "plain/c.csv", "plain/later/d.csv", "val.csv")
    both = {"train": ["data/train/a.csv"], "heldout": ["data/test/b.csv"]}
    assert two_places(tmp_path, "data", "data/test") == both
    assert two_places(tmp_path, "data/train", "data") == both
    assert two_places(tmp_path, "data", "data") == both
    assert two_places(tmp_path, "data/train", "val.csv") == {"train": ["data/train/a.csv"], "heldout": ["val.csv"]}
    assert two_places(tmp_path, "plain", "plain/later") == {"train": ["plain/c.csv"], "heldout": ["plain/later/d.csv"]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.csv.zst", r"no column 'left' for --target: .*train/x\.csv\.zst is in no format that has columns"),
        ("left=1/x.csv", r"no column 'left' for --target: only the names of folders have it, .*train/left=1/x"),
    ],
)
def test_a_role_of_a_column_that_no_file_has_is_refused_with_advice(tmp_path: Path, name: str, message: str) -> None:
    for split in ("train", "heldout"):
        path = tmp_path / split / name
        path.parent.mkdir(parents=True)
        path.write_text("a\n1\n2\n")
    with pytest.raises(DatasetError, match=message):
        read_schema(find(Storage(), str(tmp_path)), Roles(target="left"), {}, None)
