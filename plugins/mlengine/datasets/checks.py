"""What must hold before a dataset version is registered: each check with its figure, its bound, and a sentence.

Reads local files as streams; writes nothing and knows no bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlengine.core.dataset import CheckException, Manifest
from mlengine.core.errors import DatasetError
from mlengine.datasets.formats import idx
from mlengine.datasets.sources import LocalFile

# The four files of a version, as MNIST names them; the second name is the one that MNIST's own test set comes under.
TRAIN_IMAGES = ("train-images-idx3-ubyte",)
TRAIN_LABELS = ("train-labels-idx1-ubyte",)
HELDOUT_IMAGES = ("heldout-images-idx3-ubyte", "t10k-images-idx3-ubyte")
HELDOUT_LABELS = ("heldout-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")

DRIFT_BOUND = 0.05
# The share of held-out rows that may be among the training rows too, in parts of one.
OVERLAP_BOUND = 0.001
# Checks whose failure may be harmless, so that a person can make an exception. All others say that the data is broken,
# or that models of two versions could not be compared.
EXCEPTABLE = ("duplicates", "class balance")


@dataclass(frozen=True)
class Check:
    """One rule, what was found, and what was allowed."""

    name: str
    passed: bool
    value: str
    bound: str
    sentence: str


@dataclass(frozen=True)
class SplitContent:
    """One split, read: its files and what was counted in them. Hashes are of the unpacked bytes."""

    images: Path
    labels: Path
    rows: int
    label_rows: int
    shape: tuple[int, ...]
    dtype: str
    label_dtype: str
    label_shape: tuple[int, ...]
    label_counts: tuple[int, ...]  # by label, as far as labels go; at least as many as there are classes
    images_sha256: str
    labels_sha256: str
    row_hashes: tuple[bytes, ...] = ()  # of the images, in order, if asked for
    # (row here, row in the split it was compared with); of equal rows there, one.
    duplicates: tuple[tuple[int, int], ...] = ()
    overlap: int = 0  # rows of the other split that are among the rows here

    @property
    def identity(self) -> tuple[str, str]:
        return self.images_sha256, self.labels_sha256


def find_file(source: Path, names: Sequence[str]) -> Path:
    """The first of ``names`` in ``source``, as it is or with ``.gz``.

    :raises DatasetError: none is there; lists what is.
    """
    for name in names:
        for path in (source / name, source / f"{name}.gz"):
            if path.is_file():
                return path
    there = ", ".join(sorted(path.name for path in source.iterdir())[:8]) if source.is_dir() else "no such directory"
    raise DatasetError(
        f"{source}: no {' or '.join(names)} (or with .gz); there: {there or 'nothing'}",
        hint="put the images and labels of both splits, in IDX, into one directory",
    )


def read_split(
    images: Path, labels: Path, classes: int, *, other: SplitContent | None = None, keep_hashes: bool = False
) -> SplitContent:
    """Read one split to its end. Memory grows with ``keep_hashes`` only: some 50 bytes a row.

    :param other: note the images that are in this split too; it was read with ``keep_hashes``.
    :raises DatasetError: a file is no IDX, or holds fewer or more rows than its header says.
    """
    digest = hashlib.sha256()
    hashes: list[bytes] = []
    known = {row_hash: row for row, row_hash in enumerate(other.row_hashes)} if other else {}
    duplicates: list[tuple[int, int]] = []
    done = 0
    with idx.opened(LocalFile(images.name, images)) as stream:
        header = idx.read_header(stream, str(images))
        digest.update(idx.header_bytes(header.rows, header.shape, header.type_code))
        for batch in idx.batches(stream, header, str(images), 1024):
            digest.update(batch)
            found = _hashes(batch, header.row_bytes)
            duplicates += [(done + at, known[row_hash]) for at, row_hash in enumerate(found) if row_hash in known]
            done += len(found)
            if keep_hashes:
                hashes += found
    label_digest = hashlib.sha256()
    counts = [0] * 256
    with idx.opened(LocalFile(labels.name, labels)) as stream:
        label_header = idx.read_header(stream, str(labels))
        label_digest.update(idx.header_bytes(label_header.rows, label_header.shape, label_header.type_code))
        for batch in idx.batches(stream, label_header, str(labels), 1 << 20):
            label_digest.update(batch)
            counts = [count + batch.count(label) for label, count in enumerate(counts)]
    last = max((label for label, count in enumerate(counts) if count), default=0)
    shared = {other.row_hashes[row] for _, row in duplicates} if other else set()
    return SplitContent(
        images=images,
        labels=labels,
        rows=header.rows,
        label_rows=label_header.rows,
        shape=header.shape,
        dtype=header.dtype,
        label_dtype=label_header.dtype,
        label_shape=label_header.shape,
        label_counts=tuple(counts[: max(classes, last + 1)]),
        images_sha256=digest.hexdigest(),
        labels_sha256=label_digest.hexdigest(),
        row_hashes=tuple(hashes),
        duplicates=tuple(duplicates),
        overlap=sum(row_hash in shared for row_hash in other.row_hashes) if other else 0,
    )


def _hashes(batch: bytes, step: int) -> list[bytes]:
    rows = memoryview(batch)
    return [hashlib.blake2b(rows[at : at + step], digest_size=16).digest() for at in range(0, len(batch), step)]


def run_checks(
    train: SplitContent,
    heldout: SplitContent,
    *,
    classes: int,
    drift_bound: float,
    neighbour: Manifest | None,
    neighbour_counts: Sequence[int] = (),
) -> list[Check]:
    """All checks, passed or not.

    :param neighbour: the version to compare with; ``None`` for the first of a dataset.
    :param neighbour_counts: its training rows by label.
    """
    checks = [check for split in (train, heldout) for check in _split_checks(split, classes)]
    checks.append(_same_schema(train, heldout, neighbour, classes))
    checks.append(_duplicates(train, heldout))
    if neighbour is not None:
        same = (
            neighbour.heldout.file_of("image").identity,
            neighbour.heldout.file_of("label").identity,
        ) == heldout.identity
        checks.append(
            Check(
                "held-out set",
                same,
                heldout.images_sha256[:12],
                neighbour.heldout.file_of("image").identity[:12],
                f"the held-out set must be that of {neighbour.name}/{neighbour.version}, to the byte: models are "
                f"compared on it; this one has {heldout.rows} rows, that one {neighbour.heldout.rows}",
            )
        )
        checks.append(_drift(train, neighbour_counts, f"{neighbour.name}/{neighbour.version}", drift_bound))
    else:
        checks.append(_drift(train, heldout.label_counts, "the held-out set", drift_bound))
    return checks


def refuse_failed(
    checks: Sequence[Check], what: str, *, allow: Sequence[str] = (), reason: str = ""
) -> tuple[CheckException, ...]:
    """The failed checks that are excepted, for the manifest.

    :param allow: names of checks that may fail, of :data:`EXCEPTABLE`.
    :param reason: why that does no harm.
    :raises DatasetError: with every other failed check's sentence; or an exception is not possible.
    """
    wrong = [name for name in allow if name not in EXCEPTABLE]
    if wrong:
        raise DatasetError(
            f"no exception can be made from: {', '.join(wrong)}", hint=f"one can be from: {', '.join(EXCEPTABLE)}"
        )
    if allow and not reason.strip():
        raise DatasetError("an exception needs a reason", hint="say with --reason why it does no harm; it is kept")
    failed = [check for check in checks if not check.passed and check.name not in allow]
    if failed:
        reasons = "\n".join(f"  - {check.name}: {check.sentence}" for check in failed)
        possible = [check.name for check in failed if check.name in EXCEPTABLE]
        hint = " ".join(f'--allow "{name}"' for name in possible)
        raise DatasetError(
            f"{what} is not registered; {len(failed)} of {len(checks)} checks failed:\n{reasons}",
            hint="correct the data; nothing was uploaded"
            + (f'. If it is meant to be so: {hint} --reason "…"' if len(possible) == len(failed) else ""),
        )
    return tuple(CheckException(check.name, check.sentence, reason) for check in checks if not check.passed)


def _split_checks(split: SplitContent, classes: int) -> list[Check]:
    name = split.images.name
    plain = split.label_dtype == "uint8" and not split.label_shape
    outside = {label: count for label, count in enumerate(split.label_counts) if plain and label >= classes and count}
    found = ", ".join(f"label {label} in {count} rows" for label, count in list(outside.items())[:5])
    return [
        Check(
            "rows",
            split.rows == split.label_rows > 0,
            f"{split.rows} images, {split.label_rows} labels",
            "equal, and more than 0",
            f"{name} has {split.rows} images, {split.labels.name} {split.label_rows} labels",
        ),
        Check(
            "label format",
            plain,
            f"{split.label_dtype}{list(split.label_shape)}",
            "uint8[]",
            f"{split.labels.name} has {split.label_dtype}{list(split.label_shape)} a row; one uint8 is needed",
        ),
        Check(
            "label range",
            not outside,
            found or "none outside",
            f"0 to {classes - 1}",
            f"{split.labels.name}: labels must be 0 to {classes - 1}; there is {found}",
        ),
    ]


def _same_schema(train: SplitContent, heldout: SplitContent, neighbour: Manifest | None, classes: int) -> Check:
    mine = (train.dtype, train.shape)
    others = {"the held-out set": (heldout.dtype, heldout.shape, classes)}
    if neighbour is not None:
        others[f"{neighbour.name}/{neighbour.version}"] = (
            neighbour.schema.column("image").dtype,
            neighbour.schema.column("image").shape,
            len(neighbour.schema.classes or ()),
        )
    wrong = [f"{who} has {_schema(*schema)}" for who, schema in others.items() if schema != (*mine, classes)]
    value = _schema(*mine, classes)
    return Check(
        "schema", not wrong, value, "the same everywhere", f"{train.images.name} has {value}; {'; '.join(wrong)}"
    )


def _schema(dtype: str, shape: Sequence[int], classes: int) -> str:
    return f"{dtype}[{'x'.join(map(str, shape))}] in {classes} classes"


def _duplicates(train: SplitContent, heldout: SplitContent) -> Check:
    """How much of the held-out set is in the training rows: some rows are equal by chance, where values are few."""
    examples = ", ".join(f"row {row} = held-out row {other}" for row, other in train.duplicates[:3])
    share = train.overlap / max(1, heldout.rows)
    return Check(
        "duplicates",
        share <= OVERLAP_BOUND,
        f"{share:.4f}",
        f"{OVERLAP_BOUND:.4f}",
        f"{train.overlap} of {heldout.rows} held-out images ({100 * share:.2f} %, {100 * OVERLAP_BOUND:.2f} allowed) "
        f"are among the {train.rows} training images too ({examples}): a model would be examined on what it has learnt",
    )


def _drift(train: SplitContent, counts: Sequence[int], reference: str, bound: float) -> Check:
    """The largest change of a label's share of the rows, in parts of one."""
    rows, before = max(1, sum(train.label_counts)), max(1, sum(counts))
    labels = max(len(train.label_counts), len(counts))
    shares = [
        (
            (train.label_counts[label] if label < len(train.label_counts) else 0) / rows,
            (counts[label] if label < len(counts) else 0) / before,
        )
        for label in range(labels)
    ]
    label, (now, then) = max(enumerate(shares), key=lambda item: abs(item[1][0] - item[1][1]))
    change = abs(now - then)
    return Check(
        "class balance",
        change <= bound,
        f"{change:.4f}",
        f"{bound:.4f}",
        f"label {label} is {100 * now:.2f} % of the training rows, {100 * then:.2f} % in {reference}: "
        f"{100 * change:.2f} points of change, {100 * bound:.2f} allowed",
    )
