"""A small REST client for Google's JSON APIs: one session, a deadline for every call, retries where they are safe.

The generated clients have neither deadline nor retry by default and take seconds to import; this client only imports
google-auth and requests. Reads and other calls that are safe to repeat are retried until the deadline. A create is not
retried: its response may be lost after it took effect, so :meth:`RestClient.create` returns ``None`` for "unknown", and
the caller searches for the resource.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from mlengine import __version__
from mlengine.backends.vertex.states import quota_is_zero
from mlengine.core.errors import (
    BackendError,
    BackendThrottledError,
    BackendUnavailableError,
    NoCapacityError,
    NoQuotaError,
)
from mlengine.storage.retries import token_may_follow

log = logging.getLogger(__name__)

CALL_TIMEOUT = (10.0, 30.0)  # seconds to connect, and for each part of an answer
DEADLINE = 120.0  # seconds for one call with its retries
QUOTA_PATIENCE = 300.0  # seconds that a create waits for a quota
# This name is shown in Google's audit logs.
USER_AGENT = f"mlengine/{__version__}"
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
# A quota of requests is renewed every minute, and is unrelated to the quota of machines.
_RATE = re.compile(r"per minute|requests per|rate limit", re.I)

Params = Mapping[str, str | int]


class RestClient:
    """A client that sends and receives JSON. Threads may share one client.

    :param credentials: credentials of google-auth; the session refreshes them when they expire.
    :param direct: whether to ignore the environment's proxies, as for a server on loopback.
    :param deadline: the time limit of one call with its retries, in seconds.
    :param quota_patience: the seconds for which a create is repeated while a quota is exceeded.
    :param timeout: the connect and read timeouts of one request, in seconds.
    :param sleep: the function that pauses between retries.
    """

    def __init__(
        self,
        credentials: Any,
        *,
        direct: bool = False,
        deadline: float = DEADLINE,
        quota_patience: float = QUOTA_PATIENCE,
        timeout: tuple[float, float] = CALL_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._credentials, self._direct = credentials, direct
        self._deadline = deadline
        self._patience = quota_patience
        self._timeout = timeout
        self.sleep = sleep
        self._session: Any = None
        self._lock = threading.Lock()
        self.calls = 0  # requests sent, for budgets and tests

    def call(
        self,
        method: str,
        url: str,
        *,
        params: Params | None = None,
        body: Mapping[str, Any] | None = None,
        missing_ok: bool = False,
        retry: bool = True,
    ) -> dict[str, Any] | None:
        """Send a request that is safe to repeat.

        :param retry: whether to repeat the request until the deadline; ``False`` if requests are counted, and the
            caller repeats them.
        :return: the response; ``None`` for a 404 of the service with ``missing_ok``.
        :raises BackendError: the request was rejected.
        :raises BackendThrottledError: the last response says that a quota is exceeded.
        :raises BackendUnavailableError: there was no successful response until the deadline.
        """
        until = time.monotonic() + self._deadline
        pause = _FIRST_PAUSE
        while True:
            status, answer, retry_after = self._send(method, url, params, body)
            if status is not None and status < 300:
                return answer
            if status == 404 and missing_ok and _of_service(answer):
                return None
            if status is not None and status not in _AGAIN:
                raise _refusal(method, url, status, answer)
            wait = _jitter(pause, retry_after)
            if not retry or time.monotonic() + wait > until:
                raise _unavailable(method, url, status, answer, retry_after)
            self.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def create(self, url: str, body: Mapping[str, Any], *, patience: float | None = None) -> dict[str, Any] | None:
        """Send a POST that must not be executed twice.

        An exceeded quota (429) has no effect, so the request is repeated for up to ``quota_patience`` seconds.

        :param patience: replaces ``quota_patience``, except for a quota of requests a minute.
        :return: the created resource; ``None`` if it is unknown whether it was created.
        :raises BackendError: the request was rejected.
        :raises NoQuotaError: the quota is exceeded because its limit is 0. This error is raised without waiting.
        :raises NoCapacityError: the quota was still exceeded after the wait.
        :raises BackendUnavailableError: a quota of requests a minute was still exceeded after the wait.
        """
        began = time.monotonic()
        pause = 5.0
        while True:
            status, answer, retry_after = self._send("POST", url, None, body)
            if status is not None and status < 300:
                return answer
            if status is None or (status in _AGAIN and status != 429):
                log.warning("POST %s: %s; checking whether it took effect", url, _words(status, answer))
                return None
            if status != 429:
                raise _refusal("POST", url, status, answer)
            error = answer.get("error")
            if isinstance(error, Mapping) and quota_is_zero(error):
                raise NoQuotaError(
                    f"quota with limit 0: {_words(status, answer)}",
                    hint="request this quota for project and region on the console's page IAM > Quotas, or use other "
                    "machines; Spot and flex-start machines need the quota of pre-emptible ones",
                )
            rate = _RATE.search(_words(status, answer)) is not None
            wait = _jitter(pause, retry_after)
            if time.monotonic() + wait > began + (self._patience if patience is None or rate else patience):
                raise _quota_error(status, answer, rate=rate)
            log.warning("Quota exceeded: %s; retrying in %.0f s", _words(status, answer), wait)
            self.sleep(wait)
            pause = min(pause * 2, 60.0)

    def close(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _send(
        self, method: str, url: str, params: Params | None, body: Mapping[str, Any] | None
    ) -> tuple[int | None, dict[str, Any], float | None]:
        """Send one request. Return its status, JSON and Retry-After; status ``None`` without a complete response."""
        import requests
        from google.auth import exceptions as auth

        self.calls += 1
        try:
            reply = self._get_session().request(method, url, params=params, json=body, timeout=self._timeout)
            answer = _decoded(reply)
        except auth.GoogleAuthError as error:
            if token_may_follow(error):
                return None, {"error": {"message": f"no access token: {error}"}}, None
            raise BackendError(
                f"{method} {url}: no access token for these credentials: {error}",
                hint="check the connection's key and the impersonation chain",
            ) from error
        except requests.JSONDecodeError:
            answer = None
        except requests.RequestException as error:
            return None, {"error": {"message": str(error)}}, None
        if isinstance(answer, list):  # some of Google's front ends wrap an error in a list
            answer = answer[0] if answer else None
        if not isinstance(answer, dict):
            if reply.status_code < 300:
                # A proxy's page, for example. It must not look like an empty list, or a job that was cancelled.
                foreign = f"a response that is not of the service: {reply.text[:500]!r}"
                return None, {"error": {"message": foreign}}, None
            answer = {"error": {"message": reply.text[:500]}}
        after = reply.headers.get("Retry-After", "")
        return reply.status_code, answer, float(after) if after.isdigit() else None

    def _get_session(self) -> Any:
        with self._lock:
            if self._session is None:
                from google.auth.transport.requests import AuthorizedSession
                from requests.adapters import HTTPAdapter

                # google-auth does not retry, so that the deadline of this client is the only one.
                session: Any = AuthorizedSession(self._credentials, max_refresh_attempts=2)  # type: ignore[no-untyped-call]
                session.trust_env = not self._direct
                session.headers["User-Agent"] = USER_AGENT
                session.mount("http://", HTTPAdapter(pool_maxsize=16))
                session.mount("https://", HTTPAdapter(pool_maxsize=16))
                self._session = session
            return self._session


def _decoded(reply: Any) -> Any:
    """The JSON of a response.

    :raises requests.JSONDecodeError: the response is not JSON.
    """
    # msgspec is a dependency of Airflow, and takes a fraction of the standard library's time; for a log page, half.
    import msgspec

    try:
        return msgspec.json.decode(reply.content)
    except msgspec.DecodeError:
        return reply.json()


def _jitter(pause: float, retry_after: float | None) -> float:
    return (retry_after or pause) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing


def _of_service(answer: Mapping[str, Any]) -> bool:
    """Whether an error is the service's. A proxy, or a server of another name, also answers 404."""
    error = answer.get("error")
    return isinstance(error, Mapping) and "code" in error


def _words(status: int | None, answer: Mapping[str, Any]) -> str:
    error = answer.get("error")
    message = error.get("message", "") if isinstance(error, Mapping) else str(error or "")
    return f"{'no answer' if status is None else status}: {message}".rstrip(": ")


_HINTS = {
    400: "correct what the message names; 'mlengine jobs train --dry-run' prints the request",
    401: "check the connection's key; its token was refused",
    403: "grant the connection's account roles/aiplatform.user, and roles/iam.serviceAccountUser on the job's "
    "service_account (act-as); enable the API in the project",
    404: "check project, region and endpoint, and that the API is enabled",
}


def _quota_error(status: int, answer: Mapping[str, Any], *, rate: bool) -> BackendError:
    if rate:
        return BackendThrottledError(f"too many requests: {_words(status, answer)}", hint="try again in a minute")
    return NoCapacityError(
        f"quota: {_words(status, answer)}",
        hint="request more of this quota on the console's page IAM > Quotas, wait for other jobs, or set fallbacks; "
        "flex-start and Spot use the pre-emptible quotas, which may be 0",
    )


def _refusal(method: str, url: str, status: int, answer: Mapping[str, Any]) -> BackendError:
    return BackendError(f"{method} {url}: {_words(status, answer)}", hint=_HINTS.get(status, ""))


def _unavailable(
    method: str, url: str, status: int | None, answer: Mapping[str, Any], retry_after: float | None
) -> BackendUnavailableError:
    message = f"{method} {url}: {_words(status, answer)}"
    if status == 429:
        hint = "try again in a minute; others use the same quota of this project"
        return BackendThrottledError(message, hint=hint, retry_after=retry_after)
    return BackendUnavailableError(message, hint="try again later; the state of the jobs is unknown")
