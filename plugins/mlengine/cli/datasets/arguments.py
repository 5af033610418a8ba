"""Arguments that several commands of ``mlengine datasets`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlengine.cli.options import Commands, add_bucket, add_command


def add_dataset_command(
    verbs: Commands, name: str, text: str, handler: Callable[[argparse.Namespace], int], *, optional_name: bool = False
) -> argparse.ArgumentParser:
    """Add a command with NAME and ``--bucket``."""
    parser = add_command(verbs, name, text)
    if optional_name:
        parser.add_argument("name", metavar="NAME", nargs="?", help="name of the dataset (default: list the datasets)")
    else:
        parser.add_argument("name", metavar="NAME", help="name of the dataset")
    add_bucket(parser, "bucket of the dataset")
    parser.set_defaults(handler=handler)
    return parser
