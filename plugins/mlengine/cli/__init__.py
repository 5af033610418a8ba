"""The command line, ``mlengine NOUN COMMAND``. Each noun has one module or package.

Each has a function ``register(commands)``, which adds parsers whose default ``handler`` takes the parsed arguments and
returns the exit code. Registering must not import expensive modules, so that commands start fast. No other package may
import this one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mlengine import __version__
from mlengine.cli import exit_codes
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.output import OutputClosedError, OutputFailedError, note
from mlengine.core.errors import JobFileError, MlengineError, UsageError

_NOUNS = ("jobs", "datasets", "models", "vertex", "emulator")
# Commands that users may expect at the root, and the commands that replace them.
_ELSEWHERE = {
    "status": "jobs list, or jobs status JOB",
    "logs": "jobs logs",
    "cancel": "jobs cancel",
    "train": "jobs train",
    "rerun": "jobs rerun",
    "reap": "jobs reap",
    "prune": "jobs prune",
    "tensorboard": "jobs tensorboard",
    "predict": "models predict",
    "serve": "emulator",
}
_EPILOG = f"""\
exit codes:
{exit_codes.table()}

`mlengine NOUN --help` lists the commands of a noun. With --json, stdout is one
JSON document; logs and notes go to stderr.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="mlengine",
        description="Train models with distributed jobs, validate them, and publish the best.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mlengine {__version__}")
    commands = parser.add_subparsers(title="nouns", metavar="NOUN", required=True)
    for noun in _NOUNS:
        import_module(f"mlengine.cli.{noun}").register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, one of :class:`~mlengine.cli.exit_codes.ExitCode`."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(words)
        return int(args.handler(args) or ExitCode.OK)
    except MlengineError as error:
        note(f"mlengine: {error}")
        return ExitCode.USAGE if isinstance(error, UsageError | JobFileError) else ExitCode.FAILED
    except OSError as error:
        if error.filename is None:
            raise
        note(f"mlengine: {error.filename}: {error.strerror}")
        return ExitCode.FAILED
    except OutputClosedError:
        _discard_output()
        return ExitCode.OUTPUT_CLOSED
    except OutputFailedError as error:
        _discard_output()
        note(f"mlengine: the output cannot be written: {error}")
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _discard_output() -> None:
    """Redirect stdout, because the interpreter flushes it once more at exit, which must not fail."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(words: list[str]) -> argparse.Namespace:
    parser = build_parser()
    if words and words[0] in _ELSEWHERE:
        parser.error(f"there is no `mlengine {words[0]}`: use `mlengine {_ELSEWHERE[words[0]]}`")
    # Arguments after -- are the trainer's own, so argparse must not see them.
    trains = words[:2] == ["jobs", "train"]
    split = words.index("--") if trains and "--" in words else len(words)
    args = parser.parse_args(words[:split])
    if trains:
        args.user_args = tuple(words[split + 1 :])
    return args
