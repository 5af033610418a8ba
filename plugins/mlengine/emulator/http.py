"""Google's HTTP conventions for errors, query parameters, pages and field masks. They are the same for all APIs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from mlengine.core.errors import EmulatorApiError, JobFileError, MlengineError

# The HTTP status of each google.rpc.Code, by name.
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
# Query parameters that every method of Google's APIs accepts.
_SYSTEM_PARAMETERS = frozenset(
    {"alt", "$alt", "key", "prettyPrint", "fields", "quotaUser", "access_token", "oauth_token", "uploadType"}
    | {"upload_protocol", "callback", "$.xgafv", "$prettyPrint", "$unique"}
)
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_MAX_INT32 = 2**31 - 1
Item = TypeVar("Item")


@dataclass(frozen=True)
class Request:
    """The input of an API method.

    :param path: the variable parts of the URL's path, by name.
    :param query: the query parameters.
    :param enums_as_numbers: whether the client requests enums as numbers.
    :param stuck: whether a scripted fault keeps the created job PENDING.
    :param faults: the scripted faults that the call has triggered (:class:`~mlengine.emulator.faults.Fault`).
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes = b""
    enums_as_numbers: bool = False
    stuck: bool = False
    faults: Sequence[Any] = ()

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        :raises EmulatorApiError: the body is not a JSON object.
        """
        try:
            data = json.loads(self.body or b"{}", parse_constant=_not_json)
            json.dumps(data, ensure_ascii=False).encode()  # raises for a lone surrogate, which cannot be stored or sent
        except (ValueError, RecursionError) as error:
            raise EmulatorApiError(f"Invalid JSON payload received. {error}") from error
        if not isinstance(data, dict):
            raise EmulatorApiError("Invalid JSON payload received. Root must be an object.")
        return data

    def only(self, *names: str) -> None:
        """Reject query parameters that the method does not have.

        :raises EmulatorApiError: the request has such a parameter.
        """
        for name in self.query:
            if name not in names and name not in _SYSTEM_PARAMETERS:
                message = f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
                raise EmulatorApiError(message, violation=("", message))


@dataclass(frozen=True)
class Rendered:
    """A response as JSON text, for methods whose responses are large."""

    text: str


Response = dict[str, Any] | Rendered


def as_dict(response: Response) -> dict[str, Any]:
    """A response as a JSON object."""
    if isinstance(response, Rendered):
        found: dict[str, Any] = json.loads(response.text)
        return found
    return response


def status_of(error: MlengineError) -> str:
    """The name of the ``google.rpc.Code`` of an error."""
    if isinstance(error, EmulatorApiError):
        return error.status
    if isinstance(error, JobFileError):  # the job exceeds the limits in mlengine.core.limits
        return "INVALID_ARGUMENT"
    return "UNAVAILABLE" if error.retryable else "INTERNAL"


def error_body(error: MlengineError) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the body of an error response."""
    status = status_of(error)
    code = HTTP_STATUS[status]
    body: dict[str, Any] = {"code": code, "message": str(error), "status": status}
    if details := error_details(error):
        body["details"] = details
    return code, {"error": body}


def error_details(error: MlengineError) -> list[dict[str, Any]]:
    """The details of an error: the invalid field, as ``google.rpc.BadRequest``."""
    violation = error.violation if isinstance(error, EmulatorApiError) else None
    if violation is None:
        return []
    field, description = violation
    return [{"@type": _BAD_REQUEST, "fieldViolations": [{"field": field, "description": description}]}]


def page(
    items: Sequence[Item], size: Any, token: Any, limit: int, *, default: int | None = None
) -> tuple[Sequence[Item], str]:
    """One page of ``items``, and the token of the next page, which is empty on the last one.

    :param size: the requested page size, an integer or a string of digits; empty or 0 for the default.
    :param token: the page token of the request; empty for the first page.
    :param limit: the largest page size. As in the services, it is used if a request asks for a larger size.
    :param default: the page size if none is requested; ``None`` for ``limit``.
    :raises EmulatorApiError: the size or the token is invalid.
    """
    begin = _decode_token(token) if token else 0
    end = begin + min(page_size(size) or default or limit, limit)
    following = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else ""
    return items[begin:end], following


def list_response(name: str, items: Sequence[Mapping[str, Any]], token: str) -> dict[str, Any]:
    """The response of a list method. As in all JSON of Google's services, empty fields are left out.

    :param token: the token of the next page; empty on the last page.
    """
    return {**({name: list(items)} if items else {}), **({"nextPageToken": token} if token else {})}


def page_size(size: Any) -> int:
    """Parse a page size from a query parameter or a JSON field; 0 if none is given.

    :raises EmulatorApiError: the value is not an int32 of at least 0.
    """
    if size is None or size == "":
        return 0
    if isinstance(size, bool) or not re.fullmatch(r"-?[0-9]{1,10}", str(size)) or abs(int(size)) > _MAX_INT32:
        message = f"Invalid value at 'page_size' (TYPE_INT32), {json.dumps(str(size))}"
        raise EmulatorApiError(message, violation=("page_size", message))
    if int(size) < 0:
        raise EmulatorApiError(f"page_size must not be negative: {size}")
    return int(size)


def _decode_token(token: Any) -> int:
    try:
        text = base64.b64decode(str(token).encode(), altchars=b"-_", validate=True).decode()
        if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
            return int(text)
    except ValueError:
        pass
    raise EmulatorApiError(f"Invalid page token: {token}")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
