"""Which dataset versions this machine last heard of: what trigger forms offer.

A form is part of a DAG file, which is read again and again and may neither wait for a bucket nor fail with it. So
the task that resolves a version, and ``mlengine datasets add``, leave a note in a small
file, and a DAG file reads that. The note may be old or missing: it is for proposals, never for decisions.
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
_LONGEST = 64 << 10  # bytes of the file that a DAG file would read


def known_versions(dataset: str) -> list[str]:
    """The versions of a dataset as last noted, the newest first; empty if nothing was. Never raises."""
    found = None
    with suppress(OSError, ValueError, RecursionError), _file(dataset).open("rb") as file:
        found = json.loads(file.read(_LONGEST))
    return [version for version in found if isinstance(version, str)][:MOST] if isinstance(found, list) else []


def note_versions(dataset: str, versions: Sequence[str]) -> None:
    """Keep the newest of ``versions``, given oldest first. A note that cannot be written is left out."""
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
