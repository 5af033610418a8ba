"""A small client for Cloud Storage: read, write, create if absent, compare and swap, list.

Objects are named by ``gs://`` URIs. Every call has a deadline, is retried if that is safe, and raises the errors of
:mod:`mlengine.core.errors`. ``STORAGE_EMULATOR_HOST`` selects another server than Google's, as in Google's library.

The client does not cache, and does not rename: Cloud Storage cannot rename a tree atomically.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import ObjectMissingError, StorageConflictError, StorageError
from mlengine.core.layout import split_uri
from mlengine.storage.retries import ATTEMPT, errors, retry
from mlengine.storage.small_objects import SmallObjects

if TYPE_CHECKING:
    from google.cloud import storage

_NONCE = "mlengine-nonce"
# A conditional write up to this size is one request, from memory; a larger one uses an upload session.
ONE_REQUEST_BYTES = 32 << 20
_PAGE = 5000  # objects in a page of a listing; Google sends at most 1,000, fake-gcs-server otherwise all


@dataclass(frozen=True)
class ObjectStat:
    """An object's metadata. ``size`` is in bytes, ``crc32c`` in base64, ``written`` in seconds since the epoch."""

    uri: str
    size: int
    generation: int
    crc32c: str | None = None
    written: float = 0.0


class Storage:
    """Reads and writes objects by URI.

    :param make_client: creates the ``google.cloud.storage.Client`` at the first call; by default, a client with the
        application default credentials.
    """

    def __init__(self, make_client: Callable[[], storage.Client] | None = None) -> None:
        self._make_client = make_client
        self._client: storage.Client | None = None
        self._small: SmallObjects | None = None

    @classmethod
    def from_connection(
        cls, gcp_conn_id: str | None, impersonation_chain: str | Sequence[str] | None = None
    ) -> Storage:
        """A client with an Airflow connection's credentials, or the application default credentials if ``None``."""
        if gcp_conn_id is None:
            return cls()

        def make_client() -> storage.Client:
            from mlengine.storage.credentials import client_of_connection

            return client_of_connection(gcp_conn_id, impersonation_chain)

        return cls(make_client)

    @property
    def client(self) -> storage.Client:
        """The client of Google's library, created at the first call.

        :raises StorageForbiddenError: there are no credentials, or they cannot be read.
        """
        if self._client is None:
            with errors("Cloud Storage"):
                client = (self._make_client or _default_client)()
            # Since about 3.17, the client reads each bucket's metadata in a thread, for traces that are not used here:
            # an additional request per process, and a 403 in the audit log of accounts without that permission.
            client._bucket_metadata_cache = None
            self._client = client
        return self._client

    def read(self, uri: str) -> bytes:
        """The content of an object.

        :raises ObjectMissingError: the object does not exist.
        """
        return self.read_with_generation(uri)[0]

    def read_small(self, uri: str) -> bytes:
        """The content of an object, read at a third of the CPU time of :meth:`read`: for small, frequent reads."""
        small, (bucket, path) = self._small_objects(), split_uri(uri)
        try:
            data = small.read(bucket, path)
        except FileNotFoundError as error:
            raise ObjectMissingError(f"no object {uri}") from error
        return self.read(uri) if data is None else data

    def write_small(self, uri: str, data: bytes) -> None:
        """Write an object at a third of the CPU time of :meth:`write`: for small, frequent writes."""
        bucket, path = split_uri(uri)
        if not self._small_objects().write(bucket, path, data, _content_type(uri)):
            self.write(uri, data)

    def _small_objects(self) -> SmallObjects:
        client = self.client
        if self._small is None:
            self._small = SmallObjects(client)
        return self._small

    def read_with_generation(self, uri: str) -> tuple[bytes, int]:
        """The content of an object and its generation, for :meth:`replace`."""
        blob = self._blob(uri)
        with errors(uri):
            data: bytes = blob.download_as_bytes(timeout=ATTEMPT, retry=retry(), checksum="crc32c")
            # The response to a download contains the generation of the content.
            return data, int(blob.generation)

    def read_range(
        self, uri: str, begin: int, end: int, *, generation: int | None = None, stored: bool = False
    ) -> bytes:
        """The bytes from ``begin`` up to ``end``, or to the object's end; none if the object ends before ``begin``.

        :param generation: read only this version of the object.
        :param stored: return the bytes as stored. Otherwise, Cloud Storage decompresses an object whose
            ``Content-Encoding`` is gzip, and ranges do not correspond to the object's size.
        :raises ObjectMissingError: there is no such object.
        :raises StorageConflictError: the object has another generation.
        """
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        blob = self._blob(uri)
        with errors(uri), suppress(RequestRangeNotSatisfiable):
            # The checksum is that of the whole object, and cannot be verified for a part.
            data: bytes = blob.download_as_bytes(
                start=begin,
                end=end - 1,
                raw_download=stored,
                if_generation_match=generation,
                timeout=ATTEMPT,
                retry=retry(),
                checksum=None,
            )
            _check_generation(uri, blob, generation)
            return data
        return b""

    def write(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        """Write an object unconditionally, and return the new generation."""
        return self._upload(uri, data, content_type, None)

    def create(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        """Write an object only if it does not exist, and return the new generation.

        If a response is lost and the request is repeated, a nonce in the object's metadata shows that this call created
        the object.

        :raises StorageConflictError: another process created the object first.
        """
        return self._upload(uri, data, content_type, 0)

    def replace(self, uri: str, data: bytes, generation: int, content_type: str | None = None) -> int:
        """Write an object only if it still has ``generation`` (compare and swap).

        :raises StorageConflictError: the object has changed since.
        """
        return self._upload(uri, data, content_type, generation)

    def stat(self, uri: str) -> ObjectStat | None:
        """The metadata of an object; ``None`` if there is no such object."""
        bucket, path = split_uri(uri)
        with errors(uri, bucket=True):
            blob = self.client.bucket(bucket).get_blob(path, timeout=ATTEMPT, retry=retry())
        return None if blob is None else _stat(bucket, blob)

    def exists(self, uri: str) -> bool:
        return self.stat(uri) is not None

    def ls(self, prefix: str, glob: str | None = None) -> list[ObjectStat]:
        """All objects whose URI starts with ``prefix``, in order of name.

        :param glob: list only objects whose path below ``prefix`` matches, such as ``*/{a,b}.json``. fake-gcs-server
            (1.54) ignores this and lists all objects.
        """
        bucket, path = split_uri(prefix)
        pattern = None if glob is None else path + glob
        with errors(prefix, bucket=True):
            listing = self.client.list_blobs(
                bucket,
                prefix=path or None,
                match_glob=pattern,
                page_size=_PAGE,
                timeout=ATTEMPT,
                retry=retry(),
            )
            # The library's objects need much memory, so only those of one page exist at a time.
            return sorted((_stat(bucket, blob) for blob in listing), key=lambda stat: stat.uri)

    def list_dirs(self, prefix: str) -> list[str]:
        """The names of the folders directly below ``prefix``, sorted."""
        bucket, path = split_uri(prefix)
        path = path.rstrip("/") + "/" if path else ""
        with errors(prefix, bucket=True):
            listing = self.client.list_blobs(bucket, prefix=path or None, delimiter="/", timeout=ATTEMPT, retry=retry())
            for _ in listing:
                pass  # the prefixes are complete only after the last page
        return sorted(name[len(path) :].rstrip("/") for name in listing.prefixes)

    def upload(self, source: Path, uri: str) -> None:
        """Upload a file. The server verifies its checksum."""
        blob = self._blob(uri)
        with errors(uri, bucket=True):
            blob.upload_from_filename(str(source), timeout=ATTEMPT, retry=retry(), checksum="crc32c")

    def upload_once(self, source: Path, uri: str) -> None:
        """Upload a file if the object does not exist. If it exists with the same content, nothing is sent.

        A file larger than :data:`ONE_REQUEST_BYTES` is sent in an upload session, which can be resumed. Google checks
        the precondition of a session; fake-gcs-server (1.54) does not, so there the last of two writers wins.

        :raises StorageConflictError: the object exists with other content.
        """
        if self._holds(uri, source):
            return
        blob = self._blob(uri)
        try:
            with errors(uri, bucket=True):
                if source.stat().st_size <= ONE_REQUEST_BYTES:
                    content_type = mimetypes.guess_type(source.name)[0] or "application/octet-stream"
                    _send_once(blob, source.read_bytes(), content_type, 0)
                else:
                    blob.upload_from_filename(
                        str(source), if_generation_match=0, timeout=ATTEMPT, retry=retry(), checksum="crc32c"
                    )
        except StorageConflictError:  # created since the check, perhaps by this call, if a response was lost
            if not self._holds(uri, source):
                raise

    def _holds(self, uri: str, source: Path) -> bool:
        """Whether the object exists with the content of ``source``.

        :raises StorageConflictError: the object exists with other content.
        """
        there = self.stat(uri)
        if there is not None and (there.size, there.crc32c) != (source.stat().st_size, crc32c_of(source)):
            raise StorageConflictError(f"{uri} already exists, with other content")
        return there is not None

    def download(self, uri: str, target: Path, *, generation: int | None = None, stored: bool = False) -> None:
        """Download one object to a temporary file, then rename it: ``target`` is complete or does not exist.

        :param generation: download only this version of the object.
        :param stored: write the bytes as stored, see :meth:`read_range`.
        :raises ObjectMissingError: there is no such object.
        :raises StorageConflictError: the object has another generation.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        blob = self._blob(uri)
        try:
            with errors(uri):
                blob.download_to_filename(
                    str(partial),
                    raw_download=stored,
                    if_generation_match=generation,
                    timeout=ATTEMPT,
                    retry=retry(),
                    checksum="crc32c",
                )
            _check_generation(uri, blob, generation)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, uri: str, generation: int | None = None) -> None:
        """Delete one object. The call can be repeated safely: it is not an error if the object does not exist.

        :param generation: delete the object only if it still has this generation.
        :raises StorageConflictError: the object has another generation.
        """
        try:
            with errors(uri):
                self._blob(uri).delete(if_generation_match=generation, timeout=ATTEMPT, retry=retry())
        except ObjectMissingError:
            return  # deleted already, perhaps by this call, if a response was lost

    def _blob(self, uri: str) -> Any:
        bucket, path = split_uri(uri)
        if not path:
            raise StorageError(f"{uri} is a bucket, not an object")
        return self.client.bucket(bucket).blob(path)

    def _upload(self, uri: str, data: bytes, content_type: str | None, generation: int | None) -> int:
        blob = self._blob(uri)
        nonce = uuid.uuid4().hex
        blob.metadata = {_NONCE: nonce}
        content_type = content_type or _content_type(uri)
        try:
            with errors(uri, bucket=True):
                if generation is not None:
                    return _send_once(blob, data, content_type, generation)
                blob.upload_from_string(
                    data, content_type=content_type, timeout=ATTEMPT, retry=retry(), checksum="crc32c"
                )
        except StorageConflictError:
            # If the client has repeated a request whose response was lost, the nonce is that of this call.
            with errors(uri, bucket=True):
                mine = self.client.bucket(blob.bucket.name).get_blob(blob.name, timeout=ATTEMPT, retry=retry())
            if mine is None or (mine.metadata or {}).get(_NONCE) != nonce:
                raise
            return int(mine.generation)
        return int(blob.generation)


def _content_type(uri: str) -> str:
    return "application/json" if uri.endswith(".json") else "application/octet-stream"


def _check_generation(uri: str, blob: Any, generation: int | None) -> None:
    """Check the generation of a downloaded object, as not every server checks the precondition of a download."""
    if generation is not None and blob.generation is not None and int(blob.generation) != generation:
        raise StorageConflictError(f"{uri} has generation {blob.generation}, {generation} was asked for")


def _send_once(blob: Any, data: bytes, content_type: str, generation: int) -> int:
    """Write conditionally, in one request of any size, and return the new generation.

    The library's public methods use an upload session above 8 MiB, and fake-gcs-server (1.54) ignores the precondition
    of a session: the write would always succeed.
    """
    from google.api_core.exceptions import from_http_status
    from google.cloud.storage.exceptions import InvalidResponse

    try:
        response = blob._do_multipart_upload(
            None,
            io.BytesIO(data),
            content_type,
            len(data),
            predefined_acl=None,
            if_generation_match=generation,
            if_generation_not_match=None,
            if_metageneration_match=None,
            if_metageneration_not_match=None,
            timeout=ATTEMPT,
            checksum="crc32c",
            retry=retry(),
        )
    except InvalidResponse as error:
        response = error.response
        raise from_http_status(response.status_code, response.text, response=response) from error  # type: ignore[no-untyped-call]
    return int(response.json()["generation"])


def _default_client() -> storage.Client:
    from google.cloud import storage

    return storage.Client()


def _stat(bucket: str, blob: Any) -> ObjectStat:
    written = blob.updated.timestamp() if blob.updated else 0.0
    return ObjectStat(
        f"gs://{bucket}/{blob.name}", int(blob.size or 0), int(blob.generation or 0), blob.crc32c, written
    )


def crc32c_of(path: Path) -> str:
    """The checksum of a local file in the format of Cloud Storage: big-endian, in base64."""
    import google_crc32c

    checksum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()
