"""Builds the source of the start command: :mod:`mlengine.backends.vertex.bootstrap`, and its imports from this project.

A container has Python and pip, and no code of this project, so the start command is one source text: each import of a
module of this project is replaced by the module's source. The modules share one namespace, so their top-level names
differ, and they import names from each other, never modules.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mlengine.core import python_source

_BOOTSTRAP = "mlengine.backends.vertex.bootstrap"


@cache
def start_command() -> str:
    """The source of the start command, without comments and docstrings."""
    future = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
    module = ast.Module([future, *_statements(_BOOTSTRAP, set())], [])
    return ast.unparse(ast.fix_missing_locations(module))


def _statements(module: str, included: set[str]) -> list[ast.stmt]:
    """The statements of ``module``, after those of the modules of this project that it imports."""
    included.add(module)
    spec = find_spec(module)
    tree = python_source.parse(Path(str(spec and spec.origin)).read_text("utf-8"))
    _remove_docstrings(tree)
    statements: list[ast.stmt] = []
    for node in tree.body:
        source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if source.startswith("mlengine."):
            statements += _statements(source, included) if source not in included else []
        elif source != "__future__":
            statements.append(node)
    return statements


def _remove_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
