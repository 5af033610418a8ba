"""Finds the files of a dataset in a directory or under a prefix, and the split that each belongs to.

The path of a file names its split (:mod:`~mlengine.datasets.split_names`). If no path does, all files are training
rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlengine.core.dataset import FILE_FORMATS
from mlengine.core.errors import DatasetError
from mlengine.core.plural import number_of
from mlengine.datasets.formats import Format, format_named, format_of
from mlengine.datasets.sources import LocalFile, ObjectFile, SourceFile
from mlengine.datasets.split_names import NAMES, split_of, split_of_folder
from mlengine.storage.client import Storage

# Files that are left out in any folder. Documents are left out by suffix, in versions of tables and images.
_NO_DATA = re.compile(
    r"[._].*|(readme|licen[cs]e|copying|changelog)(\.(md|txt|rst|html|pdf))?|(croissant|manifest)\.json", re.I
)
# Folders whose files are copies or incomplete: of Jupyter (``.ipynb_checkpoints``), of git, or of a Spark job that runs
# or has failed.
_NO_DATA_FOLDER = re.compile(r"\..+|_temporary")
_DOCUMENTS = (".md", ".txt", ".rst", ".html", ".pdf")
MOST_FILES = 200_000


@dataclass(frozen=True)
class Found:
    """The files of a dataset.

    :param root: the directory or prefix, as the user gave it.
    :param splits: the files by split, in the order of their paths; ``train`` first.
    """

    root: str
    format: Format
    splits: Mapping[str, list[SourceFile]]
    by_reference: bool = False


def find(storage: Storage, source: str, *, file_format: str | None = None, heldout: str | None = None) -> Found:
    """The files under ``source``, a directory, a file, or a ``gs://`` prefix.

    :param file_format: the format; by default, it is derived from the suffixes.
    :param heldout: the location of the held-out files, if they are not under ``source``.
    :raises DatasetError: there are no files, or their splits or formats are ambiguous.
    """
    files, by_reference = _listed(storage, source, file_format), source.startswith("gs://")
    if heldout is not None and heldout.startswith("gs://") != by_reference:
        raise DatasetError(
            f"{source} and {heldout} are not in the same place",
            hint="give two directories, or two gs:// prefixes",
        )
    if heldout is None:
        splits = _assigned(files, source, all_needed=True)
    else:
        splits = _of_two_places(files, _listed(storage, heldout, file_format), source, heldout, file_format)
    data = [file.path for those in splits.values() for file in those]
    chosen = format_named(file_format) if file_format else format_of(data, source)
    splits = {name: those for name, those in splits.items() if those}
    if "train" not in splits:
        raise DatasetError(
            f"{source} has no training files; splits there: {', '.join(splits) or 'none'}",
            hint="put them into a folder train/, or name them train-…",
        )
    for name, those in splits.items():
        for file in those:
            if file.size == 0 and chosen.name != "files":
                raise DatasetError(f"{file.where} (split {name}) is empty", hint="write it again, or remove it")
    order = [name for name in NAMES if name in splits]
    return Found(source, chosen, {name: splits[name] for name in order}, by_reference)


def _listed(storage: Storage, source: str, file_format: str | None) -> list[SourceFile]:
    if source.startswith("gs://"):
        prefix = source if source.endswith("/") else f"{source}/"
        stats = storage.ls(prefix) or storage.ls(source)
        cut = len(prefix) if stats and stats[0].uri.startswith(prefix) else len(source.rsplit("/", 1)[0]) + 1
        files: list[SourceFile] = [
            ObjectFile(stat.uri[cut:], stat, storage) for stat in stats if not stat.uri.endswith("/")
        ]
    else:
        folder = Path(source)
        if folder.is_file():
            files = [LocalFile(folder.name, folder)]
        elif folder.is_dir():
            files = [LocalFile(path.relative_to(folder).as_posix(), path) for path in sorted(_walk(folder))]
        else:
            raise DatasetError(f"{source}: no such directory", hint="give a directory, a file or a gs:// prefix")
    files = _without_documents([file for file in files if not _hidden(file.path)], file_format)
    if not files:
        raise DatasetError(f"{source} has no files", hint="give a directory or gs:// prefix with the data")
    if len(files) > MOST_FILES:
        raise DatasetError(
            f"{source} has {len(files):,} files; a version may have {MOST_FILES:,}",
            hint="pack them into fewer files, as Parquet or TFRecord",
        )
    return files


def _walk(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The files below ``folder``. Symbolic links are followed.

    :param above: the resolved directories that contain ``folder``.
    :raises DatasetError: a directory cannot be read, a link is broken, or a link points to a directory that contains
        it.
    """
    real = folder.resolve()
    if real in above:
        raise DatasetError(f"{folder} is a link to a directory that it is in", hint="remove the link")
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}", hint="make it readable, or move it") from error
    for path in entries:
        if path.is_dir():
            if not _NO_DATA_FOLDER.fullmatch(path.name):
                yield from _walk(path, above | {real})
        elif path.is_file():
            yield path
        elif path.is_symlink() and not _hidden(path.name):
            raise DatasetError(
                f"{path} is a broken link to {path.readlink()}", hint="restore its target, or remove the link"
            )


def _hidden(path: str) -> bool:
    """Whether a path is hidden, a marker file of another program (``_SUCCESS``, ``.part-0.crc``), or a README."""
    *folders, name = path.split("/")
    return _NO_DATA.fullmatch(name) is not None or any(map(_NO_DATA_FOLDER.fullmatch, folders))


def _without_documents(files: list[SourceFile], file_format: str | None) -> list[SourceFile]:
    """The files without documents such as notes, for versions of tables or images.

    In a version of other files they may be data, such as labels in ``.txt``.
    """
    data = [file for file in files if not file.path.lower().endswith(_DOCUMENTS)]
    if file_format:
        return files if file_format == "files" else data
    known = [format_named(name) for name in FILE_FORMATS if name != "files"]
    return data if any(one.owns(file.path) for one in known for file in data) else files


def _of_two_places(
    files: list[SourceFile], apart: list[SourceFile], source: str, heldout: str, file_format: str | None
) -> dict[str, list[SourceFile]]:
    """The splits of a directory or prefix, combined with held-out files in another location.

    One location may contain the other. A file in both belongs to the inner one.

    :raises DatasetError: the folder of some images may be a class or a split; the first location also has held-out
        files; or the other location has files of other splits.
    """
    both = set(map(_identity, files)) & set(map(_identity, apart))
    if len(both) == len(files) == len(apart):
        return _assigned(files, source, all_needed=True)
    if len(both) == len(files):
        apart = [file for file in apart if _identity(file) not in both]
    else:
        files = [file for file in files if _identity(file) not in both]
    train, held = _of_classes(files, "train", file_format), _of_classes(apart, "heldout", file_format)
    splits = {"train": train} if train else _assigned(files, source, all_needed=False)
    if "heldout" in splits:
        own = splits["heldout"][0].path
        raise DatasetError(
            f"{source} has held-out files of its own, such as {own}, and --heldout names {heldout}",
            hint="leave out --heldout, or move these files away",
        )
    splits["heldout"] = held or _prefixed(apart, heldout)
    classes = {
        name: {file.path.split("/")[-2] for file in those} for name, those in (("train", train), ("heldout", held))
    }
    one_sided = (
        [name for name in classes["train"] ^ classes["heldout"] if split_of_folder(name)] if train and held else []
    )
    if one_sided:
        raise DatasetError(
            f"the folder {one_sided[0]!r} may be a class or a split: only one of {source} and {heldout} has it",
            hint="rename it if it is a class, or move it away if it is a split",
        )
    return splits


def _of_classes(files: list[SourceFile], split: str, file_format: str | None) -> list[SourceFile]:
    """Images with paths CLASS/NAME, moved below a folder ``split``; empty if the files do not have this form.

    A class may have the name of a split, such as ``val``, if another class does not.
    """
    pictures = format_named("images")
    folders = {file.path.rpartition("/")[0] for file in files}
    if file_format not in (None, "images") or not all(pictures.owns(file.path) for file in files):
        return []
    if any("/" in folder or not folder for folder in folders) or all(split_of_folder(folder) for folder in folders):
        return []
    return [file.below(split) for file in files]


def _assigned(files: list[SourceFile], source: str, all_needed: bool) -> dict[str, list[SourceFile]]:
    """Assign files to splits.

    :param all_needed: whether a file without a split is an error if other files have one.
    """
    splits: dict[str, list[SourceFile]] = {}
    unknown: list[SourceFile] = []
    for file in files:
        split = split_of(file.path)
        (splits.setdefault(split, []) if split else unknown).append(file)
    if unknown and splits and all_needed:
        shown = ", ".join(file.path for file in unknown[:4])
        raise DatasetError(
            f"{source}: {number_of(len(unknown), 'file')} of no split: {shown}",
            hint="put each file into a folder train/ or heldout/, or begin its name with train- or heldout-",
        )
    if unknown:
        splits.setdefault("train", []).extend(unknown)
    return splits


def _prefixed(files: list[SourceFile], source: str) -> list[SourceFile]:
    """All files of a separate held-out location. They may be named as validation files.

    :raises DatasetError: some are named as training files, or as files of different splits.
    """
    named = {split_of(file.path) for file in files}
    if len(named) > 1 or "train" in named:
        shown = ", ".join(
            next(file.path for file in files if split_of(file.path) == split) for split in sorted(named, key=str)
        )
        raise DatasetError(
            f"--heldout {source} has files of other splits: {shown}",
            hint="name the folder or prefix that has the held-out files only",
        )
    return files


def _identity(file: SourceFile) -> object:
    """An identifier that is equal for two paths of the same file."""
    return file.local.resolve() if isinstance(file, LocalFile) else file.where
