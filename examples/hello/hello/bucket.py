"""Write an object to the job dir, in Cloud Storage or in a local folder."""

from __future__ import annotations

from pathlib import Path


def write(folder: str, name: str, data: bytes) -> None:
    """Write ``folder/name``; ``folder`` is ``gs://bucket/…`` or a directory."""
    if not folder.startswith("gs://"):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return
    from google.cloud import storage

    bucket, _, prefix = folder.removeprefix("gs://").partition("/")
    storage.Client().bucket(bucket).blob(f"{prefix.rstrip('/')}/{name}").upload_from_string(data, timeout=60)
