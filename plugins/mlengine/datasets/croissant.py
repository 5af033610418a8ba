"""Writes Croissant 1.1 metadata of a version for other tools, as ``croissant.json`` next to the manifest.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. The manifest remains the authoritative record. The
metadata is generated from it and never read back.
"""

from __future__ import annotations

import json
from typing import Any

from mlengine.core import layout
from mlengine.core.dataset import Column, DataFile, Manifest
from mlengine.storage.client import Storage

CROISSANT = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
MOST_FILES = 1_000  # with more files, the metadata lists only sets of files

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_MEDIA_TYPES = {
    "parquet": "application/x-parquet",
    "csv": "text/csv",
    "jsonl": "application/jsonlines",
    "tfrecord": "application/x-tfrecord",
    "idx": "application/octet-stream",
    "images": "image/jpeg",
    "files": "application/octet-stream",
}
_DATA_TYPES = {
    "bool": "sc:Boolean",
    "string": "sc:Text",
    "binary": "sc:Text",
    "timestamp": "sc:DateTime",
    "date": "sc:Date",
    **{
        f"{kind}{bits}": f"cr:{name}{bits}"
        for kind, name in (("int", "Int"), ("uint", "UInt"))
        for bits in (8, 16, 32, 64)
    },
    **{f"float{bits}": f"cr:Float{bits}" for bits in (16, 32, 64)},
}
# Formats whose records Croissant can describe. IDX and TFRecord files are listed without their columns.
_RECORDS = ("parquet", "csv", "jsonl", "images")


def write(storage: Storage, root: str, manifest: Manifest) -> None:
    """Write the metadata into the version's folder, unless it exists."""
    uri = layout.join(root, CROISSANT)
    if not storage.exists(uri):
        storage.write(uri, to_bytes(manifest, root), "application/ld+json")


def to_bytes(manifest: Manifest, root: str) -> bytes:
    """The metadata as the content of a file.

    :param root: the URI of the version's folder.
    """
    return json.dumps(metadata(manifest, root), indent=2).encode() + b"\n"


def metadata(manifest: Manifest, root: str) -> dict[str, Any]:
    """The metadata as JSON-LD.

    :param root: the URI of the version's folder.
    """
    data: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.name,
        "description": f"{manifest.name}, version {manifest.version}: {manifest.source}",
        "conformsTo": CONFORMS_TO,
        "citeAs": manifest.source,
        "license": manifest.license,
        "url": root,
        "version": manifest.version,
        "datePublished": manifest.created,
        "distribution": [*_file_objects(manifest), *(_file_set(manifest, split) for split in manifest.splits)],
    }
    if manifest.by_reference:
        data["isLiveDataset"] = True  # otherwise each file needs a SHA-256, which is not known here
    if manifest.format in _RECORDS:
        data["recordSet"] = [_record_set(manifest, split) for split in manifest.splits]
    return data


def _file_objects(manifest: Manifest) -> list[dict[str, Any]]:
    files = manifest.files
    return [_file_object(file, manifest) for file in files] if len(files) <= MOST_FILES else []


def _file_object(file: DataFile, manifest: Manifest) -> dict[str, Any]:
    data = {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.uri or file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": _media_type(file.path, manifest),
    }
    return data | ({"sha256": file.sha256} if file.sha256 else {})


def _media_type(path: str, manifest: Manifest) -> str:
    endings = {".png": "image/png", ".tif": "image/tiff", ".tiff": "image/tiff", ".tsv": "text/tab-separated-values"}
    return next((kind for ending, kind in endings.items() if path.endswith(ending)), _MEDIA_TYPES[manifest.format])


def _file_set(manifest: Manifest, split: str) -> dict[str, Any]:
    paths = [file.path for file in manifest.splits[split].files]
    common = paths[0].split("/")[0] if all("/" in path for path in paths) else ""
    endings = {path.rsplit(".", 1)[-1] for path in paths}
    ending = f".{endings.pop()}" if len(endings) == 1 else ""
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-files",
        "name": f"{split}-files",
        "encodingFormat": _media_type(paths[0], manifest),
        "includes": f"{common}/**/*{ending}"
        if manifest.format == "images"
        else f"{common or split}*{ending}"
        if not common
        else f"{common}/*{ending}",
    }


def _record_set(manifest: Manifest, split: str) -> dict[str, Any]:
    key = manifest.schema.key
    data = {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "field": [_field(manifest, split, column) for column in manifest.schema.columns],
    }
    return data | ({"key": {"@id": f"{split}/{key}"}} if key else {})


def _field(manifest: Manifest, split: str, column: Column) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": f"{split}-files"}}
    kind = _DATA_TYPES[column.dtype]
    if manifest.format == "images":
        source["extract"] = {"fileProperty": "content" if column.name == "image" else "fullpath"}
        if column.name == "label":
            source["transform"] = {"regex": r".*/([^/]+)/[^/]+$"}
        kind = "sc:ImageObject" if column.name == "image" else kind
    else:
        source["extract"] = {"column": column.name}
    data: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{split}/{column.name}",
        "name": column.name,
        "dataType": [kind, "cr:Label"] if column.name == manifest.schema.target else kind,
        "source": source,
    }
    if column.shape:
        data |= {"isArray": True, "arrayShape": ",".join(map(str, column.shape))}
    return data
