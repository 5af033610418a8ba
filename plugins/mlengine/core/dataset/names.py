"""Names of datasets and of their versions. Both are names of folders in the bucket."""

from __future__ import annotations

import re

from mlengine.core.errors import DatasetError

_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,39}$")
_VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")


def check_dataset_name(name: str) -> str:
    """Return ``name`` if it is a valid dataset name.

    :raises DatasetError: the name is not valid.
    """
    if not _NAME.fullmatch(name):
        raise DatasetError(f"invalid dataset name: {name!r}", hint="use 1 to 40 of a-z 0-9 _ -, starting with a letter")
    return name


def check_version_name(version: str) -> str:
    """Return ``version`` if it is a valid version name. Version names become part of job ids.

    :raises DatasetError: the name is not valid.
    """
    if not _VERSION.fullmatch(version):
        raise DatasetError(
            f"invalid dataset version: {version!r}",
            hint="use 1 to 63 of A-Z a-z 0-9 . _ + -, starting with a letter or digit: 2026-11-01, v12",
        )
    return version
