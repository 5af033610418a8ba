"""A client for Airflow's public REST API: login and calls.

It neither imports Airflow nor uses its database, so that it runs on any machine that can reach the API server.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from mlengine.core.errors import AirflowError

CALL_SECONDS = 30.0
_GET_ATTEMPTS = 4
_CREDENTIALS = "set MLENGINE_AIRFLOW_TOKEN, or MLENGINE_AIRFLOW_USER and MLENGINE_AIRFLOW_PASSWORD"


class AirflowServer:
    """A client of one Airflow API server. It logs in at the first call, and again when the token has expired.

    :param url: the URL of the API server, as in the browser.
    :param token: a bearer token; without one, ``user`` and ``password`` are used to get one.
    :param direct: ignore the environment's proxy settings, for a server on this machine.
    :raises AirflowError: from every method, if the server cannot be reached or rejects the request.
    """

    def __init__(self, url: str, *, token: str = "", user: str = "", password: str = "", direct: bool = False) -> None:
        if not _is_url(url):
            raise AirflowError(f"not an Airflow URL: {url}", hint="write http://HOST:PORT or https://HOST")
        self.url = url.rstrip("/")
        self._token = token
        self._login = {"username": user, "password": password}
        proxies = [urllib.request.ProxyHandler({})] if direct else []
        self._opener = urllib.request.build_opener(_SameServer, *proxies)

    @classmethod
    def from_environment(cls, url: str | None = None, environ: Mapping[str, str] = os.environ) -> AirflowServer:
        """Create a client from the environment.

        The variables are ``MLENGINE_AIRFLOW_URL``, and either ``MLENGINE_AIRFLOW_TOKEN``, or ``MLENGINE_AIRFLOW_USER``
        and ``MLENGINE_AIRFLOW_PASSWORD``. Secrets are not command-line arguments, because every user of the machine can
        read those.

        :param url: the URL, instead of ``MLENGINE_AIRFLOW_URL``.
        :raises AirflowError: there is no URL.
        """

        def variable(name: str) -> str:
            return environ.get(f"MLENGINE_AIRFLOW_{name}", "")

        url = url or variable("URL")
        if not url:
            raise AirflowError(
                "no Airflow URL", hint="pass --airflow-url http://HOST:PORT, or set MLENGINE_AIRFLOW_URL"
            )
        return cls(url, token=variable("TOKEN"), user=variable("USER"), password=variable("PASSWORD"))

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request to ``/api/v2/<path>``, and return the decoded response."""
        try:
            return self._send(method, path, body)
        except AirflowError as error:
            if error.status != 401 or not self._login["username"]:
                raise
        self._token = ""  # it has expired, or the server has restarted with another secret
        return self._send(method, path, body)

    def find(self, path: str) -> dict[str, Any] | None:
        """The resource at ``path``; ``None`` if it does not exist."""
        try:
            answer: dict[str, Any] = self.call("GET", path)
        except AirflowError as error:
            if error.status == 404 and '"detail"' in error.message:  # from Airflow, not from another server
                return None
            raise
        return answer

    def health(self) -> dict[str, Any]:
        """The health of Airflow's components. The request needs no login."""
        answer: dict[str, Any] = self._request("GET", "/api/v2/monitor/health", None)
        return answer

    def prepare_execution_api(self) -> None:
        """Make the server build the routes of the API that tasks use. The request needs no login.

        Airflow 3.3.2 builds the routes at the first request, in the server's event loop. This blocks all other requests
        for 3 s, so without this call, the first tasks of a run would have to wait.
        """
        self._request("GET", "/execution/health", None)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        if not self._token:
            if not self._login["username"]:
                raise AirflowError("no Airflow credentials", hint=_CREDENTIALS)
            self._token = str(self._request("POST", "/auth/token", self._login)["access_token"])
        return self._request(method, f"/api/v2/{path}", body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        url = f"{self.url}{path}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 checked in __init__
        # Repeat a GET that times out, because on a machine under full load, responses can be slow.
        for attempts_left in reversed(range(_GET_ATTEMPTS if method == "GET" else 1)):
            try:
                with self._opener.open(request, timeout=CALL_SECONDS) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                if 300 <= error.code < 400:
                    raise AirflowError(
                        f"Airflow redirects {method} {url} to {error.headers['Location']} ({error.code})",
                        hint="redirects are not followed; if the target is your Airflow, use its URL",
                        status=error.code,
                    ) from error
                reason = error.read().decode(errors="replace")[:2000]
                raise AirflowError(
                    f"Airflow rejected {method} {url} ({error.code}): {reason}",
                    hint=_CREDENTIALS if error.code in {401, 403} else "check the URL and the API server's log",
                    status=error.code,
                ) from error
            except (OSError, ValueError, http.client.HTTPException) as error:
                late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
                if not (late and attempts_left):
                    raise AirflowError(
                        f"no response from Airflow to {method} {url}: {str(error) or type(error).__name__}",
                        hint="check that the API server is running at this URL",
                    ) from error
        return None


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to the same server, because urllib would send the token to any server."""

    def redirect_request(  # noqa: PLR0917 urllib's signature
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The redirected request, or ``None`` to pass the response to the caller as an error.

        A redirect to another server, or from HTTPS to HTTP, is not followed. Nor is the redirect of a request that
        changes something, because urllib would repeat it as a GET without its body.
        """
        if req.get_method() not in {"GET", "HEAD"}:
            return None
        before, after = _server(req.full_url), _server(newurl)
        encrypts = before[0] == "http" and after == ("https", before[1], 443) and before[2] == 80
        return super().redirect_request(req, fp, code, msg, headers, newurl) if before == after or encrypts else None


def _server(url: str) -> tuple[str, str | None, int | None]:
    """The scheme, host and port of a URL."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_url(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, or a bracket is missing
        return False
    return valid and not re.search(r"\s", url)


def quoted(name: str) -> str:
    """``name`` as one segment of a URL path, with slashes escaped."""
    return urllib.parse.quote(name, safe="")


def run_path(dag_id: str, run_id: str) -> str:
    """The path of a DAG run below ``/api/v2/``."""
    return f"dags/{quoted(dag_id)}/dagRuns/{quoted(run_id)}"
