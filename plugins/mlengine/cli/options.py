"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from mlengine.connections import configured_bucket

# What `add_subparsers` returns, and what each command's module adds its parser to.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_bucket(parser: argparse.ArgumentParser, purpose: str = "gs://BUCKET") -> None:
    """Add ``--bucket``. Its default is the setting ``bucket``, which is read when the command runs."""
    parser.add_argument("--bucket", help=f"{purpose} (default: the setting bucket)")


def bucket_of(args: argparse.Namespace) -> str:
    """The bucket's URI, of ``--bucket`` or of the setting.

    :raises StorageError: neither is given, or it is not a bucket's name.
    """
    return configured_bucket(args.bucket)
