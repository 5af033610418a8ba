"""Finds the error in JSON that is not a valid protobuf message, and reports it like Google's API front end.

Protobuf's own errors name the field in camelCase, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import field_errors
from mlengine.emulator.field_errors import snake

_MAX_VALUE = 200  # characters of a value in a message


def find_problem(data: Mapping[str, Any], kind: Any, path: str) -> EmulatorApiError | None:
    """The error of the first field that is unknown, or whose value has the wrong type; ``None`` if none is found.

    :param kind: the message class.
    :param path: the path of the message in the request, in snake_case; empty for the request itself.
    """
    known = {name: field for field in kind.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    for name, value in data.items():
        field = known.get(name)
        if field is None:
            return field_errors.unknown(name, path)
        if not _parses({name: value}, kind):
            return _problem_of(field, value, f"{path}.{snake(name)}" if path else snake(name))
    return None


def _problem_of(field: Any, value: Any, path: str) -> EmulatorApiError:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    # Well-known types, such as Duration, are strings in JSON.
    is_message = field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf.")
    if is_message and not is_map:
        kind = _class_of(field.message_type)
        for place, item in _items(value, path):
            if isinstance(item, Mapping) and (found := find_problem(item, kind, place)):
                return found
    return field_errors.invalid(path, _type_name(field), json.dumps(value)[:_MAX_VALUE])


def _items(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((f"{path}[{place}]", item) for place, item in enumerate(value))
    else:
        yield path, value


def _type_name(field: Any) -> str:
    descriptor = field.message_type or field.enum_type
    if descriptor is not None:
        return f"type.googleapis.com/{descriptor.full_name}"
    names = {getattr(field, name): name for name in dir(field) if name.startswith("TYPE_")}
    return names.get(field.type, "TYPE_UNKNOWN")


def _parses(data: Mapping[str, Any], kind: Any) -> bool:
    from google.protobuf import json_format

    try:
        json_format.ParseDict(dict(data), kind())
    except json_format.ParseError:
        return False
    return True


def _class_of(descriptor: Any) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(descriptor)
