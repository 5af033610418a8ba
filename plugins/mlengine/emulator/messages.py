"""Vertex AI's protobuf messages: the emulator validates requests with them, as the service does.

Google's generated classes are imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from mlengine.core.errors import EmulatorApiError

_UNKNOWN = re.compile(r'has no field named "(?P<name>[^"]+)"(?: at "(?P<where>[^"]+)")?')


@cache
def custom_job_type() -> Any:
    """The class of ``CustomJob``."""
    from google.cloud.aiplatform_v1.types import custom_job  # noqa: TID251 - the emulator validates requests with it

    return type(custom_job.CustomJob.pb(custom_job.CustomJob()))


@cache
def model_type() -> Any:
    """The class of ``Model``."""
    from google.cloud.aiplatform_v1.types import model  # noqa: TID251 - the emulator validates requests with it

    return type(model.Model.pb(model.Model()))


@cache
def upload_model_request_type() -> Any:
    """The class of ``UploadModelRequest``."""
    from google.cloud.aiplatform_v1.types import model_service  # noqa: TID251 - the emulator validates requests with it

    return type(model_service.UploadModelRequest.pb(model_service.UploadModelRequest()))


def read_custom_job(data: Mapping[str, Any]) -> dict[str, Any]:
    """A client's ``CustomJob`` in canonical form: camelCase, enums by name, without output-only fields.

    :raises EmulatorApiError: a field is unknown, or a value has the wrong type.
    """
    message = parse(data, custom_job_type())
    for output in ("name", "state", "create_time", "start_time", "end_time", "update_time", "error"):
        message.ClearField(output)
    message.ClearField("web_access_uris")
    return to_dict(message)


def with_numbers(job: Mapping[str, Any]) -> dict[str, Any]:
    """The same job with enums as numbers, for clients that request them."""
    return to_dict(parse(job, custom_job_type()), numbers=True)


class Mask:
    """The fields of a message that a request's ``readMask`` selects.

    :param text: comma-separated paths such as ``name,jobSpec.scheduling``, in camelCase or snake_case. Empty or ``*``
        selects all fields.
    :param kind: the message's class.
    :raises EmulatorApiError: the message has no field at one of the paths.
    """

    def __init__(self, text: str, kind: Any) -> None:
        self._kind, self._mask = kind, None
        if text in {"", "*"}:
            return
        from google.protobuf.field_mask_pb2 import FieldMask

        paths = [_snake(path.strip()) for path in text.split(",")]
        for path in paths:
            if not path or not FieldMask(paths=[path]).IsValidForDescriptor(kind.DESCRIPTOR):
                name = kind.DESCRIPTOR.name
                raise EmulatorApiError(f"Invalid value at 'read_mask' (FieldMask): {name} has no field '{path}'.")
        self._mask = FieldMask(paths=paths)

    def apply(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The selected fields of ``data``."""
        if self._mask is None:
            return dict(data)
        message = self._kind()
        self._mask.MergeMessage(parse(data, self._kind), message)
        return to_dict(message)


def parse(data: Mapping[str, Any], kind: Any) -> Any:
    """``data`` as a protobuf message.

    :raises EmulatorApiError: a field is unknown, or a value has the wrong type.
    """
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(dict(data), kind())
    except json_format.ParseError as error:
        raise EmulatorApiError(f"Invalid JSON payload received. {_in_google_s_format(str(error))}") from error


def to_dict(message: Any, *, numbers: bool = False) -> dict[str, Any]:
    """A protobuf message as JSON.

    :param numbers: write enums as numbers.
    """
    from google.protobuf import json_format

    plain: dict[str, Any] = json_format.MessageToDict(message, use_integers_for_enums=numbers)
    return plain


def _in_google_s_format(text: str) -> str:
    match = _UNKNOWN.search(text)
    if match is None:
        return text
    where = (match["where"] or "CustomJob").replace("CustomJob", "custom_job", 1)
    return f"Unknown name \"{match['name']}\" at '{where}': Cannot find field."


def _snake(path: str) -> str:
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda hit: "_" + hit[0].lower(), path)
