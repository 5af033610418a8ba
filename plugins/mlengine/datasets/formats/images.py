"""Images in one folder per class: ``train/cat/1.jpg``, or ``cat/1.jpg`` in the location of a split.

A row is the image's bytes as stored (``image``), the folder's name (``label``) and the file's path (``path``, the key).
Images are not decoded: a model's serving signature takes the bytes, or its scorer decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.base import Format
from mlengine.datasets.sources import SourceFile
from mlengine.datasets.split_names import split_of_folder

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
_BATCH_BYTES = 16 << 20


class Images(Format):
    """The format of image folders; see :class:`~mlengine.datasets.formats.base.Format`."""

    name = "images"
    suffixes = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        import pyarrow as pa

        del dtypes
        for file in files:
            if _label(file) is None:
                raise DatasetError(
                    f"{file.where} is not in a folder named after its class",
                    hint="arrange pictures as train/CLASS/NAME.jpg and heldout/CLASS/NAME.jpg, or as CLASS/NAME.jpg in "
                    "two places: PATH and --heldout PATH",
                )
        names = (("image", pa.binary()), ("label", pa.string()), ("path", pa.string()))
        return pa.schema([pa.field(name, kind, nullable=False) for name, kind in names])

    def row_counts(self, files: Sequence[SourceFile]) -> list[int] | None:
        return [1] * len(files)

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        del strict  # the columns are those of the file
        held: list[tuple[bytes, str, str]] = []
        size, left = 0, sample_bytes
        step = 1 if left is None else max(1, sum(file.size for file in files) // max(1, left))
        for file in files[::step]:
            content = _content(file) if "image" in schema.names else b""
            held.append((content, _label(file) or "", file.path))
            size += len(content)
            if len(held) >= rows or size >= _BATCH_BYTES:
                yield _batch(held, schema)
                held, size = [], 0
        if held:
            yield _batch(held, schema)


def _label(file: SourceFile) -> str | None:
    """The name of the file's folder; ``None`` if it is the folder of a split, or if there is none."""
    *folders, _ = file.path.split("/")
    if len(folders) == 1 and split_of_folder(folders[0]):
        return None
    return folders[-1] if folders else None


def _batch(held: list[tuple[bytes, str, str]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = dict(zip(("image", "label", "path"), zip(*held, strict=True), strict=True))
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _content(file: SourceFile) -> bytes:
    with file.open() as stream:
        content = bytes(stream.read())
    if not content.startswith(_MAGIC):
        raise DatasetError(
            f"{file.where} is not a picture: it begins with {content[:4].hex(' ') or 'nothing'}",
            hint="remove it, or save it as JPEG or PNG",
        )
    return content


FORMAT = Images()
