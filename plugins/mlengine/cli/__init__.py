"""``mlengine …`` for a terminal. One file a noun; each registers its verbs and imports nothing heavy to do so."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mlengine import __version__
from mlengine.core import plaintext
from mlengine.core.errors import MlengineError

# Each module has `register(commands)`, which adds parsers whose default `handler` takes the namespace and returns the
# exit code.
_NOUNS: tuple[str, ...] = (
    "datasets",
    "emulator",
    "jobs",
    "models",
    "predict",
    "prune",
    "reap",
    "rerun",
    "tensorboard",
    "train",
)


_CLOSED = 128 + 13  # as a shell reports a program that SIGPIPE ended


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mlengine", description="Retrain models with distributed jobs.")
    parser.add_argument("--version", action="version", version=f"mlengine {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for noun in _NOUNS:
        import_module(f"mlengine.cli.{noun}").register(commands)
    return parser


class OutputClosedError(Exception):
    """The reader of the output has closed it, as ``| head`` does."""


def say(text: str = "") -> None:
    """A line, or some, for the person at the terminal; what came from elsewhere cannot speak to the terminal itself.

    :raises OutputClosedError: its reader has closed it.
    """
    try:
        sys.stdout.write(f"{plaintext.visible(text)}\n")
        # A log that is followed through a pipe shows each line when it is written.
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosedError from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0 done, 1 failed with a reason on stderr, 2 wrong usage, 141 its output was closed."""
    words = list(sys.argv[1:] if argv is None else argv)
    user_args: list[str] = []
    # What stands behind -- is the trainer's: argparse would take it for this command's own.
    if words[:1] == ["train"] and "--" in words:
        place = words.index("--")
        words, user_args = words[:place], words[place + 1 :]
    args = build_parser().parse_args(words)
    if words[:1] == ["train"]:
        args.user_args = tuple(user_args)
    try:
        return int(args.handler(args) or 0)
    except MlengineError as error:
        sys.stderr.write(f"mlengine: {plaintext.visible(str(error))}\n")
        return 1
    except OutputClosedError:
        # The interpreter flushes once more when it ends: that must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED
    except KeyboardInterrupt:
        return 130
