"""Lists that show what can be read although something cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.output import note
from mlengine.core.errors import MlengineError

Item = TypeVar("Item")


def read_each(names: Iterable[str], read: Callable[[str], Item]) -> tuple[list[Item], ExitCode]:
    """Read each; a note says which could not be read, and why.

    :returns: what was read, and the command's exit code.
    :raises MlengineError: a service is unavailable; nothing is known about the others then.
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
