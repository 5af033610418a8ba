"""Reads the cache that versions before the job index kept for each model: ``<model>/index/jobs.json``."""

from __future__ import annotations

import json
import logging

from mlengine.core import layout
from mlengine.core.errors import ObjectMissingError
from mlengine.job_index.rows import Row, from_columns
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

_FORMAT = 3


def load(storage: Storage, bucket: str, model: str) -> list[Row]:
    """The final rows. A missing or invalid object has none."""
    uri = layout.join(layout.model_prefix(bucket, model), "index", "jobs.json")
    try:
        raw = json.loads(storage.read(uri))
        items = [item for item in raw["rows"] if item["final"] is True] if raw["format"] == _FORMAT else []
        required = {"job_id", "backend", "attempt", "state", "seen"}
        names = required | {name for item in items for name in item if name in Row._field_defaults}
        columns = {
            name: [item[name] if name in required else item.get(name, Row._field_defaults[name]) for item in items]
            for name in names
        }
        return from_columns({**columns, "model": [model] * len(items), "final_at": [0.0] * len(items)} if items else {})
    except ObjectMissingError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("Ignoring the invalid cache %s", uri)
        return []
