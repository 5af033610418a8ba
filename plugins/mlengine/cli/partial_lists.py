"""Reads lists of items of which some may be unreadable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.output import note
from mlengine.core.errors import MlengineError

Item = TypeVar("Item")


def read_each(names: Iterable[str], read: Callable[[str], Item]) -> tuple[list[Item], ExitCode]:
    """Read every item. A note names each item that could not be read, and the reason.

    :returns: the items that were read, and the command's exit code.
    :raises MlengineError: a service is unavailable, so that the other items cannot be read either.
    """
    found, code = [], ExitCode.OK
    for name in names:
        try:
            found.append(read(name))
        except MlengineError as error:
            if error.retryable:
                raise
            note(f"mlengine: {error}")
            code = ExitCode.FAILED
    return found, code
