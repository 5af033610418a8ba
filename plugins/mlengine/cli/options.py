"""Options and argument types that several commands share."""

from __future__ import annotations

import argparse
import getpass
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from mlengine import backends
from mlengine.connections import configured_bucket
from mlengine.core import limits, plaintext
from mlengine.core.errors import UsageError

# The return type of `add_subparsers`. Each command's module adds its parser to such an object.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_noun(commands: Commands, name: str, text: str) -> Commands:
    """Add a noun, such as ``jobs``, and return the commands below it."""
    parser = commands.add_parser(name, help=text, description=_capitalized(text))
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(commands: Commands, name: str, text: str, description: str = "") -> argparse.ArgumentParser:
    """Add a command.

    :param text: one line for the list of commands.
    :param description: the text for the command's own help, if one line is not enough.
    """
    return commands.add_parser(name, help=text, description=description or _capitalized(text))


def _capitalized(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--json`` to a command."""
    parser.add_argument("--json", action="store_true", help="print one JSON document (keys: docs/reference.md)")


def add_bucket(parser: argparse.ArgumentParser, purpose: str = "bucket of jobs, datasets and models") -> None:
    """Add the option ``--bucket``. Its default is the setting ``bucket``, which is read when the command runs."""
    parser.add_argument("--bucket", metavar="GS", help=f"{purpose}, gs://NAME (default: the setting bucket)")


def bucket_of(args: argparse.Namespace) -> str:
    """The URI of the bucket from ``--bucket`` or the setting.

    :raises StorageError: neither is given, or the value is not a bucket's name.
    """
    return configured_bucket(args.bucket)


def add_backend_options(parser: argparse.ArgumentParser, *, region: str = "") -> None:
    """Add the options that tell a backend where to find its jobs.

    :param region: an addition to the help of ``--region``.
    """
    parser.add_argument(
        "--state-dir", metavar="DIR", help="state directory of the local backend (default: the setting local_state_dir)"
    )
    parser.add_argument("--project", help="project of Vertex AI (default: the setting vertex_project)")
    parser.add_argument("--region", help=f"region of Vertex AI{region} (default: the setting vertex_region)")


def add_set(parser: argparse._ActionsContainer, what: str) -> None:
    """Add the option ``--set KEY=VALUE``, which may be repeated."""
    parser.add_argument("--set", action="append", default=[], type=key_value, metavar="KEY=VALUE", help=what)


def key_value(text: str) -> tuple[str, str]:
    """Parse an argument of the form ``KEY=VALUE``.

    :raises argparse.ArgumentTypeError: the argument has another form.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key, value


class Once(argparse.Action):
    """An argparse action for an option that may be given only once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        del parser, option_string
        before = getattr(namespace, self.dest)
        if before is not None:
            raise argparse.ArgumentError(self, f"given twice, with {before} and {values}; use it only once")
        setattr(namespace, self.dest, values)


def unique(option: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The values of a repeated option by key.

    :raises UsageError: a key is given twice.
    """
    found: dict[str, str] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(f"{option}: {key} is given twice", hint="set each key only once")
        found[key] = value
    return found


def add_backend(parser: argparse._ActionsContainer, help_text: str, default: str | None = None) -> None:
    """Add the option ``--backend``."""
    parser.add_argument("--backend", type=_backend, default=default, metavar="NAME", help=help_text)


def _backend(text: str) -> str:
    if text not in backends.names():
        raise argparse.ArgumentTypeError(f"no backend named {text!r}; the backends are {', '.join(backends.names())}")
    return text


def add_port(parser: argparse.ArgumentParser, option: str, help_text: str, default: int | None = None) -> None:
    """Add an option whose value is a TCP port."""
    parser.add_argument(option, type=_port, default=default, metavar="PORT", help=help_text)


def _port(text: str) -> int:
    number = _integer(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"port {number} is out of range; use 0 to 65535")
    return number


def count(text: str) -> int:
    """Parse a count, an integer of at least 1.

    :raises argparse.ArgumentTypeError: ``text`` is not an integer, or is less than 1.
    """
    number = _integer(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more: {text}")
    return number


def index(text: str) -> int:
    """Parse a position, an integer of at least 0.

    :raises argparse.ArgumentTypeError: ``text`` is not an integer, or is negative.
    """
    number = _integer(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more: {text}")
    return number


def add_by(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--by``."""
    parser.add_argument("--by", default="", metavar="NAME", help="your name for the history (default: the login name)")


def user(args: argparse.Namespace) -> str:
    """The name from ``--by``, or the login name.

    :raises UsageError: neither is known.
    """
    try:
        return args.by or getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("cannot determine the current user", hint="pass --by NAME") from error


def add_max_attempts(parser: argparse._ActionsContainer) -> None:
    """Add the option ``--max-attempts``."""
    parser.add_argument(
        "--max-attempts",
        type=attempts,
        metavar="N",
        help="maximum number of attempts (default: the setting max_attempts)",
    )


def attempts(text: str) -> int:
    """Parse the maximum number of a job's attempts.

    :raises argparse.ArgumentTypeError: ``text`` is not an integer, or is out of range.
    """
    problem = limits.attempts(number := _integer(text))
    if problem is not None:
        raise argparse.ArgumentTypeError(f"{problem.message}; {problem.hint}")
    return number


def seconds(text: str) -> float:
    """Parse a duration in seconds.

    :raises argparse.ArgumentTypeError: ``text`` is not a finite number above 0.
    """
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from error
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0: {text}")
    return number


def reason(text: str) -> str:
    """Parse a reason, which is recorded as one line, because logs and tables show it.

    :raises argparse.ArgumentTypeError: ``text`` is blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("the reason must not be empty")
    return plaintext.joined(text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not an integer: {text!r}") from error


def add_airflow_url(parser: argparse._ActionsContainer) -> None:
    """Add the option ``--airflow-url``."""
    parser.add_argument(
        "--airflow-url",
        metavar="URL",
        help="URL of Airflow's API server (default: MLENGINE_AIRFLOW_URL); the login is MLENGINE_AIRFLOW_TOKEN, or "
        "MLENGINE_AIRFLOW_USER and MLENGINE_AIRFLOW_PASSWORD",
    )
