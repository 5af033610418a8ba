"""Computes the share of held-out rows that are also among other rows, with bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# The maximum number of hashes that are kept. With more held-out rows, the smallest hashes are kept.
MOST = 1 << 21
_EXAMPLES = 3


class HeldoutRows:
    """The hashes of the held-out rows, and which of them were also found among other rows.

    With more than :data:`MOST` rows, the share is estimated from a sample, which is the rows whose hash is below a
    limit.
    """

    def __init__(self, most: int = MOST) -> None:
        import numpy as np

        self._most = most
        self._limit = np.uint64(0xFFFFFFFFFFFFFFFF)
        self._parts: list[np.ndarray[Any, Any]] = []
        self._held = 0
        self._hashes = np.zeros(0, np.uint64)
        self._counts = np.zeros(0, np.int64)
        self._found = np.zeros(0, bool)
        self._read = 0
        self.rows = 0
        self.examples: list[int] = []

    def add(self, hashes: np.ndarray[Any, Any]) -> None:
        """Add the hashes of held-out rows."""
        self.rows += len(hashes)
        self._keep(hashes[hashes <= self._limit])

    def _keep(self, hashes: np.ndarray[Any, Any]) -> None:
        import numpy as np

        self._parts.append(hashes)
        self._held += len(hashes)
        while self._held > self._most:
            self._limit //= np.uint64(2)
            kept = np.concatenate(self._parts)
            self._parts = [kept[kept <= self._limit]]
            self._held = len(self._parts[0])

    def finish(self) -> None:
        """Prepare for :meth:`match`, after all held-out rows were added."""
        import numpy as np

        everything = np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint64)
        self._hashes, self._counts = np.unique(everything, return_counts=True)
        self._found = np.zeros(len(self._hashes), bool)
        self._parts = []

    def match(self, hashes: np.ndarray[Any, Any]) -> None:
        """Search for the hashes of training rows among the held-out rows."""
        import numpy as np

        inside = np.flatnonzero(hashes <= self._limit)
        chosen = hashes[inside]
        if len(self._hashes) and len(chosen):
            at = np.minimum(np.searchsorted(self._hashes, chosen), len(self._hashes) - 1)
            equal = self._hashes[at] == chosen
            self._found[at[equal]] = True
            room = _EXAMPLES - len(self.examples)
            self.examples += [int(self._read + row) for row in inside[equal][:room]]
        self._read += len(hashes)

    @property
    def share(self) -> float:
        """The share of held-out rows that are also training rows."""
        total = int(self._counts.sum())
        return float(self._counts[self._found].sum()) / total if total else 0.0

    @property
    def distinct_share(self) -> float:
        """The share of distinct rows among all held-out rows: 1 if no two are equal."""
        total = int(self._counts.sum())
        return len(self._counts) / total if total else 1.0
