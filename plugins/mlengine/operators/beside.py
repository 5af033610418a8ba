"""Relative paths in a DAG: they are meant from the DAG's own file, for workers have no useful working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def beside_dag(operator: Any, path: str | Path) -> str | Path:
    """``path`` from the folder of the operator's DAG file. Absolute paths and ``gs://`` URIs stay as they are."""
    if isinstance(path, str) and path.startswith("gs://"):
        return path
    fileloc = getattr(operator.dag, "fileloc", None) if operator.has_dag() else None
    return Path(fileloc).parent / path if fileloc else Path(path)
