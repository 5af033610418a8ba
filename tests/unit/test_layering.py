"""Import rules that the contracts in pyproject.toml cannot express: a pure core, and DAG files that parse quickly."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "plugins" / "mlengine"

# These packages run inside Airflow and may import it at module level. GUESTS may import it only inside a function that
# reads a connection or a setting in a process that has already imported Airflow.
AIRFLOW_PACKAGES = frozenset(
    {
        "assets",
        "hooks",
        "links",
        "listeners",
        "operators",
        "params",
        "plugin",
        "sensors",
        "task_groups",
        "testing",
        "timetables",
        "triggers",
        "web",
    }
)
GUESTS = frozenset({"storage", "settings", "connections", "backends"})

HEAVY = (
    "google",
    "grpc",
    "tensorflow",
    "keras",
    "numpy",
    "pandas",
    "requests",
    "fastapi",
    "openlineage",
    "airflow.providers",
)


@dataclass(frozen=True)
class Import:
    """One import statement: its position, the imported module, and whether it runs when the file is imported."""

    file: Path
    line: int
    module: str
    at_import: bool

    @property
    def place(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def imports_of(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(), str(file))
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(file, node.lineno, name, id(node) not in later)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def all_imports() -> list[Import]:
    return [found for file in sorted(PACKAGE.rglob("*.py")) for found in imports_of(file)]


def owner(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _dotted(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_core_does_not_import_airflow_tensorflow_or_google() -> None:
    allowed = {"yaml", "mlengine"} | sys.stdlib_module_names
    wrong = [
        f"{found.place}: {found.module}"
        for found in all_imports()
        if owner(found.file) == "core" and found.module.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_only_airflow_modules_import_airflow() -> None:
    wrong = []
    for found in all_imports():
        if found.module.split(".")[0] != "airflow":
            continue
        source = owner(found.file)
        if source in AIRFLOW_PACKAGES or (source in GUESTS and not found.at_import):
            continue
        wrong.append(f"{found.place}: mlengine.{source} may not import {found.module}")
    assert not wrong, "\n".join(wrong)


def run(program: str) -> str:
    env = {**os.environ, "PYTHONPATH": f"{PACKAGE.parent}:{ROOT / 'dags'}", "AIRFLOW__CORE__UNIT_TEST_MODE": "False"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_core_runs_without_other_packages() -> None:
    output = run(f"""
import pkgutil, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {(*(name for name in HEAVY if "." not in name), "airflow")!r}:
            raise AssertionError("the core imported " + name)
sys.meta_path.insert(0, Refuse())
import mlengine.core
names = [found.name for found in pkgutil.walk_packages(mlengine.core.__path__, "mlengine.core.")]
for name in names:
    __import__(name)
print(len(names))
""")
    assert int(output) >= 10


def test_importing_operators_and_parsing_dags_loads_no_heavy_modules() -> None:
    """Nothing heavy is loaded beyond what Airflow's own names load.

    One interpreter imports first all modules, then each DAG file.
    """
    modules = [
        _dotted(file)
        for name in ("operators", "sensors", "triggers", "links", "task_groups")
        for file in sorted([*(PACKAGE / name).rglob("*.py"), *PACKAGE.glob(f"{name}.py")])
    ]
    assert len(modules) > 5
    dags = [str(file) for file in sorted((ROOT / "dags").glob("*.py"))]
    output = run(f"""
import importlib, json, runpy, sys
from airflow.sdk import DAG, Asset, BaseOperator, BaseOperatorLink, BaseSensorOperator, Param, TaskGroup, dag, task
from airflow.triggers.base import BaseTrigger, TriggerEvent
known, found = set(sys.modules), {{}}
for load, names in ((importlib.import_module, {modules!r}), (runpy.run_path, {dags!r})):
    for name in names:
        load(name)
        new = set(sys.modules) - known
        found[name] = [module for module in sorted(new) if any((module + ".").startswith(h + ".") for h in {HEAVY!r})]
        known |= new
print("FOUND " + json.dumps(found))
""")
    found = json.loads(next(line for line in output.splitlines() if line.startswith("FOUND ")).removeprefix("FOUND "))
    assert len(found) == len(modules) + len(dags)
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


def test_the_command_line_starts_without_airflow() -> None:
    output = run("import sys, mlengine.cli; mlengine.cli.build_parser(); print('airflow' in sys.modules)")
    assert output.strip() == "False"
