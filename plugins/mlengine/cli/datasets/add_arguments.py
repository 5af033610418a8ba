"""The arguments of ``mlengine datasets add``, and its progress on a terminal."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlengine.cli.options import Once, reason, unique
from mlengine.core.dataset import DTYPES, FILE_FORMATS, HELDOUT_POLICIES, TASKS, Manifest
from mlengine.core.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from mlengine.storage.client import Storage

_REFRESH = 0.2  # seconds between two lines of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``."""
    parser.add_argument("version", metavar="VERSION", help="a new version, such as 2026-11-01 or v12")
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        help="a directory or file, which is copied; or a gs:// prefix, whose objects are recorded by reference",
    )
    parser.add_argument(
        "--from-croissant", metavar="FILE", help="register the files that this Croissant metadata lists"
    )
    parser.add_argument("--license", help="license of the data (default: that of the previous version)")
    parser.add_argument("--source", help="origin of the data (default: that of the previous version)")

    columns = parser.add_argument_group("columns", "The defaults are those of the previous version.")
    columns.add_argument("--target", action=Once, metavar="COLUMN", help="what a model predicts")
    columns.add_argument("--key", action=Once, metavar="COLUMN", help="identifies a row; not used as a feature")
    columns.add_argument("--time", action=Once, metavar="COLUMN", help="when a row was observed")
    columns.add_argument("--weight", action=Once, metavar="COLUMN", help="the weight of a row in metrics")
    columns.add_argument(
        "--task", choices=TASKS, help="kind of prediction (default: determined from the target's values)"
    )
    columns.add_argument(
        "--classes", metavar="A,B,…", help="the target's values in order (default: those found, sorted)"
    )
    columns.add_argument("--dtype", action="append", default=[], metavar="COLUMN=TYPE", help="set a column's type")

    files = parser.add_argument_group("files")
    files.add_argument(
        "--format", choices=FILE_FORMATS, help="format of the files (default: determined from their suffixes)"
    )
    files.add_argument(
        "--heldout",
        action=Once,
        metavar="PATH|SHARE",
        help="held-out rows: another path, or a share such as 0.1",
    )
    files.add_argument(
        "--heldout-policy",
        choices=HELDOUT_POLICIES,
        help="fixed: the same rows in each version; rolling: each version has its own",
    )
    files.add_argument(
        "--discard-partial", action="store_true", help="delete the files that an interrupted registration left behind"
    )

    checks = parser.add_argument_group("checks")
    checks.add_argument(
        "--rows",
        choices=("all", "sample", "none"),
        help="rows to read (default: all of a directory, a sample of a prefix)",
    )
    checks.add_argument("--limit", action="append", default=[], metavar="CHECK=VALUE", help="set a check's threshold")
    checks.add_argument(
        "--check", action="append", default=[], metavar="MODULE:NAME", help="also run this custom check"
    )
    checks.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CHECK",
        help="accept a failure of this check; requires --reason",
    )
    checks.add_argument("--reason", type=reason, help="why the failure is accepted; recorded in the manifest")


def register_version(storage: Storage, bucket: str, args: argparse.Namespace) -> Manifest:
    """Register the version that the arguments describe.

    :raises UsageError: the arguments are inconsistent.
    :raises DatasetError: a check failed, or the version exists; nothing was registered.
    """
    from mlengine.datasets import Options, Roles, add
    from mlengine.datasets.croissant_import import read_croissant

    if (args.path is None) == (args.from_croissant is None):
        raise UsageError("pass either a path or --from-croissant", hint="mlengine datasets add NAME VERSION PATH")
    progress = Progress()
    options = Options(
        license=args.license,
        source=args.source,
        file_format=args.format,
        heldout=args.heldout,
        roles=Roles(
            target=args.target,
            key=args.key,
            time=args.time,
            weight=args.weight,
            task=args.task,
            heldout_policy=args.heldout_policy,
            classes=tuple(args.classes.split(",")) if args.classes else None,
        ),
        dtypes=_dtypes(args.dtype),
        rows=args.rows,
        limits=_limits(args.limit),
        allow=args.allow,
        reason=args.reason or "",
        own_checks=args.check,
        discard_partial=args.discard_partial,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="mlengine-croissant-") as scratch:
            path = args.path
            if args.from_croissant is not None:
                path, options = read_croissant(args.from_croissant, options, Path(scratch), progress)
            return add(storage, bucket, args.name, args.version, path, options=options, progress=progress)
    finally:
        progress.clear()


def _dtypes(words: list[str]) -> dict[str, str]:
    found = _pairs(words, "--dtype COLUMN=TYPE")
    for name, dtype in found.items():
        if dtype not in DTYPES:
            raise UsageError(f"--dtype {name}={dtype}: unknown type", hint=f"use one of {', '.join(DTYPES)}")
    return found


def _limits(words: list[str]) -> dict[str, float]:
    from mlengine.datasets.checks import Limits

    found = {name: _number(value, name) for name, value in _pairs(words, "--limit CHECK=VALUE").items()}
    try:
        Limits.of(found)
    except DatasetError as error:
        raise UsageError(f"--limit: {error.message}", hint=error.hint) from error
    return found


def _pairs(words: list[str], form: str) -> dict[str, str]:
    pairs = [word.rpartition("=") for word in words]
    for word, (name, _, value) in zip(words, pairs, strict=True):
        if not name or not value:
            raise UsageError(f"expected {form}, got {word!r}")
    return unique(form.partition(" ")[0], ((name, value) for name, _, value in pairs))


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--limit {name}={text}: not a number", hint="write --limit drift=0.3") from error


class Progress:
    """A progress line on the terminal, which is overwritten. Prints nothing if stderr is not a terminal."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if self._terminal and now - self._shown >= _REFRESH:
            sys.stderr.write(f"\r\x1b[K{text[:100]}")
            sys.stderr.flush()
            self._shown = now

    def clear(self) -> None:
        """Remove the progress line."""
        if self._terminal and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
