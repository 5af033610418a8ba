"""``make reference``: write ``docs/reference.md`` and ``docs/errors.md`` from the code. A test compares them.

Operators and functions are taken from their docstrings and signatures, settings from their table, commands from the
parsers, and errors and their hints from the code that raises them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, is_typeddict

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "plugins" / "mlengine"
REFERENCE, ERRORS = ROOT / "docs" / "reference.md", ROOT / "docs" / "errors.md"

# The public names for DAG files, except for the operators, which are found automatically.
_FIRST = (("mlengine.task_groups", "RetrainingTaskGroup"),)
_LAST = (
    ("mlengine.timetables", "DatasetVersionTimetable"),
    ("mlengine.params", "dataset_version"),
    ("mlengine.params", "scale_tier"),
    ("mlengine.params", "backend"),
    ("mlengine.params", "force_retrain"),
)
_REFERENCE_HEAD = """# Reference

Generated from the code by `make reference`. See also [errors](errors.md).

## Settings

The first source that has a value wins, in Airflow's processes and on the command line alike:

1. the argument of the operator, backend or command,
2. the extra of the operator's Airflow connection, for the settings that name a key of it,
3. Airflow's configuration: `AIRFLOW__MLENGINE__<NAME>`, then `[mlengine] <name>` in `airflow.cfg`,
4. the default.

A secret (`ray_token`, `ray_headers`) may also be the output of a command, `AIRFLOW__MLENGINE__<NAME>_CMD`, or a value
in Airflow's secrets backend, `AIRFLOW__MLENGINE__<NAME>_SECRET`; in `airflow.cfg`, `<name>_cmd` and `<name>_secret`.

The command line reads the same `airflow.cfg` as Airflow (`AIRFLOW_CONFIG`, or `airflow.cfg` in `AIRFLOW_HOME`). An
empty value means that the setting is not set. Airflow writes the defaults of all settings into a new `airflow.cfg`; a
default in this file also means that the setting is not set. Durations are in seconds.
"""
_OPERATORS_HEAD = """Strings are templates. Operators also take the arguments of Airflow's `BaseOperator`, and the
sensor those of `BaseSensorOperator`. Numbers and dates that a template renders are strings, also in a DAG with
`render_template_as_native_obj=True`; lists and mappings are not converted.
"""
_XCOMS_HEAD = """Small mappings of ids and URIs, as `TypedDict` in `mlengine.core.xcoms`.
"""
_JSON_HEAD = """With `--json`, a command prints one JSON document on stdout; logs and notes go to stderr. Keys are
stable: new ones may be added, none is renamed or removed. Times are RFC 3339 in UTC, or null.
"""
_ERRORS_HEAD = """# Errors, and what to do

Generated from the code by `make reference`: each type of error, and each message with its hint. `{…}` is a placeholder
for a value. For the failures of a *job*, see [operations](operations.md).
"""
_ROLE = re.compile(r":(?:class|func|meth|mod|data):`~?\.?(?:[\w.]+\.)?([\w]+)`")


def main() -> int:
    REFERENCE.write_text(reference(), encoding="utf-8")
    ERRORS.write_text(errors(), encoding="utf-8")
    return 0


def reference() -> str:
    """The reference page: settings, operators, XComs, commands."""
    parts = [
        _REFERENCE_HEAD,
        _settings(),
        "## In a DAG\n",
        _OPERATORS_HEAD,
        *(_public(module, name) for module, name in (*_FIRST, *_operators(), *_LAST)),
        "## What the tasks return\n",
        _XCOMS_HEAD,
        _typed_dicts("mlengine.core.xcoms"),
        "## Commands\n",
        *_commands(),
        "### Exit codes\n",
        _exit_codes(),
        "### JSON documents\n",
        _JSON_HEAD,
        _typed_dicts("mlengine.cli.documents"),
    ]
    return "\n".join(parts).rstrip() + "\n"


def errors() -> str:
    """The page of errors: each type, and each message with its hint."""
    raised = sorted(set(_raised()))
    parts = [_ERRORS_HEAD]
    from mlengine.core import errors as tree

    kinds = [kind for kind in vars(tree).values() if inspect.isclass(kind) and issubclass(kind, tree.MlengineError)]
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        again = "; the same call may succeed later" if kind.retryable else ""
        parts.append(f"## {kind.__name__}\n\n{_prose(_parts(kind)[0])}{again and f' Retryable{again}.'}\n")
        rows = [(message, hint) for name, message, hint in raised if name == kind.__name__]
        if rows:
            parts.append(_table(("message", "what to do"), rows))
    return "\n".join(parts).rstrip() + "\n"


def _settings() -> str:
    from mlengine.settings import SETTINGS

    rows = [
        (
            f"`{one.name}`",
            f"`{one.default}`" if one.default else "none",
            ", ".join(f"`{key}`" for key in one.extra) or "no",
            one.description,
        )
        for one in SETTINGS.values()
    ]
    return _table(("name", "default", "connection's extra", "what it is"), rows)


def _typed_dicts(module: str) -> str:
    types = [one for one in vars(import_module(module)).values() if is_typeddict(one)]
    rows = [
        (f"`{one.__name__}`", ", ".join(f"`{key}`" for key in one.__annotations__), _prose(inspect.getdoc(one) or ""))
        for one in types
    ]
    return _table(("name", "keys", "what it is"), rows)


def _exit_codes() -> str:
    from mlengine.cli.exit_codes import MEANINGS

    return _table(("code", "meaning"), [(f"`{int(code)}`", meaning) for code, meaning in MEANINGS.items()])


def _operators() -> Iterator[tuple[str, str]]:
    """Every operator and sensor of the package."""
    for file in sorted([*PACKAGE.glob("operators/[a-z]*.py"), *PACKAGE.glob("sensors/[a-z]*.py")]):
        module = f"mlengine.{file.parent.name}.{file.stem}"
        for name, thing in vars(import_module(module)).items():
            if inspect.isclass(thing) and thing.__module__ == module and hasattr(thing, "template_fields"):
                yield module, name


def _public(module: str, name: str) -> str:
    thing = getattr(import_module(module), name)
    prose, params = _parts(thing)
    rows = []
    for parameter in _parameters(thing):
        needed = parameter.default is inspect.Parameter.empty
        default = "required" if needed else f"`{parameter.default!r}`"
        rows.append((f"`{parameter.name}`", default, params.get(parameter.name, "")))
    title = f"### {name}\n\n`from {module} import {name}`\n\n{_prose(prose)}\n"
    return f"{title}\n{_table(('parameter', 'default', 'what it is'), rows)}" if rows else title


def _parameters(thing: Any) -> Iterator[inspect.Parameter]:
    """The parameters of a function, or of a class and its bases in this project, the class's own first."""
    seen = {"self"}
    for made in [vars(one)["__init__"] for one in _classes(thing)] if inspect.isclass(thing) else [thing]:
        for parameter in inspect.signature(made).parameters.values():
            if parameter.name not in seen and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                seen.add(parameter.name)
                yield parameter


def _classes(thing: type) -> list[type]:
    ours = [one for one in inspect.getmro(thing) if one.__module__.startswith("mlengine.")]
    return [one for one in ours if "__init__" in vars(one)]


def _parts(thing: Any) -> tuple[str, dict[str, str]]:
    """A docstring's prose and its ``:param:`` lines, including those of a class's bases."""
    prose, fields = _split(thing)
    for base in _classes(thing)[1:] if inspect.isclass(thing) else ():
        fields = {**_split(base)[1], **fields}
    return prose, fields


def _split(thing: Any) -> tuple[str, dict[str, str]]:
    text = inspect.getdoc(thing) or ""
    fields: dict[str, str] = {}
    prose: list[str] = []
    field = None
    for line in text.splitlines():
        match = re.match(r":(param \w+|raises [\w, ]+|returns):\s*(.*)", line)
        if match:
            word, _, name = match[1].partition(" ")
            field = name if word == "param" else None
            if field:
                fields[field] = match[2]
            else:
                prose += ["", f"{f'Raises {name}' if name else 'Returns'}: {match[2]}"]
        elif field and line.startswith(" "):
            fields[field] += f" {line.strip()}"
        else:
            field = None
            prose.append(line)
    return "\n".join(prose).strip(), {name: _inline(value) for name, value in fields.items()}


def _prose(text: str) -> str:
    return "\n\n".join(textwrap.fill(_inline(part), 116) for part in re.split(r"\n\s*\n", text))


def _inline(text: str) -> str:
    """Convert reStructuredText markup to Markdown."""
    text = re.sub(r"; :raises", "; raises", re.sub(r"\s+", " ", text))
    return _ROLE.sub(r"`\1`", text).replace("``", "`").strip()


def _commands() -> Iterator[str]:
    from mlengine.cli import build_parser

    for name, parser in _leaves(build_parser()):
        rows = []
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            words = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            value = "" if not action.option_strings or action.nargs == 0 else f" {_value(action)}"
            rows.append((f"`{words}{value}`", (action.help or "").replace("%(default)s", str(action.default))))
        about = f"{_inline(parser.description)}\n\n" if parser.description else ""
        yield f"### mlengine {name}\n\n{about}{_table(('argument', 'what it is'), rows) if rows else ''}"


def _leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield name, parser
    for action in nested:
        for word, below in action.choices.items():
            yield from _leaves(below, f"{name} {word}".strip())


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "{" + ",".join(str(one) for one in action.choices) + "}"
    return str(action.metavar or action.dest.upper())


def _raised() -> Iterator[tuple[str, str, str]]:
    """The kind, message and hint of each error that is raised with a literal message and hint."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")):
                continue
            hints = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
            if node.args and hints:
                message, hint = _said(node.args[0]), _said(hints[0])
                if message.strip("{…} :") and hint.strip("{…} :"):
                    yield node.func.id, message, hint


def _said(node: ast.expr) -> str:
    """A string literal as it is written, with ``{…}`` for interpolated values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_said(part) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
    return "{…}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [" | ".join(names), "|".join(["---"] * len(names))]
    lines += [" | ".join(_cell(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" if "---" not in line[:4] else f"|{line}|" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").strip()


if __name__ == "__main__":
    sys.exit(main())
