"""Google's way over HTTP: errors, query parameters, pages, field masks. The same for all faces."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlengine.core.errors import MlengineError, ServiceRefusalError

# google.rpc.Code by name, as HTTP.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# What every method of Google's takes.
_SYSTEM_PARAMETERS = frozenset(
    {"alt", "$alt", "key", "prettyPrint", "fields", "quotaUser", "access_token", "oauth_token", "uploadType"}
    | {"upload_protocol", "callback", "$.xgafv", "$prettyPrint", "$unique"}
)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Request:
    """What a method gets. ``path`` has the parts of the URL by name.

    :param enums_as_numbers: the client reads enums as numbers.
    :param stuck: a scripted fault: the job that this creates is to stay PENDING.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes = b""
    enums_as_numbers: bool = False
    stuck: bool = False

    def json(self) -> dict[str, Any]:
        """:raises ServiceRefusalError: if the body is no JSON object."""
        try:
            data = json.loads(self.body or b"{}")
        except ValueError as error:
            raise ServiceRefusalError(f"Invalid JSON payload received. {error}") from error
        if not isinstance(data, dict):
            raise ServiceRefusalError("Invalid JSON payload received. Root must be an object.")
        return data

    def only(self, *names: str) -> None:
        """:raises ServiceRefusalError: for a query parameter that the method does not have."""
        for name in self.query:
            if name not in names and name not in _SYSTEM_PARAMETERS:
                raise ServiceRefusalError(
                    f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
                )


def error_body(error: MlengineError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of a refusal; what is no refusal is this service's own failure."""
    status = (
        error.status if isinstance(error, ServiceRefusalError) else "UNAVAILABLE" if error.retryable else "INTERNAL"
    )
    code = HTTP_STATUS[status]
    return code, {"error": {"code": code, "message": str(error), "status": status}}


def page(items: Sequence[Item], query: Mapping[str, str], most: int) -> tuple[Sequence[Item], str]:
    """One page of ``items``, and the token of the next, empty on the last.

    :raises ServiceRefusalError: for a size or a token that is none.
    """
    try:
        size = int(query.get("pageSize") or 0)
        begin = int(base64.urlsafe_b64decode(query["pageToken"])) if query.get("pageToken") else 0
    except ValueError as error:
        raise ServiceRefusalError(f"Invalid page size or token: {error}") from error
    if size < 0 or begin < 0:
        raise ServiceRefusalError("Page size and token must not be negative.")
    end = begin + min(size or most, most)
    token = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else ""
    return items[begin:end], token


def mask(data: Mapping[str, Any], paths: str) -> dict[str, Any]:
    """Only the top-level fields named in ``paths`` (``a,b.c``), in camelCase or snake_case."""
    if not paths or paths == "*":
        return dict(data)
    wanted = {_camel(path.split(".")[0]) for path in paths.split(",")}
    return {name: value for name, value in data.items() if name in wanted}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
