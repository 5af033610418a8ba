"""The held-out rows of a dataset version, written for the scoring process: one file a column.

The scoring process has NumPy and no reader of Parquet, CSV or TFRecord, so Airflow's side reads the rows and writes
them as :mod:`mlengine.validation.scoring.rows` describes. Target, weight and key stay on this side: a model never sees
them. Memory is bounded by one record batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import Manifest, Schema
from mlengine.core.errors import DatasetError, ObjectMissingError
from mlengine.datasets.catalog import read_manifest
from mlengine.datasets.reading import SplitReader, open_split
from mlengine.storage.client import Storage

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BATCH = 8192


@dataclass(frozen=True)
class Heldout:
    """The held-out rows on this machine.

    :param folder: the column files.
    :param rows: how many.
    :param columns: the columns in ``folder``: name → (dtype, shape of one value), in the schema's order.
    :param task: ``binary``, ``multiclass``, ``regression`` or ``none``.
    :param classes: the target's values, in order; empty for a regression.
    :param target: (rows,): the index of each row's class, or the value of a regression; ``None`` without a target.
    :param weight: (rows,), or ``None``.
    :param key: (rows,), or ``None``.
    :param digest: identifies the set.
    """

    folder: Path
    rows: int
    columns: Mapping[str, tuple[str, tuple[int, ...]]]
    task: str
    classes: tuple[Any, ...] = ()
    target: np.ndarray[Any, Any] | None = None
    weight: np.ndarray[Any, Any] | None = None
    key: np.ndarray[Any, Any] | None = None
    digest: str = ""


@dataclass(frozen=True)
class HeldoutVersion:
    """A held-out set with the version that it belongs to."""

    heldout: Heldout
    manifest: Manifest


def read_heldout(storage: Storage, uri: str, cache_dir: Path, folder: Path, *, task: str = "") -> HeldoutVersion:
    """Read the held-out rows of the dataset version at ``uri``.

    :param cache_dir: where dataset versions are kept between runs.
    :param folder: an empty folder for the column files.
    :param task: instead of the dataset's task.
    :raises DatasetError: there is no such version, it has no held-out rows, or an object is missing or damaged.
    """
    try:
        manifest = read_manifest(storage, uri)
    except ObjectMissingError as error:
        raise DatasetError(
            f"there is no dataset version at {uri}", hint="`mlengine datasets list` shows the versions"
        ) from error
    split = manifest.heldout
    reader = open_split(storage, manifest, uri, "heldout", cache_dir)
    heldout = write_heldout(reader, manifest.schema, task or manifest.task, folder, digest=split.identity)
    return HeldoutVersion(heldout, manifest)


def write_heldout(reader: SplitReader, schema: Schema, task: str, folder: Path, *, digest: str) -> Heldout:
    """Read all rows of ``reader`` into ``folder``.

    :param folder: an empty folder.
    :raises DatasetError: the split has no rows, or a target without a value or of an unknown class.
    """
    import numpy as np

    rows = reader.rows
    if rows is None:  # not counted at registration: formats without a row count, recorded by reference
        rows = sum(len(batch) for batch in reader.batches(BATCH, columns=[schema.columns[0].name]))
    if not rows:
        raise DatasetError(
            "the held-out set has no rows", hint="register a version with rows to validate on, or validation_level="
            "'signature'"
        )  # fmt: skip
    apart = {name for name in (schema.target, schema.weight, schema.key) if name}
    names = [column.name for column in schema.features]
    writers = {name: _Writer(name, f"{at:03d}", folder, rows) for at, name in enumerate(names)}
    kept: dict[str, list[Any]] = {name: [] for name in apart}
    for batch in reader.batches(BATCH):
        for name in names:
            writers[name].append(batch.column(name))
        for name in apart:
            kept[name].append(_decoded(batch.column(name)))
    written = [writer.close() for writer in writers.values()]
    (folder / "columns.json").write_text(json.dumps({"rows": rows, "columns": written}))
    classes = tuple(schema.classes or ())
    return Heldout(
        folder=folder,
        rows=rows,
        columns={name: writer.described for name, writer in writers.items()},
        task=task,
        classes=classes,
        target=_target(kept[schema.target], schema, task) if schema.target and task != "none" else None,
        weight=_numbers(kept[schema.weight]) if schema.weight else None,
        key=np.concatenate([part.to_numpy(zero_copy_only=False) for part in kept[schema.key]]) if schema.key else None,
        digest=digest,
    )


def read_rows(heldout: Heldout, rows: Sequence[int]) -> list[dict[str, Any]]:
    """The columns of some rows, as plain values, for people to look at. A tensor comes as a NumPy array."""
    from mlengine.validation.scoring.rows import Rows

    if not rows:
        return []
    batch = Rows(heldout.folder).take(list(rows))
    return [{name: _plain(values[at]) for name, values in batch.items()} for at in range(len(rows))]


def read_column(heldout: Heldout, name: str) -> np.ndarray[Any, Any]:
    """All values of one column, for slices."""
    from mlengine.validation.scoring.rows import Rows

    column = Rows(heldout.folder).columns.get(name)
    if column is None:
        raise DatasetError(
            f"the held-out set has no column {name!r}", hint=f"its columns are {', '.join(heldout.columns)}"
        )
    return column.slice(0, heldout.rows)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if getattr(value, "shape", ()):
        return value
    value = value.item() if hasattr(value, "item") else value
    return value.decode("utf-8", "replace")[:200] if isinstance(value, bytes) else value


class _Writer:
    """Writes one column. A ``.npy`` is written in place: the number of rows is known."""

    def __init__(self, name: str, stem: str, folder: Path, rows: int) -> None:
        self.name, self.stem, self.folder, self.rows = name, stem, folder, rows
        self.done = 0
        self.data: Any = None
        self.offsets: Any = None
        self.valid: Any = None
        self.kind = ""

    @property
    def described(self) -> tuple[str, tuple[int, ...]]:
        return (self.data.dtype.name, self.data.shape[1:]) if self.kind == "array" else (self.kind, ())

    def append(self, column: pa.Array) -> None:
        import numpy as np

        values, missing = _values(_decoded(column))
        stop = self.done + len(column)
        if missing is not None:
            if self.valid is None:
                self.valid = np.ones(self.rows, bool)
            self.valid[self.done : stop] = ~missing
        if isinstance(values, tuple):
            self._append_bytes(*values)
        else:
            self._append_array(values, stop)
        self.done = stop

    def _append_array(self, values: Any, stop: int) -> None:
        from numpy.lib.format import open_memmap

        if self.data is None:
            self.kind = "array"
            self.data = open_memmap(
                self.folder / f"{self.stem}.npy", "w+", dtype=values.dtype, shape=(self.rows, *values.shape[1:])
            )
        self.data[self.done : stop] = values

    def _append_bytes(self, kind: str, data: bytes, offsets: Any) -> None:
        import numpy as np

        if self.data is None:
            self.kind, self.data = kind, (self.folder / f"{self.stem}.bytes").open("wb")
            self.offsets = np.zeros(self.rows + 1, np.int64)
        at = self.done
        self.offsets[at + 1 : at + len(offsets)] = self.offsets[at] + offsets[1:]
        self.data.write(data)

    def close(self) -> dict[str, str]:
        """The column's entry in ``columns.json``."""
        import numpy as np

        info = {"name": self.name, "kind": self.kind, "data": f"{self.stem}.npy"}
        if self.kind != "array":  # an array is in the page cache, which the scoring process reads
            self.data.close()
            np.save(self.folder / f"{self.stem}.offsets.npy", self.offsets)
            info |= {"data": f"{self.stem}.bytes", "offsets": f"{self.stem}.offsets.npy"}
        if self.valid is not None:
            np.save(self.folder / f"{self.stem}.valid.npy", self.valid)
            info["valid"] = f"{self.stem}.valid.npy"
        return info


def _decoded(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _values(column: pa.Array) -> tuple[Any, Any]:
    """The values, an array or (kind, bytes, offsets from 0); and which are missing, ``None`` if none is."""
    import pyarrow as pa

    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray(), None
    if pa.types.is_fixed_size_list(kind):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), kind.list_size), None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _bytes("string", column.cast(pa.large_string()).view(pa.large_binary())), missing
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _bytes("bytes", column.cast(pa.large_binary())), missing
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if missing is not None and not pa.types.is_floating(column.type):
        column = column.fill_null(_zero(column.type))
    return column.to_numpy(zero_copy_only=False), missing


def _zero(kind: pa.DataType) -> pa.Scalar[Any]:
    import pyarrow as pa

    return pa.scalar(0, pa.int64()).cast(kind) if not pa.types.is_boolean(kind) else pa.scalar(False)


def _bytes(kind: str, column: pa.Array) -> tuple[str, bytes, Any]:
    import numpy as np

    column = column.fill_null(b"") if column.null_count else column
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    content = b"" if data is None else data.to_pybytes()[int(ends[0]) : int(ends[-1])]
    return kind, content, ends - ends[0]


def _numbers(parts: Sequence[pa.Array]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.concatenate([part.to_numpy(zero_copy_only=False).astype(np.float64) for part in parts])


def _target(parts: Sequence[pa.Array], schema: Schema, task: str) -> np.ndarray[Any, Any]:
    """The class indices, or the values of a regression.

    :raises DatasetError: a row has no target, or one that is not among the classes.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if any(part.null_count for part in parts):
        raise DatasetError(
            f"the held-out set has rows without a value in the target column {schema.target!r}",
            hint="register a version without these rows",
        )
    if task == "regression":
        return _numbers(parts)
    classes = pa.array(list(schema.classes or ()))
    found = []
    for part in parts:
        index = pc.index_in(part.cast(classes.type), value_set=classes)
        if index.null_count:
            row = pc.index(index.is_null(), True).as_py()
            raise DatasetError(
                f"the held-out set has the target {part[row].as_py()!r}, which is none of the {len(classes)} classes",
                hint="register the version with this class, or without these rows",
            )
        found.append(index.to_numpy(zero_copy_only=False))
    return np.concatenate(found).astype(np.int64)
