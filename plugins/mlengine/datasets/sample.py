"""A uniform sample of the rows of a stream. Each row gets a random number, and those with the smallest are kept.

Samples of two streams can be merged into a sample of both. The same rows in the same order give the same sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ROWS = 20_000
_CELLS = 8_000_000  # fewer rows of a very wide table are kept
_TEXT = 64  # characters of a string that are kept


class RowSample:
    """At most ``rows`` rows of the scalar columns of a stream of batches."""

    def __init__(self, columns: list[str], rows: int = ROWS) -> None:
        import numpy as np

        self.columns = columns
        self._most = min(rows, max(1_000, _CELLS // max(1, len(columns))))
        self._random = np.random.default_rng(20260601)
        self._limit = 1.0
        self._numbers: list[np.ndarray[Any, Any]] = []
        self._tables: list[pa.RecordBatch] = []
        self._held = 0
        self.seen = 0

    def add(self, batch: pa.RecordBatch) -> None:
        import numpy as np

        self.seen += len(batch)
        numbers = self._random.random(len(batch))
        chosen = np.flatnonzero(numbers < self._limit)
        if len(chosen):
            self._numbers.append(numbers[chosen])
            self._tables.append(_short(batch.select(self.columns).take(chosen)))
            self._held += len(chosen)
        if self._held > 2 * self._most:
            self._shrink()

    def table(self) -> pa.Table:
        """The sampled rows as a table."""
        import pyarrow as pa

        if self._held > self._most:
            self._shrink()
        return pa.Table.from_batches(self._tables) if self._tables else pa.table({})

    def _shrink(self) -> None:
        import numpy as np
        import pyarrow as pa

        numbers = np.concatenate(self._numbers)
        kept = np.sort(np.argpartition(numbers, self._most)[: self._most])
        self._limit = float(numbers[kept].max())
        table = pa.Table.from_batches(self._tables).take(kept)
        self._tables = table.combine_chunks().to_batches()
        self._numbers = [numbers[kept]]
        self._held = len(kept)


def _short(batch: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow as pa
    import pyarrow.compute as pc

    arrays = [
        pc.utf8_slice_codeunits(array, 0, _TEXT) if pa.types.is_string(array.type) else array for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
