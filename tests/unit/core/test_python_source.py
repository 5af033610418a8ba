"""Parsing in several threads: one at a time, and again if another library's thread has interfered."""

from __future__ import annotations

import ast
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mlengine.core import python_source

MISMATCH = "AST constructor recursion depth mismatch (before=42, after=33)"


def test_source_is_parsed_without_warnings() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tree = python_source.parse(b"x = '\\d'\n", "a.py")
    assert ast.dump(tree) == ast.dump(ast.Module([*ast.parse("x = '\\\\d'").body], []))
    assert seen == []


def test_invalid_source_is_an_error_with_its_file_and_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        python_source.parse(b"x = 1\ny = (\n", "a.py")
    assert (caught.value.filename, caught.value.lineno) == ("a.py", 2)


def test_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    original, inside, most = ast.parse, 0, 0
    lock = threading.Lock()

    def parse(*arguments: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with lock:
            inside -= 1
        return original(*arguments)

    monkeypatch.setattr(ast, "parse", parse)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(python_source.parse, ["x = 1"] * 12))
    assert most == 1


def test_a_mismatch_caused_by_another_library_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    original, failures = ast.parse, [SystemError(MISMATCH)] * 3

    def parse(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return original(*arguments)

    monkeypatch.setattr(ast, "parse", parse)
    assert isinstance(python_source.parse("x = 1"), ast.Module)
    failures += [SystemError(MISMATCH)] * 100
    with pytest.raises(SystemError, match="mismatch"):
        python_source.parse("x = 1")
