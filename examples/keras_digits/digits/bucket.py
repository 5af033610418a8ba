"""Copy folders between Cloud Storage and this machine; a path without ``gs://`` is used as it is.

TensorFlow's own ``gs://`` does not reach the Cloud Storage server of ``make run``, so files are copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def download(folder: str, target: Path) -> Path:
    """The folder on this machine."""
    if not folder.startswith("gs://"):
        return Path(folder)
    bucket, prefix = _split(folder)
    for blob in bucket.list_blobs(prefix=prefix):
        path = target / blob.name.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(path)
    return target


def upload(source: Path, folder: str) -> None:
    """Copy all files below ``source`` into the folder."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source).as_posix()
        if folder.startswith("gs://"):
            bucket, prefix = _split(folder)
            bucket.blob(prefix + name).upload_from_filename(path)
        else:
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def _split(folder: str) -> tuple[Any, str]:
    from google.cloud import storage

    bucket, _, prefix = folder.removeprefix("gs://").partition("/")
    return storage.Client().bucket(bucket), prefix.rstrip("/") + "/"
