"""Remembers the dataset versions that this machine last saw, as suggestions for trigger forms.

A trigger form is part of a DAG file, which Airflow parses repeatedly. Parsing must neither wait for the bucket nor fail
if the bucket does. Therefore the task that resolves a version, and ``mlengine datasets add``, write the versions to a
small local file, which the DAG file reads. The file may be outdated or missing, so it is used for suggestions only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mlengine import settings
from mlengine.settings.airflow_cfg import airflow_home

MOST = 100
_LONGEST = 64 << 10  # maximum size in bytes of the file, which DAG files read


def known_versions(dataset: str) -> list[str]:
    """The last recorded versions of a dataset, newest first; empty if there are none. Never raises."""
    found = None
    with suppress(OSError, ValueError, RecursionError), _file(dataset).open("rb") as file:
        found = json.loads(file.read(_LONGEST))
    return [version for version in found if isinstance(version, str)][:MOST] if isinstance(found, list) else []


def note_versions(dataset: str, versions: Sequence[str]) -> None:
    """Record the newest of ``versions``, which are given oldest first. Write errors are ignored."""
    file = _file(dataset)
    newest = list(reversed(versions))[:MOST]
    if newest == known_versions(dataset):
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(newest), encoding="utf-8")
        partial.replace(file)


def _file(dataset: str) -> Path:
    folder = settings.get("param_hints_dir") or airflow_home() / "mlengine"
    return Path(folder).expanduser() / f"versions-{dataset}.json"
