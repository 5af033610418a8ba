"""Values with their location: YAML with the line of each field, or plain Python data without lines.

Errors name ``file:line``, the field, the problem, and a hint. PyYAML's safe constructor builds only plain data.
Recursive aliases, and aliases that expand beyond the size of any real job file, are rejected.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from mlengine.core import limits
from mlengine.core.errors import JobFileError
from mlengine.core.limits import Problem

MAX_CHARACTERS = 1_000_000
MAX_FIELDS = 20_000
_MERGE = "tag:yaml.org,2002:merge"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]{1,9})?)s")


@dataclass(frozen=True)
class Located:
    """One field with its location.

    :param value: a dict or list of :class:`Located`, or a plain scalar.
    :param where: ``file:line``, or only the file's name for plain data.
    :param path: the field's path, e.g. ``trainingInput.workerCount``.
    :param raw: the scalar as it was written: ``1.10`` where YAML reads the number 1.1.
    """

    value: Any
    where: str
    path: str = ""
    raw: str = ""

    def error(self, what: str, hint: str) -> JobFileError:
        field = f"{self.path}: " if self.path else ""
        return JobFileError(f"{self.where}: {field}{what}", hint=hint)

    def plain(self) -> Any:
        """The value as JSON-compatible data without locations.

        A date, which JSON lacks, becomes the string that the file has.
        """
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, float) and not math.isfinite(self.value):
            return self.raw
        return self.value if isinstance(self.value, str | int | float | bool | None) else self.raw

    def fields(self, known: Iterable[str]) -> dict[str, Located]:
        """The fields of a mapping, with names in camelCase.

        Names in ``snake_case`` are accepted. Null fields are left out.

        :raises JobFileError: the value is not a mapping, or a field is not in ``known``; the error suggests the nearest
            name.
        """
        if not isinstance(self.value, dict):
            raise self.error(f"must be a mapping, not {self.kind}", "write 'field: value' lines, indented below it")
        names = {spelling: name for name in known for spelling in (name, _snake(name))}
        found: dict[str, Located] = {}
        for key, item in self.value.items():
            name = names.get(key)
            if name is None:
                raise item.error("unknown field", did_you_mean(key, set(names.values())))
            if name in found:
                raise item.error(f"is written twice, as {found[name].path} too", "keep one of them")
            if item.value is not None:
                found[name] = item
        return found

    def check_siblings(self, name: str, fields: Iterable[str]) -> None:
        """Check that this mapping does not contain fields that belong next to it.

        :param name: the name of this mapping.
        :param fields: the names of the fields that belong next to it.
        :raises JobFileError: the mapping contains one of them.
        """
        for field in fields:
            if isinstance(self.value, dict) and field in self.value:
                raise self.value[field].error(
                    f"is not a field of {name}", f"move it out: write '{field}:' at the same level as '{name}:'"
                )

    @property
    def kind(self) -> str:
        kinds = ((dict, "a mapping"), (list, "a list"), (bool, "true or false"), (str, "a string"))
        for kind, words in kinds:
            if isinstance(self.value, kind):
                return words
        return "nothing" if self.value is None else f"{type(self.value).__name__} {self.raw}"

    def text(self) -> str:
        """A string. Numbers are rejected, because YAML's reading of ``1.10`` or ``0x10`` is seldom what was meant."""
        if not isinstance(self.value, str):
            raise self.error(
                f"must be a string, not {self.kind}", f'quote it: "{self.raw}"' if self.raw else "a string"
            )
        return self.value

    def version(self) -> str:
        """A version, quoted or not: ``2.10`` stays ``2.10``."""
        if isinstance(self.value, dict | list | bool):
            raise self.error(f"must be a version, not {self.kind}", 'for example "2.11"')
        return self.value if isinstance(self.value, str) else self.raw

    def integer(self, limit: Callable[[int], Problem | None]) -> int:
        """An integer that passes ``limit``, a function of :mod:`mlengine.core.limits`.

        A string of digits is accepted too, because Google's JSON APIs write an int64 that way.
        """
        value = self.value
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"must be an integer, not {self.kind}", "for example 2")
        self.check(limit(value))
        return value

    def check(self, problem: Problem | None) -> None:
        """Raise an error for this field if there is a problem.

        :raises JobFileError: ``problem`` is not ``None``.
        """
        if problem is not None:
            raise self.error(problem.message, problem.hint)

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.error(f"must be true or false, not {self.kind}", "write true or false without quotes")
        return self.value

    def items(self) -> list[Located]:
        if not isinstance(self.value, list):
            raise self.error(f"must be a list, not {self.kind}", "write one '- item' line for each")
        return list(self.value)

    def texts(self) -> tuple[str, ...]:
        return tuple(item.text() for item in self.items())

    def seconds(self) -> int:
        """A duration as the services write it, such as ``7200s``, in seconds, rounded up."""
        match = _DURATION.fullmatch(self.value) if isinstance(self.value, str) else None
        if match is None:
            example = f'"{self.raw}s"' if re.fullmatch("[0-9]+", self.raw) else '"7200s" for two hours'
            raise self.error(f"is not a duration: {self.raw or self.kind}", f"write seconds with an s: {example}")
        duration = math.ceil(float(match[1]))
        if duration:  # what 0 means depends on the caller: on Vertex AI, no limit
            self.check(limits.seconds(duration))
        return duration


def camel(data: Any) -> Any:
    """``data`` with all field names in camelCase, at every level, and without null fields."""
    if isinstance(data, Mapping):
        return {
            re.sub(r"_([a-z])", lambda match: match[1].upper(), name): camel(value)
            for name, value in data.items()
            if value is not None
        }
    return [camel(item) for item in data] if isinstance(data, list | tuple) else data


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint for an unknown word: the nearest known word, or the list of all."""
    names = sorted(known)
    by_fold = {_fold(name): name for name in names}
    near = difflib.get_close_matches(_fold(word), by_fold, 1, 0.6)
    if near:
        return f"did you mean {by_fold[near[0]]}?"
    return f"use one of: {', '.join(names)}"


def from_python(data: Any, name: str, path: str = "") -> Located:
    """Convert plain data (dicts, lists and scalars), such as a DAG file contains."""
    if isinstance(data, Mapping):
        items = {str(key): from_python(item, name, _below(path, str(key))) for key, item in data.items()}
        return Located(items, name, path)
    if isinstance(data, list | tuple):
        return Located([from_python(item, name, f"{path}[{n}]") for n, item in enumerate(data)], name, path)
    return Located(data, name, path, "" if data is None else str(data))


def from_yaml(text: str, name: str) -> Located:
    """Parse YAML or JSON text.

    :raises JobFileError: the text is not YAML, or has duplicate keys, tags or excessive aliases; names ``name:line``.
    """
    if len(text) > MAX_CHARACTERS:
        raise JobFileError(f"{name}: {len(text)} characters long", hint="a job file is a page; is this the right file?")
    try:
        with _loader(text) as loader:
            node = loader.get_single_node()
            if node is None:
                raise JobFileError(
                    f"{name}: the file is empty", hint="begin with 'trainingInput:'; see docs/job-file.md"
                )
            return _Reader(loader, name).read(node, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{name}:{mark.line + 1}" if mark else name
        problem = ", ".join(words for words in (error.context, error.problem) if words)
        raise JobFileError(f"{line}: not YAML: {problem}", hint=_yaml_hint(error)) from error
    except (yaml.YAMLError, ValueError) as error:  # characters that YAML forbids; invalid numbers and dates
        raise JobFileError(f"{name}: not YAML: {error}", hint="save the file as plain UTF-8 text") from error
    except RecursionError as error:
        raise JobFileError(f"{name}: nested too deep", hint="write it flat: a job file is four levels deep") from error


@contextmanager
def _loader(text: str) -> Iterator[yaml.SafeLoader]:
    loader = yaml.SafeLoader(text)
    try:
        yield loader
    finally:
        loader.dispose()


class _Reader:
    """Converts YAML nodes to :class:`Located` values with their lines."""

    def __init__(self, loader: yaml.SafeLoader, name: str) -> None:
        self._loader = loader
        self._name = name
        self._open: set[int] = set()
        self._left = MAX_FIELDS

    def read(self, node: yaml.Node, path: str, where: str = "") -> Located:
        """Convert one node.

        :param where: the line of the key, which errors report for a value of several lines.
        """
        where = where or self._where(node)
        self._left -= 1
        if id(node) in self._open:
            raise JobFileError(f"{where}: {path}: the alias refers to itself", hint="write it out without '*'")
        if self._left < 0:
            top = re.split(r"[.\[]", path)[0]
            raise JobFileError(
                f"{self._name}: {top}: more than {MAX_FIELDS} fields, counting what aliases repeat",
                hint="write it out without '*'; a job file has a few dozen fields",
            )
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return Located(dict(self._entries(node, path)), where, path)
            if isinstance(node, yaml.SequenceNode):
                items = [self.read(item, f"{path}[{number}]") for number, item in enumerate(node.value)]
                return Located(items, where, path)
            return Located(self._loader.construct_object(node), where, path, str(node.value))
        finally:
            self._open.discard(id(node))

    def _entries(self, node: yaml.MappingNode, path: str) -> Iterator[tuple[str, Located]]:
        seen: dict[str, str] = {}
        merged: dict[str, Located] = {}
        for key_node, value_node in node.value:
            where = self._where(key_node)
            if key_node.tag == _MERGE:
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):
                    entries = self.read(source, path)
                    if not isinstance(entries.value, dict):
                        raise entries.error("'<<' takes a mapping", "name an anchor of a mapping: '<<: *name'")
                    merged.update(entries.value)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise JobFileError(f"{where}: {path}: a field's name must be a word", hint="write 'field: value'")
            key = str(key_node.value)
            if key in seen:
                raise JobFileError(
                    f"{where}: {_below(path, key)}: is written twice, at {seen[key]} too",
                    hint="keep one of them: YAML would silently take the last",
                )
            seen[key] = where
            yield key, self.read(value_node, _below(path, key), where)
        yield from ((key, item) for key, item in merged.items() if key not in seen)

    def _where(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _fold(word: str) -> str:
    return word.replace("_", "").lower()


def _snake(word: str) -> str:
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda hit: "_" + hit[0].lower(), word)


def _yaml_hint(error: yaml.MarkedYAMLError) -> str:
    problem = f"{error.problem} {error.context}"
    if "\\t" in problem:
        return "indent with spaces, not with tabs"
    if "single document" in problem:
        return "one job to a file: remove what follows '---'"
    if "constructor for the tag" in problem:
        return "write plain values, without '!' tags"
    if "undefined alias" in problem:
        return "quote a string that begins with '*'"
    return "check indentation, colons and quotes of that line and of the one above"
