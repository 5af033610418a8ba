"""Reads the held-out rows of a dataset version, and writes them for the scoring process: one file per column.

The scoring process has NumPy and no reader of Parquet, CSV or TFRecord, so Airflow's process reads the rows and writes
them as :mod:`mlengine.validation.scoring.rows` describes. Target, weight and key stay in this process: a model never
sees them. The memory is limited to that of one record batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import Column, Manifest, Schema
from mlengine.core.errors import DatasetError, ObjectMissingError
from mlengine.datasets.catalog import read_manifest
from mlengine.datasets.reading import SplitReader, open_split
from mlengine.storage.client import Storage
from mlengine.validation.column_file import ColumnFile, decoded

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_BATCH_BYTES = 32 * 1024**2
_MOST_ROWS = 32_768  # the most rows of a batch: more rows make no difference
_TEXT_BYTES = 64  # the assumed size of a string, which is not known before it is read


@dataclass(frozen=True)
class Heldout:
    """The held-out rows on this machine.

    :param folder: the folder of the column files.
    :param rows: the number of rows.
    :param columns: the columns in ``folder``: (dtype, shape of one value) by name, in the schema's order.
    :param task: ``binary``, ``multiclass``, ``regression`` or ``none``.
    :param classes: the target's values, in order; empty for a regression.
    :param target: (rows,): the index of each row's class, or the value of a regression; ``None`` without a target.
    :param weight: (rows,): the weight of each row; ``None`` without weights.
    :param key: (rows,): the key of each row; ``None`` without a key.
    :param digest: a digest that identifies the set.
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


def find_version(storage: Storage, uri: str) -> Manifest:
    """The manifest of the dataset version at ``uri``.

    :raises DatasetError: there is no such version, or it has no held-out rows.
    """
    try:
        manifest = read_manifest(storage, uri)
    except ObjectMissingError as error:
        raise DatasetError(
            f"there is no dataset version at {uri}", hint="`mlengine datasets list` shows the versions"
        ) from error
    _ = manifest.heldout
    return manifest


def check_schema(schema: Schema, task: str, slices: Iterable[str] = ()) -> None:
    """Check that a validation can use a dataset, before any rows are read.

    :param task: the task of the validation, which may differ from the dataset's.
    :param slices: the columns by which metrics are divided.
    :raises DatasetError: the target's type does not fit the task, or a column of a slice is missing or a tensor.
    """
    if schema.target is not None:
        _check_task(schema.column(schema.target), schema.classes or (), task)
    features = {column.name: column for column in schema.features}
    for name in slices:
        if name not in features:
            raise _no_column(name, features)
        if features[name].shape:
            raise DatasetError(
                f"the column {name!r} of a slice is a tensor of shape {list(features[name].shape)}",
                hint="divide metrics by a column with one value a row",
            )


def _check_task(target: Column, classes: Sequence[Any], task: str) -> None:
    """Check that a target column fits the task.

    :raises DatasetError: the target cannot be that of the task.
    """
    if task == "regression" and not (target.numeric and not target.shape):
        needed = "a target with one number a row"
    elif task == "binary" and len(classes) != 2:
        needed = "a target with two classes"
    elif task == "multiclass" and not classes:
        needed = "a target with classes"
    else:
        return
    has = f"{len(classes)} classes" if classes else "no classes"
    raise DatasetError(
        f"the task {task!r} needs {needed}, and the target {target.name!r} is {target} with {has}",
        hint="leave out prediction_task, or give the task of the dataset's target",
    )


def _no_column(name: str, columns: Iterable[str]) -> DatasetError:
    return DatasetError(f"the held-out set has no column {name!r}", hint=f"its columns are {', '.join(columns)}")


def read_heldout(
    storage: Storage, manifest: Manifest, uri: str, cache_dir: Path, folder: Path, *, task: str = ""
) -> Heldout:
    """Download the held-out rows of a dataset version, and write them for the scoring process.

    :param uri: the version's folder in the bucket.
    :param cache_dir: the folder in which dataset versions are kept between runs.
    :param folder: an empty folder for the column files.
    :param task: the task, if it is not the dataset's.
    :raises DatasetError: an object is missing or damaged, or :func:`write_heldout` raises the error.
    """
    reader = open_split(storage, manifest, uri, "heldout", cache_dir)
    digest = manifest.heldout.identity
    return write_heldout(reader, manifest.schema, task or manifest.task, folder, digest=digest)


def write_heldout(reader: SplitReader, schema: Schema, task: str, folder: Path, *, digest: str) -> Heldout:
    """Read all rows of ``reader`` into ``folder``, in one pass.

    :param folder: an empty folder.
    :raises DatasetError: the split has no rows or not as many as its manifest says, a target has no value or one of an
        unknown class, or a value cannot be given to a model.
    """
    import numpy as np

    files = {one.name: ColumnFile(one.name, f"{at:03d}", folder) for at, one in enumerate(schema.features)}
    kept: dict[str, list[Any]] = {name: [] for name in (schema.target, schema.weight, schema.key) if name}
    rows = 0
    for batch in reader.batches(_batch_rows(schema)):
        rows += len(batch)
        for name, file in files.items():
            file.append(batch.column(name))
        for name, parts in kept.items():
            parts.append(decoded(batch.column(name)))
    _check_rows(rows, reader.rows)
    columns = [file.close() for file in files.values()]
    (folder / "columns.json").write_text(json.dumps({"rows": rows, "columns": columns}))
    return Heldout(
        folder=folder,
        rows=rows,
        columns={name: (file.dtype, file.shape) for name, file in files.items()},
        task=task,
        classes=tuple(schema.classes or ()),
        target=_target(kept[schema.target], schema, task) if schema.target and task != "none" else None,
        weight=_weights(kept[schema.weight], schema.weight) if schema.weight else None,
        key=np.concatenate([part.to_numpy(zero_copy_only=False) for part in kept[schema.key]]) if schema.key else None,
        digest=digest,
    )


def _check_rows(rows: int, expected: int | None) -> None:
    """Check the number of held-out rows.

    :param expected: the number of rows; ``None`` if they were not counted at registration.
    :raises DatasetError: there are no rows, or not as many as expected.
    """
    if not rows:
        raise DatasetError(
            "the held-out set has no rows",
            hint="register a version with rows to validate on, or validation_level='signature'",
        )
    if expected is not None and rows != expected:
        raise DatasetError(
            f"the held-out set has {rows} rows, and its manifest says {expected}", hint="register the version again"
        )


def _batch_rows(schema: Schema) -> int:
    """The number of rows in a batch of at most :data:`_BATCH_BYTES`."""
    import numpy as np

    def size(column: Column) -> int:
        text = column.dtype in {"string", "binary"}
        special = {"timestamp": 8, "date": 8, "bool": 1}
        value = _TEXT_BYTES if text else special.get(column.dtype) or np.dtype(column.dtype).itemsize
        return value * math.prod(abs(size) for size in column.shape)

    return max(1, min(_MOST_ROWS, _BATCH_BYTES // sum(size(column) for column in schema.columns)))


def read_rows(heldout: Heldout, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The columns of some rows as plain values, to be shown to people. A tensor is a NumPy array.

    :param columns: the names of the columns; by default all.
    """
    from mlengine.validation.scoring.rows import Rows

    if not rows:
        return []
    source = Rows(heldout.folder)
    batch: dict[str, Any] = {}
    for name in heldout.columns if columns is None else columns:
        batch |= source.take(list(rows), [name])
        del source.columns[name]  # this closes the column's files
    return [{name: _plain(values[at]) for name, values in batch.items()} for at in range(len(rows))]


def read_column(heldout: Heldout, name: str) -> np.ndarray[Any, Any]:
    """All values of one column, for slices."""
    from mlengine.validation.scoring.rows import Rows

    column = Rows(heldout.folder).columns.get(name)
    if column is None:
        raise _no_column(name, heldout.columns)
    return column.slice(0, heldout.rows)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if getattr(value, "shape", ()):
        return value
    value = value.item() if hasattr(value, "item") else value
    return value.decode("utf-8", "replace")[:200] if isinstance(value, bytes) else value


def _numbers(parts: Sequence[pa.Array]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.concatenate([part.to_numpy(zero_copy_only=False).astype(np.float64) for part in parts])


def _weights(parts: Sequence[pa.Array], name: str) -> np.ndarray[Any, Any]:
    """The weights of the rows.

    :raises DatasetError: a weight is missing, infinite or negative, so that metrics would be undefined or wrong.
    """
    import numpy as np

    found = _numbers(parts)
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong):
        raise DatasetError(
            f"the held-out set has the weight {found[wrong[0]]:g} in row {wrong[0]:,}, column {name!r}; weights are"
            " finite and not negative",
            hint="register a version with other weights",
        )
    return found


def _values(parts: Sequence[pa.Array], name: str) -> np.ndarray[Any, Any]:
    """The targets of a regression.

    :raises DatasetError: a target is NaN or infinite, so that metrics would be undefined.
    """
    import numpy as np

    found = _numbers(parts)
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise DatasetError(
            f"the held-out set has the target {found[wrong[0]]:g} in row {wrong[0]:,}, column {name!r}",
            hint="register a version without such rows",
        )
    return found


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
        return _values(parts, str(schema.target))
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
