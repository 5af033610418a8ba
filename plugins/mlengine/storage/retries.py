"""Deadlines, retries and errors of calls to Cloud Storage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlengine.core.errors import (
    BucketMissingError,
    MlengineError,
    ObjectMissingError,
    StorageConflictError,
    StorageError,
    StorageForbiddenError,
    StorageUnavailableError,
)

DEADLINE = 120.0  # seconds for one call with its retries
CONNECT_DEADLINE = 15.0  # seconds for one call if no server listens, enough for the restart of a server
ATTEMPT = (10.0, 30.0)  # connect and read timeout of one request, in seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between requests; doubled for each, with jitter
# The code in the JSON of a service that is not available, or that has a quota of requests.
_SERVER_ERROR = re.compile(r'"code":\s*(429|5\d\d)\b')


def retry() -> Any:
    """A retry policy for Google's library, with the deadlines of this module. Each call needs a new one."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    started = time.monotonic()
    retryable = DEFAULT_RETRY._predicate

    def should_retry(error: Exception) -> bool:
        if _no_connection(error) and time.monotonic() - started > CONNECT_DEADLINE:
            return False
        return bool(retryable(error)) or token_may_follow(error)

    return DEFAULT_RETRY.with_predicate(should_retry).with_timeout(DEADLINE).with_delay(FIRST_PAUSE, LONGEST_PAUSE)


def _no_connection(error: BaseException | None) -> bool:
    """Whether no connection could be opened: it was refused, the host is unknown, or there is no route."""
    import urllib3

    none = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    while error is not None:
        reason = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(error, none) or isinstance(reason, none):
            return True
        error = error.__cause__
    return False


@contextmanager
def errors(uri: str, *, bucket: bool = False) -> Iterator[None]:
    """Convert the client's exceptions into those of this project, with the URI.

    :param bucket: whether "not found" can only mean the bucket.
    """
    import requests
    from google.api_core import exceptions as google
    from google.auth import exceptions as auth
    from google.cloud.storage.exceptions import DataCorruption

    try:
        yield
    except google.GoogleAPIError as error:
        raise _of_api(error, uri, bucket) from error
    except auth.GoogleAuthError as error:
        raise _of_credentials(error, uri) from error
    except requests.RequestException as error:
        raise StorageUnavailableError(
            f"Cloud Storage cannot be reached for {uri}: {error}", hint="check the network and the server's address"
        ) from error
    except DataCorruption as error:
        raise StorageUnavailableError(f"{uri} was corrupted in transit: {error}", hint="try again") from error


def token_may_follow(error: BaseException | None) -> bool:
    """Whether an error of google-auth is temporary: the server that issues access tokens was not available.

    ``error.retryable`` alone does not tell: it is false if the metadata server of a machine or a pod did not respond,
    and if the service that impersonates accounts responded with an error of its own.
    """
    from google.auth import exceptions as auth

    if not isinstance(error, auth.GoogleAuthError):
        return False
    answer = error.args[1] if len(error.args) > 1 else ""
    if isinstance(error, auth.TransportError) or error.retryable or _SERVER_ERROR.search(str(answer)):
        return True
    return token_may_follow(error.__cause__)


def _of_api(error: Any, uri: str, bucket: bool) -> MlengineError:
    from google.api_core import exceptions as google

    match error:
        # A test for "bucket" alone would not be enough: the message has the URL, which may contain that word.
        case google.NotFound() if bucket or "bucket does not exist" in str(error):
            return BucketMissingError(
                f"no bucket for {uri}",
                hint="create the bucket, or correct its name; it may also be invisible to these credentials",
            )
        case google.NotFound():
            return ObjectMissingError(f"no object {uri}")
        case google.PreconditionFailed():
            return StorageConflictError(f"another process wrote {uri} first")
        case google.Forbidden() | google.Unauthorized():
            return StorageForbiddenError(
                f"no permission for {uri}: {error}",
                hint="grant roles/storage.objectAdmin on the bucket to the connection's account",
            )
        case google.ServerError() | google.TooManyRequests() | google.RetryError():
            return _unavailable(error, uri)
        case _:
            return StorageError(f"Cloud Storage rejected a request for {uri}: {error}")


def _unavailable(error: Any, uri: str) -> StorageUnavailableError:
    cause = getattr(error, "cause", None)  # the message of an exceeded deadline does not include the last error
    if _no_connection(cause):
        return StorageUnavailableError(
            f"Cloud Storage cannot be reached for {uri}: {cause}", hint="check the network and the server's address"
        )
    return StorageUnavailableError(
        f"Cloud Storage did not respond for {uri}: {error}{f' ({cause})' if cause else ''}", hint="try again later"
    )


def _of_credentials(error: Any, uri: str) -> MlengineError:
    if token_may_follow(error):
        return StorageUnavailableError(f"no access token for {uri}: {error}", hint="try again later")
    return StorageForbiddenError(
        f"no credentials for {uri}: {error}", hint="check the connection's key, or GOOGLE_APPLICATION_CREDENTIALS"
    )
