"""Dataset versions in the bucket: registering, listing, resolving, verifying and downloading them.

This package imports nothing expensive at module level, so a DAG file may import it.
"""

from mlengine.core.dataset import Manifest, diff
from mlengine.datasets.catalog import (
    MANIFEST,
    list_datasets,
    list_versions,
    load_manifest,
    load_manifests,
    read_manifest,
    resolve,
)
from mlengine.datasets.download import Problem, fetch, verify
from mlengine.datasets.reading import SplitReader, open_split
from mlengine.datasets.register import Options, add
from mlengine.datasets.roles import Roles
from mlengine.datasets.row_diff import RowDiff, diff_rows, incomparable

__all__ = [
    "MANIFEST",
    "Manifest",
    "Options",
    "Problem",
    "Roles",
    "RowDiff",
    "SplitReader",
    "add",
    "diff",
    "diff_rows",
    "fetch",
    "incomparable",
    "list_datasets",
    "list_versions",
    "load_manifest",
    "load_manifests",
    "open_split",
    "read_manifest",
    "resolve",
    "verify",
]
