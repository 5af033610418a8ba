"""Parses Python source in a process that may have several threads.

In Python 3.11 before 3.11.8, ``ast.parse`` fails with a ``SystemError`` ("AST constructor recursion depth mismatch") if
another thread parses at the same time (python/cpython#106905). Nor may several threads change the filters of warnings.
"""

from __future__ import annotations

import ast
import threading
import warnings

_ATTEMPTS = 10
_LOCK = threading.Lock()


def parse(source: str | bytes, filename: str = "<unknown>") -> ast.Module:
    """Parse a module like ``ast.parse``, one thread at a time and without warnings about the source.

    The call is repeated after a ``SystemError``, because threads of other libraries may parse too.

    :raises SyntaxError, ValueError: the source is not valid for this Python.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(_ATTEMPTS - 1):
            try:
                return ast.parse(source, filename)
            except SystemError:
                continue
        return ast.parse(source, filename)
