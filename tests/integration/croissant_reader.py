"""Reads a version's metadata and records with the real ``mlcroissant``, and prints them as JSON.

Runs in a separate environment. With ``--metadata``, no records are read.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import mlcroissant


def main(path: str) -> None:
    dataset = mlcroissant.Dataset(jsonld=path)
    issues = dataset.metadata.ctx.issues
    found: dict[str, Any] = {"errors": sorted(issues.errors), "conforms_to": str(dataset.metadata.conforms_to)}
    for records in dataset.metadata.record_sets if "--metadata" not in sys.argv else ():
        found[records.id] = [
            {name.split("/", 1)[1]: _plain(value) for name, value in record.items()}
            for record in dataset.records(records.id)
        ]
    sys.stdout.write(json.dumps(found))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "getpixel"):
        return value.convert("L").getpixel((0, 0))
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    main(sys.argv[1])
