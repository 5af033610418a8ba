"""The file ``predictions.parquet`` in the job directory: the model's prediction for each held-out row.

With this file, two models can be compared again without running either, and users can read it with any Parquet reader.
The columns are: ``row``, ``key`` if the dataset has one, ``target``, ``weight`` if the dataset has one, the columns of
slices as ``slice:NAME``, and by task ``probability`` (binary: of the second class), ``probabilities`` and ``predicted``
(multiclass), ``prediction`` (regression), or ``outputs``. Classes are numbered in the order of the dataset's classes.

Jobs of version 0.1 have ``predictions.json``, with the true and the predicted class of each row.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from mlengine.core.errors import MlengineError
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

if TYPE_CHECKING:
    import numpy as np

    from mlengine.validation.heldout import Heldout
    from mlengine.validation.outputs import Fitted

    Array = np.ndarray[Any, Any]

_NO_CLASS = 65535  # the number for "no class" in predictions.json
_COLUMNS = {"binary": "probability", "multiclass": "probabilities", "regression": "prediction", "none": "outputs"}


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model.

    :param heldout: the digest of the held-out set.
    :param target: (rows,): class indices or values; ``None`` if there is no target.
    :param values: as in :class:`~mlengine.validation.outputs.Fitted`; ``None`` if only classes are known.
    :param predicted: (rows,): class indices of a multiclass model, -1 for none.
    """

    task: str
    heldout: str
    classes: tuple[Any, ...] = ()
    target: Array | None = None
    values: Array | None = None
    predicted: Array | None = None
    weight: Array | None = None
    key: Array | None = None
    slices: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, heldout: Heldout, fitted: Fitted, slices: Mapping[str, Array] | None = None) -> Self:
        return cls(
            task=heldout.task,
            heldout=heldout.digest,
            classes=heldout.classes,
            target=heldout.target,
            values=fitted.values,
            predicted=fitted.classes,
            weight=heldout.weight,
            key=heldout.key,
            slices=slices or {},
        )

    def same_rows(self, other: Predictions) -> bool:
        """Whether both predictions are for the same held-out rows, so that they can be paired."""
        import numpy as np

        same = self.heldout == other.heldout and self.task == other.task
        if self.classes and other.classes:  # jobs of version 0.1 do not name their classes
            same = same and self.classes == other.classes
        return (
            same and self.target is not None and other.target is not None and np.array_equal(self.target, other.target)
        )

    def to_bytes(self) -> bytes:
        """The content of the Parquet file."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = len(next(one for one in (self.values, self.predicted) if one is not None))
        columns: dict[str, Any] = {"row": np.arange(rows)}
        columns |= {name: getattr(self, name) for name in ("key", "target", "weight", "predicted")}
        if self.values is not None:
            columns[_COLUMNS[self.task]] = _arrow(self.values)
        columns |= {f"slice:{name}": values for name, values in self.slices.items()}
        table = pa.table({name: pa.array(column) if not isinstance(column, pa.Array) else column
                          for name, column in columns.items() if column is not None})  # fmt: skip
        metadata = {"task": self.task, "heldout": self.heldout, "classes": json.dumps(list(self.classes), default=str)}
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the content of the Parquet file.

        :raises MlengineError: the data is not in the format that :meth:`to_bytes` writes.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(pa.BufferReader(data))
            metadata = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
            task = metadata["task"]
            arrays = {name: _numpy(table.column(name).combine_chunks()) for name in table.column_names}
            classes = tuple(json.loads(metadata["classes"]))
            heldout = metadata["heldout"]
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise MlengineError(f"not predictions: {error!r}", hint="run the validation again") from error
        return cls(
            task=task,
            heldout=heldout,
            classes=classes,
            values=arrays.get(_COLUMNS.get(task, "")),
            slices={name[6:]: values for name, values in arrays.items() if name.startswith("slice:")},
            **{name: arrays.get(name) for name in ("target", "predicted", "weight", "key")},
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read ``predictions.json`` of version 0.1, which does not name the classes.

        :raises MlengineError: the data is not in that format.
        """
        import numpy as np

        try:
            raw = json.loads(data)
            labels, found = (
                np.frombuffer(base64.b64decode(raw[name], validate=True), "<u2").astype(np.int64)
                for name in ("labels", "classes")
            )
            heldout = raw["heldout"]
        except (ValueError, KeyError, TypeError) as error:
            raise MlengineError(f"not predictions: {error!r}", hint="run the validation again") from error
        return cls("multiclass", heldout, (), target=labels, predicted=np.where(found == _NO_CLASS, -1, found))


def load_predictions(storage: Storage, job_dir: JobDir) -> Predictions | None:
    """The predictions of a job; ``None`` if it has none, or they cannot be read. The caller reports this.

    :raises StorageError: the bucket is temporarily unavailable.
    """
    for uri, read in (
        (job_dir.predictions, Predictions.from_bytes),
        (job_dir.predictions.removesuffix(".parquet") + ".json", Predictions.from_json),
    ):
        try:
            return read(storage.read(uri))
        except MlengineError as error:
            if error.retryable:
                raise
    return None


def _arrow(values: Array) -> Any:
    import numpy as np
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def _numpy(column: Any) -> Array:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size)  # type: ignore[no-any-return]
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
