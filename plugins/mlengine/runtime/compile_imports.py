"""Compiles packages and all modules that they import to bytecode: ``compile_imports.py SITE_PACKAGES NAME …``.

Half of the files of TensorFlow and its dependencies are never imported. This program follows the imports that run when
a module is imported; in the named packages, it also follows imports in functions. Nothing is executed: the imports are
read from the compiled code. Python compiles the other modules when they are first imported.

The interpreter of an environment runs this program as a file. It uses the standard library only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib.machinery import SourceFileLoader
from importlib.metadata import distributions
from modulefinder import ModuleFinder
from types import CodeType
from typing import Any

_BATCH = 16  # modules per call of a worker process
_DOTTED = re.compile(r"[a-zA-Z_]\w*(\.\w+)+")

Module = tuple[str, str, bool]  # name, path, whether imports in functions count


def main(site: str, packages: list[str]) -> None:
    """Compile the packages and their imports, on all cores."""
    found = {name: (name, path, True) for package in packages for name, path in _modules_of(site, package)}
    known = set(found)
    todo = list(found.values())
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        running: set[Future[set[str]]] = set()
        while todo or running:
            running |= {pool.submit(compile_modules, batch) for batch in _batches(todo)}
            todo = []
            done, running = wait(running, return_when=FIRST_COMPLETED)
            new = {name for future in done for name in future.result()} - known
            known |= new
            todo = [(name, path, False) for name in sorted(new) if (path := find(site, name))]


def compile_modules(modules: list[Module]) -> set[str]:
    """Compile the modules that have no valid bytecode, and return the names that all modules import."""
    names: set[str] = set()
    for name, path, deep in modules:
        try:
            code = SourceFileLoader(name, path).get_code(name)
        except (ImportError, SyntaxError, ValueError, OSError, RecursionError):
            continue
        if code is not None:
            names.update(imports(code, name, is_package=path.endswith("__init__.py"), deep=deep))
    return names


def imports(code: CodeType, module: str, *, is_package: bool, deep: bool = False) -> Iterator[str]:
    """The names that a module imports, with their parent packages. A name may be an attribute instead of a module.

    :param deep: whether to include imports in functions.
    """
    package = module if is_package else module.rpartition(".")[0]
    for base, members in _statements(code, package):
        yield from _with_parents(base)
        yield from (f"{base}.{member}" for member in members if member != "*")
    for constant in code.co_consts:
        if isinstance(constant, str) and _DOTTED.fullmatch(constant):  # importlib.import_module("keras.src.optimizers")
            yield from _with_parents(constant)
        elif deep and isinstance(constant, CodeType):
            yield from imports(constant, module, is_package=is_package, deep=True)


def find(site: str, name: str) -> str | None:
    """The source file of a module; ``None`` for other names, extension modules, and packages without a file."""
    path = os.path.join(site, *name.split("."))  # noqa: PTH118 - called 20,000 times
    for candidate in (os.path.join(path, "__init__.py"), f"{path}.py"):  # noqa: PTH118
        if os.path.isfile(candidate):  # noqa: PTH113
            return candidate
    return None


def _statements(code: CodeType, package: str) -> Iterator[tuple[str, Iterable[str]]]:
    """The import statements: for each, the absolute name of a module, and the names that are imported from it."""
    finder: Any = ModuleFinder()
    for kind, operands in finder.scan_opcodes(code):
        if kind == "absolute_import":
            members, base = operands
            yield base, members or ()
        elif kind == "relative_import":
            level, members, name = operands
            parents = package.split(".")
            kept = parents[: len(parents) - level + 1]
            base = ".".join([*kept, name] if name else kept)
            if kept and base:
                yield base, members or ()


def _with_parents(name: str) -> Iterator[str]:
    names = name.split(".")
    return (".".join(names[: count + 1]) for count in range(len(names)))


def _modules_of(site: str, package: str) -> Iterator[tuple[str, str]]:
    """The names and paths of an installed package's modules."""
    for distribution in distributions(name=package, path=[site]):
        for file in distribution.files or ():
            if file.suffix == ".py" and ".." not in file.parts:
                name = re.sub(r"\.__init__$", "", ".".join(file.with_suffix("").parts))
                yield name, str(file.locate())


def _batches(modules: list[Module]) -> Iterator[list[Module]]:
    return (modules[start : start + _BATCH] for start in range(0, len(modules), _BATCH))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
