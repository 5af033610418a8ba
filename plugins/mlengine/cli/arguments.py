"""Types of arguments that several commands take."""

from __future__ import annotations

import argparse

from mlengine.core import limits


def attempts(text: str) -> int:
    """How many attempts a job may have.

    :raises argparse.ArgumentTypeError: not an integer, or outside of the limits.
    """
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is not an integer: {text!r}") from error
    problem = limits.attempts(number)
    if problem is not None:
        raise argparse.ArgumentTypeError(f"{problem.message}; {problem.hint}")
    return number
