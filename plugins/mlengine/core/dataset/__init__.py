"""What a dataset version is: its manifest, its identity, and how two versions differ.

A version is immutable and exists once its manifest does. Plain data: reads no file and knows no bucket;
:mod:`mlengine.datasets` does.
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
