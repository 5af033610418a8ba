"""Computes the drift of a dataset's columns over a model's training versions, from their manifests' statistics."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlengine.champions import history as champions
from mlengine.core import layout
from mlengine.core.dataset import Manifest, check_version_name
from mlengine.core.errors import MlengineError
from mlengine.core.versions import in_order
from mlengine.datasets.catalog import read_manifest
from mlengine.datasets.drift import over_versions
from mlengine.job_index.rows import Row
from mlengine.storage.client import Storage

VERSIONS = 60  # number of versions; the newest ones are used
COLUMNS = 5  # number of columns; those that drifted most are used
_CACHED = 200
_THREADS = 4


class Manifests:
    """Manifests by URI. They never change, so they are read once."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Manifest] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, storage: Storage, bucket: str, name: str, version: str) -> Manifest | None:
        """A version's manifest; ``None`` if the version no longer exists, or its name or manifest is invalid."""
        uri = layout.dataset_dir(bucket, name, version)
        with self._lock:
            if uri in self._known:
                self._known.move_to_end(uri)
                return self._known[uri]
        try:
            check_version_name(version)  # any job can write any name into its claim
            manifest = read_manifest(storage, uri)
        except MlengineError as error:
            if error.retryable:
                raise
            return None
        with self._lock:
            self._known[uri] = manifest
            while len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return manifest


_manifests = Manifests()


def drift(storage: Storage, bucket: str, model: str, rows: Iterable[Row]) -> dict[str, Any]:
    """Compare each version with the one before, by the population stability index of the columns that drifted most.

    :returns: ``versions``, and ``columns``, which have a name and one value per version; ``None`` if it is unknown.
    """
    name = _dataset_name(storage, bucket, model)
    versions = in_order({row.dataset for row in rows if row.model == model and row.dataset})[-VERSIONS:] if name else []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mlengine-drift") as pool:
        found = list(pool.map(lambda version: _manifests.read(storage, bucket, name, version), versions))
    known = [manifest for manifest in found if manifest is not None]
    columns = {
        column: values for column, values in over_versions(known).items() if any(value is not None for value in values)
    }
    largest = sorted(columns, key=lambda column: -max(value for value in columns[column] if value is not None))
    return {
        "dataset": name,
        "versions": [manifest.version for manifest in known],
        "columns": [{"name": column, "values": columns[column]} for column in largest[:COLUMNS]],
        "others": max(len(largest) - COLUMNS, 0),
    }


def _dataset_name(storage: Storage, bucket: str, model: str) -> str:
    """The name of the dataset that the champion was trained on; empty if there is none."""
    champion = champions.current(storage, bucket, model)
    return "" if champion is None else str(champion.dataset.get("name") or "")
