"""The protobuf messages of Vertex AI, which say what a request may contain and how an answer is written.

The service is the one part that carries Google's generated messages: what a client sends is judged by them, as the
real service does. They are imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from mlengine.core.errors import ServiceRefusalError

_UNKNOWN = re.compile(r'has no field named "(?P<name>[^"]+)"(?: at "(?P<where>[^"]+)")?')


@cache
def _custom_job() -> Any:
    from google.cloud.aiplatform_v1.types import custom_job  # noqa: TID251 - the judge of requests, in the server only

    return type(custom_job.CustomJob.pb(custom_job.CustomJob()))


def read_custom_job(data: Mapping[str, Any]) -> dict[str, Any]:
    """A ``CustomJob`` as a client sent it, in the one form the service writes: camelCase, enums by name.

    What only the service fills in is dropped, as the real one does.

    :raises ServiceRefusalError: for a field that the message has not, or a value of the wrong type.
    """
    from google.protobuf import json_format

    try:
        message = json_format.ParseDict(dict(data), _custom_job()())
    except json_format.ParseError as error:
        raise ServiceRefusalError(f"Invalid JSON payload received. {_words(str(error))}") from error
    for output in ("name", "state", "create_time", "start_time", "end_time", "update_time", "error"):
        message.ClearField(output)
    message.ClearField("web_access_uris")
    plain: dict[str, Any] = json_format.MessageToDict(message)
    return plain


def with_numbers(job: Mapping[str, Any]) -> dict[str, Any]:
    """The same job with enums as numbers, for clients that ask for them."""
    from google.protobuf import json_format

    message = json_format.ParseDict(dict(job), _custom_job()())
    plain: dict[str, Any] = json_format.MessageToDict(message, use_integers_for_enums=True)
    return plain


def _words(text: str) -> str:
    match = _UNKNOWN.search(text)
    if match is None:
        return text
    where = (match["where"] or "CustomJob").replace("CustomJob", "custom_job", 1)
    return f"Unknown name \"{match['name']}\" at '{where}': Cannot find field."
