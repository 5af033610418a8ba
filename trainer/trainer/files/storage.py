"""A small storage interface: a directory of files, local or at ``gs://``, with the same six methods.

Writing one file is atomic: a reader sees either the old or the new content. Writing several files is not, so callers
write a manifest last, and readers ignore files without one.

google-cloud-storage decides which server ``gs://`` means, through its environment variables
(``STORAGE_EMULATOR_HOST``, ``GOOGLE_APPLICATION_CREDENTIALS``). The library is imported only when a ``gs://`` URI is
opened. TensorFlow's own ``gs://`` file system is not used, because it works only with Google's servers.

There is no append, no rename, and no consistency between two listings.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trainer.errors import MissingError, StorageError, StorageForbiddenError, UsageError

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 30.0  # seconds during which a failing read or write is retried
CALL_SECONDS = 60.0  # for one call to Cloud Storage
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


class Store(Protocol):
    """The files below one root. ``name`` is relative, with forward slashes."""

    root: str

    def read(self, name: str) -> bytes:
        """Read a file.

        :raises MissingError: the file does not exist.
        """

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file atomically."""

    def update(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Replace a file's content with ``change(content)``, without losing concurrent updates.

        :param change: called again if another process wrote the file in the meantime. Gets ``b""`` for a missing file.
        """

    def exists(self, name: str) -> bool: ...

    def ls(self, prefix: str = "") -> list[str]:
        """The names of all files whose name starts with ``prefix``, at any depth, in order.

        A write that was killed may have left a file whose name ends with ``.part``.
        """

    def delete(self, name: str) -> None:
        """Delete a file. A missing file is not an error."""


def open_store(uri: str) -> Store:
    """Open ``gs://bucket/path``, or a local directory, which need not exist yet.

    :raises UsageError: the URI has another form.
    """
    check_uri(uri)
    if uri.startswith("gs://"):
        return GcsStore(uri)
    return LocalStore(uri.removeprefix("file://"))


def check_uri(uri: str) -> None:
    """Check that :func:`open_store` can open this URI.

    :raises UsageError: it cannot.
    """
    if uri.startswith("gs://"):
        if not uri.removeprefix("gs://").partition("/")[0]:
            raise UsageError(f"{uri} has no bucket: write gs://BUCKET/PATH")
    elif _SCHEME.match(uri) and not uri.startswith("file://"):
        raise UsageError(f"{uri} cannot be opened: write gs://BUCKET/PATH, file:///PATH or a local path")


class LocalStore:
    """Files in a local directory."""

    def __init__(self, root: str, patience: float | None = None) -> None:
        self.root = root
        self._path = Path(root)
        self._patience = patience

    def read(self, name: str) -> bytes:
        return self._do("read", name, lambda path: path.read_bytes())

    def write(self, name: str, data: bytes) -> None:
        self._do("write", name, lambda path: _write_aside(path, data))

    def update(self, name: str, change: Callable[[bytes], bytes]) -> None:
        self._do("write", name, lambda path: _update_locked(path, change))

    def exists(self, name: str) -> bool:
        return (self._path / name).is_file()

    def ls(self, prefix: str = "") -> list[str]:
        paths = self._do("list", prefix.rpartition("/")[0], _files_below)
        names = (path.relative_to(self._path).as_posix() for path in paths)
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        self._do("delete", name, lambda path: path.unlink(missing_ok=True))

    def _do(self, verb: str, name: str, action: Callable[[Path], T]) -> T:
        path = self._path / name

        def attempt() -> T:
            try:
                return action(path)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise MissingError(f"no file {path}") from error
            except PermissionError as error:
                raise StorageForbiddenError(f"not allowed to {verb} {path}: {error.strerror}") from error
            except OSError as error:
                raise StorageError(f"cannot {verb} {path}: {error.strerror}") from error

        return retried(attempt, self._patience)


class GcsStore:
    """Objects below a ``gs://`` prefix."""

    def __init__(self, uri: str, patience: float | None = None) -> None:
        self.root = uri.rstrip("/")
        self._bucket_name, _, path = self.root.removeprefix("gs://").partition("/")
        self._prefix = path + "/" if path else ""
        self._patience = patience
        self._cached_bucket: Any = None

    def read(self, name: str) -> bytes:
        def attempt() -> bytes:
            with self._errors("read", name):
                blob = self._bucket().blob(self._prefix + name)
                return bytes(blob.download_as_bytes(timeout=CALL_SECONDS, checksum="crc32c"))

        return retried(attempt, self._patience)

    def write(self, name: str, data: bytes) -> None:
        kind = "application/json" if name.endswith(".json") else "application/octet-stream"

        def attempt() -> None:
            with self._errors("write", name):
                blob = self._bucket().blob(self._prefix + name)
                blob.upload_from_string(data, content_type=kind, timeout=CALL_SECONDS, checksum="crc32c")

        retried(attempt, self._patience)

    def update(self, name: str, change: Callable[[bytes], bytes]) -> None:
        def attempt() -> None:
            with self._errors("write", name):
                blob = self._bucket().get_blob(self._prefix + name, timeout=CALL_SECONDS)
                if blob is None:
                    blob, old, generation = self._bucket().blob(self._prefix + name), b"", 0
                else:
                    generation = blob.generation
                    old = blob.download_as_bytes(timeout=CALL_SECONDS, if_generation_match=generation)
                # A write in between changes the generation. The upload is then refused, and the update is retried.
                blob.upload_from_string(
                    change(old), timeout=CALL_SECONDS, checksum="crc32c", if_generation_match=generation
                )

        retried(attempt, self._patience)

    def exists(self, name: str) -> bool:
        def attempt() -> bool:
            with self._errors("look for", name):
                return bool(self._bucket().blob(self._prefix + name).exists(timeout=CALL_SECONDS))

        return retried(attempt, self._patience)

    def ls(self, prefix: str = "") -> list[str]:
        def attempt() -> list[str]:
            with self._errors("list", prefix):
                blobs = self._bucket().list_blobs(prefix=self._prefix + prefix, timeout=CALL_SECONDS)
                return sorted(str(blob.name).removeprefix(self._prefix) for blob in blobs)

        return retried(attempt, self._patience)

    def delete(self, name: str) -> None:
        def attempt() -> None:
            with self._errors("delete", name):
                self._bucket().blob(self._prefix + name).delete(timeout=CALL_SECONDS)

        try:
            retried(attempt, self._patience)
        except MissingError:
            return

    def _bucket(self) -> Any:
        if self._cached_bucket is None:
            from google.cloud import storage

            self._cached_bucket = storage.Client().bucket(self._bucket_name)
        return self._cached_bucket

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        import requests
        from google.api_core import exceptions as google
        from google.auth import exceptions as auth
        from google.cloud.storage.exceptions import DataCorruption

        uri = f"{self.root}/{name}"
        try:
            yield
        except google.NotFound as error:
            raise MissingError(f"no object {uri} (or no such bucket)") from error
        except (google.Forbidden, google.Unauthorized, auth.DefaultCredentialsError) as error:
            raise StorageForbiddenError(f"not allowed to {verb} {uri}: {error}") from error
        except (google.GoogleAPIError, auth.GoogleAuthError, requests.RequestException, DataCorruption) as error:
            raise StorageError(f"cannot {verb} {uri}: {error}") from error


def _files_below(root: Path) -> list[Path]:
    """The files below a directory, at any depth; none if it does not exist.

    :raises OSError: a directory could not be read. ``rglob`` would silently skip it.
    """

    def check(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    found = (Path(directory, name) for directory, _, names in os.walk(root, onerror=check) for name in names)
    return [path for path in found if path.is_file()]


def _update_locked(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Read and write while holding a lock on the directory, which needs no lock file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        _write_aside(path, change(path.read_bytes() if path.exists() else b""))
    finally:
        os.close(directory)


def _write_aside(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def retried(attempt: Callable[[], T], patience: float | None = None) -> T:
    """Retry after every storage error except :class:`MissingError`: a full disk or a missing permission may be fixed.

    :param attempt: raises :class:`StorageError` if a retry may help.
    :param patience: seconds to retry for, by default :data:`PATIENCE`; then the last error is raised.
    """
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    pause = 0.5
    while True:
        try:
            return attempt()
        except MissingError:
            raise
        except StorageError as error:
            if time.monotonic() + pause > deadline:
                raise
            log.warning("%s; retrying in %.1f s", error, pause)
        time.sleep(pause)
        pause = min(2 * pause, 8.0)
