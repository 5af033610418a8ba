"""The checks of a project's wheel."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from mlengine.packaging.archive import Archive
from mlengine.packaging.source_tree import SourceFile, SourceTree
from mlengine.packaging.wheel_check import left_out_by_build


def wheel(paths: Collection[str]) -> Archive:
    return Archive("t-1.0-py3-none-any.whl", "t", "1.0", frozenset(paths))


def tree(*paths: str) -> SourceTree:
    return SourceTree(Path("/project"), tuple(SourceFile(path, 0, False, "") for path in paths), ())


@pytest.mark.parametrize(
    ("installed", "paths", "left_out"),
    [
        (["trainer/task.py"], ["trainer/task.py", "trainer/vocab.txt", "notes.txt"], ["trainer/vocab.txt"]),
        (["trainer/task.py"], ["src/trainer/task.py", "src/trainer/a/b.txt", "src/x.txt"], ["src/trainer/a/b.txt"]),
        (["trainer/task.py"], ["src/trainer/task.py", "trainer/vocab.txt", "src/trainers/x.txt"], []),
        (["a/x.py", "a/v.txt"], ["one/a/x.py", "one/a/v.txt", "two/a/x.py", "two/a/w.txt"], ["two/a/w.txt"]),
        (["task.py"], ["task.py", "src/task.py", "notes.txt", "src/notes.txt"], []),
        (["trainer/vocab.txt"], ["trainer/vocab.txt", "trainer/other.txt"], []),
        (["a/x.py"], ["a/x.py", "a/b/a/x.py", "a/b/a/y.py"], ["a/b/a/x.py", "a/b/a/y.py", "a/b/a/y.py"]),
    ],
)
def test_files_missing_in_a_build_are_found(installed: list[str], paths: list[str], left_out: list[str]) -> None:
    assert [left.path for left in left_out_by_build(wheel(installed), tree(*paths))] == left_out
