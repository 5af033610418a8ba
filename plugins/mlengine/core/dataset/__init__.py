"""The data types of a dataset version: its manifest, its identity, and the difference between two versions.

A version is immutable, and exists as soon as its manifest exists. These types read no files and no bucket;
:mod:`mlengine.datasets` does that.
"""

from mlengine.core.dataset.checks import CheckException, CheckResult
from mlengine.core.dataset.difference import Difference, diff
from mlengine.core.dataset.files import DataFile, Split
from mlengine.core.dataset.manifest import FILE_FORMATS, FORMAT, HELDOUT_POLICIES, TASKS, Manifest
from mlengine.core.dataset.names import check_dataset_name, check_version_name
from mlengine.core.dataset.schema import DTYPES, Column, Schema, Value
from mlengine.core.dataset.statistics import ColumnStatistics

__all__ = [
    "DTYPES",
    "FILE_FORMATS",
    "FORMAT",
    "HELDOUT_POLICIES",
    "TASKS",
    "CheckException",
    "CheckResult",
    "Column",
    "ColumnStatistics",
    "DataFile",
    "Difference",
    "Manifest",
    "Schema",
    "Split",
    "Value",
    "check_dataset_name",
    "check_version_name",
    "diff",
]
