"""How one call to Cloud Storage is made: its deadlines, what is tried again, and what its failure is called."""

from __future__ import annotations

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
CONNECT_DEADLINE = 15.0  # … while nobody is there to connect to: enough for a server that restarts
ATTEMPT = (10.0, 30.0)  # seconds to connect, and of silence, before an attempt is given up and made again
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between attempts; each is twice the one before, less a random part


def retry() -> Any:
    """Google's own rule for what may be repeated, with our deadlines. Made anew for each call: it keeps its start."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    started = time.monotonic()
    again = DEFAULT_RETRY._predicate

    def worth_it(error: Exception) -> bool:
        if _nobody_there(error) and time.monotonic() - started > CONNECT_DEADLINE:
            return False
        return bool(again(error))

    return DEFAULT_RETRY.with_predicate(worth_it).with_timeout(DEADLINE).with_delay(FIRST_PAUSE, LONGEST_PAUSE)


def _nobody_there(error: BaseException | None) -> bool:
    """Whether no connection came about: refused, no such host, no route."""
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
    """Turn the client's exceptions into this project's, naming the URI.

    :param bucket: "not found" can only be the bucket.
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
            f"Cloud Storage cannot be reached for {uri}: {error}", hint="see that the server runs and is reachable"
        ) from error
    except DataCorruption as error:
        raise StorageUnavailableError(f"{uri} did not arrive whole: {error}", hint="try again") from error


def _of_api(error: Any, uri: str, bucket: bool) -> MlengineError:
    from google.api_core import exceptions as google

    match error:
        # Not any "bucket" in the text: the text has the URL, and people call their buckets so.
        case google.NotFound() if bucket or "bucket does not exist" in str(error):
            return BucketMissingError(
                f"no bucket for {uri}", hint="create the bucket, or correct its name; these credentials see none"
            )
        case google.NotFound():
            return ObjectMissingError(f"no object {uri}")
        case google.PreconditionFailed():
            return StorageConflictError(f"{uri} was written by somebody else first")
        case google.Forbidden() | google.Unauthorized():
            return StorageForbiddenError(
                f"no permission for {uri}: {error}",
                hint="grant roles/storage.objectAdmin on the bucket to the connection's account",
            )
        case google.ServerError() | google.TooManyRequests() | google.RetryError():
            return _unavailable(error, uri)
        case _:
            return StorageError(f"Cloud Storage refused {uri}: {error}")


def _unavailable(error: Any, uri: str) -> StorageUnavailableError:
    cause = getattr(error, "cause", None)  # a deadline's own text does not say what failed until then
    if _nobody_there(cause):
        return StorageUnavailableError(
            f"Cloud Storage cannot be reached for {uri}: {cause}", hint="see that the server runs and is reachable"
        )
    return StorageUnavailableError(
        f"Cloud Storage did not answer for {uri}: {error}{f' ({cause})' if cause else ''}", hint="try again later"
    )


def _of_credentials(error: Any, uri: str) -> MlengineError:
    from google.auth import exceptions as auth

    if isinstance(error, auth.TransportError) or error.retryable:
        return StorageUnavailableError(f"no token for {uri}: {error}", hint="try again later")
    return StorageForbiddenError(
        f"no credentials for {uri}: {error}", hint="see the connection's key, or GOOGLE_APPLICATION_CREDENTIALS"
    )
