"""Determines the roles of a new version's columns from the user's options, the previous version, and the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from mlengine.core.dataset import HELDOUT_POLICIES, TASKS, Column, Manifest, Schema, Value
from mlengine.core.errors import DatasetError
from mlengine.core.plural import first_of
from mlengine.datasets.arrow import column_of
from mlengine.datasets.discovery import Found
from mlengine.datasets.formats.base import check_names
from mlengine.datasets.role_types import check_key, check_types
from mlengine.datasets.scan import Scan
from mlengine.datasets.statistics import MOST_CLASSES

# The roles of formats whose columns are always the same.
_MOST_LISTED = 30  # maximum number of class indices in a hint
_OWN_ROLES: Mapping[str, Mapping[str, str]] = {
    "idx": {"target": "label"},
    "images": {"target": "label", "key": "path"},
}


@dataclass(frozen=True)
class Roles:
    """The column roles that the user specified. ``None`` means the previous version's, or derived from the data.

    :param classes: the classes as strings; ``["0", "1"]`` are integers if the target's values are.
    """

    target: str | None = None
    key: str | None = None
    time: str | None = None
    weight: str | None = None
    task: str | None = None
    heldout_policy: str | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, value, choices in (("task", self.task, TASKS), ("policy", self.heldout_policy, HELDOUT_POLICIES)):
            if value is not None and value not in choices:
                raise DatasetError(f"not a {name}: {value!r}", hint=f"use one of {', '.join(choices)}")


def read_schema(found: Found, roles: Roles, dtypes: Mapping[str, str], previous: Manifest | None) -> Schema:
    """The columns of all splits, with their roles but without classes.

    :raises DatasetError: the splits have different columns, or a role names a column that does not exist.
    """
    schemas = {name: found.format.infer(files, dtypes) for name, files in found.splits.items()}
    for name, schema in schemas.items():
        check_names(schema.names, found.splits[name][0].where)
    columns: dict[str, dict[str, Column]] = {
        name: {field.name: column_of(field, found.splits[name][0].where) for field in schema}
        for name, schema in schemas.items()
    }
    if not found.format.typed:
        before = {} if previous is None else {column.name: column for column in previous.schema.columns}
        columns = _with_fractions(columns, before, dtypes)
    first = columns["train"]
    for name, those in columns.items():
        _same_columns(name, those, first)
    merged = [
        replace(column, nullable=any(those[column.name].nullable for those in columns.values()))
        for column in first.values()
    ]
    inherited = previous.schema if previous is not None else None
    chosen: dict[str, Any] = {}
    for role in ("target", "key", "time", "weight"):
        named = getattr(roles, role)
        value = named or _OWN_ROLES.get(found.format.name, {}).get(role)
        if value is None and inherited is not None:
            value = getattr(inherited, role)
        if value is not None and value not in first:
            said = "" if named else f", as in {previous.name}/{previous.version}" if previous else ""
            _refuse_missing(found, value, f"--{role}{said}", first)
        chosen[role] = value
    several = [name for name in first if sum(chosen[role] == name for role in ("target", "key", "weight")) > 1]
    if several:
        roles_of = ", ".join(f"--{role}" for role in ("target", "key", "weight") if chosen[role] == several[0])
        raise DatasetError(f"the column {several[0]!r} is given as {roles_of}", hint="give each role another column")
    for schema in schemas.values():
        check_key(found.format, schema, chosen["key"])
    result = Schema(tuple(merged), **chosen)
    check_types(result, roles.task or _task_before(previous, result.target))
    return result


def inherited_dtypes(found: Found, dtypes: Mapping[str, str], previous: Manifest | None) -> dict[str, str]:
    """The types that the user has set, and those of the previous version, for files whose format has no types.

    Types that numbers have by default are not taken over: ``int64``, ``float64`` and ``bool`` follow from the values.
    """
    if previous is None or found.format.typed:
        return dict(dtypes)
    there = {
        column.name: column.dtype
        for column in previous.schema.columns
        if not column.shape and column.dtype not in ("int64", "float64", "bool")
    }
    largest = max((file for files in found.splits.values() for file in files), key=lambda file: file.size)
    names = found.format.infer([largest], dtypes).names if there else []
    return {**{name: there[name] for name in names if name in there}, **dtypes}


def _refuse_missing(found: Found, name: str, option: str, columns: Mapping[str, Column]) -> NoReturn:
    """Raise the error for a role of a column that does not exist.

    :param option: the option that names the column, and the version that it is taken from.
    :raises DatasetError: in any case.
    """
    file = next(iter(found.splits.values()))[0]
    if found.format.name == "files":
        raise DatasetError(
            f"there is no column {name!r} for {option}: {file.where} is in no format that has columns",
            hint="convert or decompress the files: docs/datasets.md lists the formats; or, if only their names differ,"
            " say it: --format csv",
        )
    if any(part.startswith(f"{name}=") for part in file.path.split("/")):
        raise DatasetError(
            f"there is no column {name!r} for {option}: only the names of folders have it, such as {file.path}",
            hint="write it as a column of the files",
        )
    raise DatasetError(
        f"there is no column {name!r} for {option}; columns: {', '.join(columns) or 'none'}",
        hint="name one of them",
    )


def _task_before(previous: Manifest | None, target: str | None) -> str | None:
    """The task of the previous version, if it has the same target."""
    return previous.task if previous is not None and previous.schema.target == target else None


def _with_fractions(
    columns: Mapping[str, Mapping[str, Column]], before: Mapping[str, Column], dtypes: Mapping[str, str]
) -> dict[str, dict[str, Column]]:
    """The columns, with float64 for integers that have fractions in another split or in the previous version.

    :param columns: the columns by split and name.
    :param dtypes: the types that the user has set, by column.
    """
    there = [before, *columns.values()]
    floats = {name for those in there for name, column in those.items() if column.dtype == "float64"} - dtypes.keys()
    return {
        split: {
            name: replace(column, dtype="float64") if name in floats and column.dtype == "int64" else column
            for name, column in those.items()
        }
        for split, those in columns.items()
    }


def _same_columns(split: str, columns: Mapping[str, Column], first: Mapping[str, Column]) -> None:
    wrong = [f"{name!r} is missing" for name in first if name not in columns]
    wrong += [f"{name!r} is not in train" for name in columns if name not in first]
    wrong += [
        f"{name!r} is {column}, in train {first[name]}"
        for name, column in columns.items()
        if name in first and str(column) != str(first[name])
    ]
    if wrong:
        raise DatasetError(
            f"split {split} has other columns than train: {'; '.join(wrong)}",
            hint="write both with the same columns; or set a column's type: --dtype COLUMN=TYPE",
        )


def find_task(found: Found, schema: Schema, roles: Roles, previous: Manifest | None, scan: Scan) -> tuple[str, Schema]:
    """Determine the task, and the schema with the classes that the task needs.

    :raises DatasetError: the task cannot be derived from the data, or there are too many classes.
    """
    if schema.target is None:
        if roles.task not in (None, "none"):
            raise DatasetError(f"task {roles.task} needs a target", hint="name its column: --target COLUMN")
        return "none", schema
    for name, split in scan.splits.items():
        found_there = split.statistics.get(schema.target)
        if found_there is not None and split.read and found_there.nulls == split.read:
            raise DatasetError(
                f"the target {schema.target!r} is null in all rows of {name}",
                hint="name another column with --target, or correct it",
            )
    before = _task_before(previous, schema.target)
    task = roles.task or before
    column = schema.column(schema.target)
    indices = found.format.name == "idx"
    task = task or ("multiclass" if indices else _task_of(column, scan))
    if task not in ("binary", "multiclass"):
        if task == "regression" and not column.numeric:
            raise DatasetError(
                f"the target {column.name!r} is {column}; a regression needs numbers",
                hint="write --task binary or --task multiclass; if it has numbers as strings, write them as numbers",
            )
        return task, schema
    known = previous.schema.classes if previous is not None and before is not None else None
    classes = _given(roles.classes, column) or known or _classes_of(column, scan)
    if indices and roles.classes is None and known is None:
        _check_indices(classes)
    if task == "binary" and len(classes) != 2:
        raise DatasetError(
            f"the target {column.name!r} has {len(classes)} values ({first_of(classes)}); a binary task needs 2",
            hint="write --task multiclass or --task regression, or correct the target",
        )
    return task, replace(schema, classes=classes)


def _task_of(column: Column, scan: Scan) -> str:
    statistics = [split.statistics[column.name] for split in scan.splits.values() if column.name in split.statistics]
    # For a split with too many distinct values to count, only some of the values are known.
    counted = all(one.distinct is not None for one in statistics)
    distinct = {value for one in statistics for value, _ in one.top}
    if counted and len(distinct) == 1:
        raise DatasetError(
            f"the target {column.name!r} has the same value in all rows: {distinct.pop()!r}",
            hint="name another column with --target, or correct it",
        )
    if column.dtype == "bool" or (counted and len(distinct) == 2):
        return "binary"
    if column.dtype == "string":
        return "multiclass"
    if column.dtype.startswith("float"):
        return "regression"
    raise DatasetError(
        f"the target {column.name!r} has integers ({first_of(tuple(sorted(distinct, key=str))) or 'not read'}): "
        "classes, or numbers?",
        hint="write --task multiclass, --task binary or --task regression",
    )


def _classes_of(column: Column, scan: Scan) -> tuple[Value, ...]:
    """The target's values in all splits, in order."""
    values: set[Value] = set()
    for name, split in scan.splits.items():
        statistics = split.statistics.get(column.name)
        if statistics is None or not (statistics.top or statistics.nulls == split.read):
            distinct = f"more than {MOST_CLASSES:,} different values" if split.read else "values that were not read"
            raise DatasetError(
                f"the target {column.name!r} has {distinct} in {name}",
                hint="list the classes: --classes A,B,…; or read the rows: --rows all"
                if not split.read
                else f"{'write --task regression, or ' if column.numeric else ''}name another column with --target",
            )
        values |= set(statistics.counts)
        if name == "train" and statistics.distinct == split.read > _MOST_LISTED:
            raise DatasetError(
                f"the target {column.name!r} has {statistics.distinct:,} classes in {split.read:,} training rows: "
                "each row has its own class",
                hint="name another column with --target; an id is a --key. If they are classes: --classes A,B,…",
            )
    return tuple(sorted(values, key=lambda value: (isinstance(value, str), value)))


def _check_indices(classes: tuple[Value, ...]) -> None:
    """Check the labels of IDX files, which are class indices.

    :raises DatasetError: an index in between does not occur, so that the highest ones may be errors.
    """
    if classes != tuple(range(len(classes))):
        last = max(int(index) for index in classes)
        listed = ",".join(map(str, range(last + 1))) if last < _MOST_LISTED else f"0,1,…,{last}"
        raise DatasetError(
            f"the labels are not 0, 1, 2, …: {', '.join(map(str, classes[-12:]))}",
            hint=f"correct them, or list the classes: --classes {listed}",
        )


def _given(words: tuple[str, ...] | None, column: Column) -> tuple[Value, ...] | None:
    if words is None:
        return None
    try:
        convert: Any = str if column.dtype == "string" else float if column.dtype.startswith("float") else int
        convert = _truth if column.dtype == "bool" else convert
        classes = tuple(convert(word) for word in words)
    except ValueError as error:
        raise DatasetError(
            f"--classes: {error}; the target {column.name!r} is {column.dtype}", hint="list values of the target"
        ) from error
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise DatasetError(f"--classes {','.join(words)}: at least two are needed, each once")
    return classes


def _truth(word: str) -> bool:
    """Parse a boolean.

    :raises ValueError: the word is neither true nor false.
    """
    if word.lower() not in {"true", "false"}:
        raise ValueError(f"{word!r} is neither true nor false")
    return word.lower() == "true"
