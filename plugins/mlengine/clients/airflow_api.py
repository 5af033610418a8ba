"""An Airflow, spoken to over its public REST API: a login, and one call after another.

Nothing here knows Airflow's database, or imports Airflow: it runs anywhere that reaches the API server. What to ask is
the caller's business.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from mlengine.core.errors import AirflowError

CALL_SECONDS = 30.0
_LOOKS = 4
_WHO = "set MLENGINE_AIRFLOW_TOKEN, or MLENGINE_AIRFLOW_USER and MLENGINE_AIRFLOW_PASSWORD"


class AirflowServer:
    """One object is one login, made when the first call needs it, and made anew when it has expired.

    :param url: of the API server, as in the browser.
    :param token: a bearer token; without one, ``user`` and ``password`` get it.
    :param direct: past any proxy that the environment names: for a server that was started here.
    :raises AirflowError: from every method, if the server cannot be reached or refuses; with its own words.
    """

    def __init__(self, url: str, *, token: str = "", user: str = "", password: str = "", direct: bool = False) -> None:
        if not url.startswith(("http://", "https://")):
            raise AirflowError(f"not the address of an Airflow: {url}", hint="write http://… or https://…")
        self.url = url.rstrip("/")
        self._token = token
        self._login = {"username": user, "password": password}
        proxies = [urllib.request.ProxyHandler({})] if direct else []
        self._opener = urllib.request.build_opener(*proxies)

    @classmethod
    def from_environment(cls, url: str | None = None, environ: Mapping[str, str] = os.environ) -> AirflowServer:
        """``MLENGINE_AIRFLOW_URL``, and ``_TOKEN``, or ``_USER`` and ``_PASSWORD``: secrets are no arguments, which
        every user of a machine can read.
        """

        def told(name: str) -> str:
            return environ.get(f"MLENGINE_AIRFLOW_{name}", "")

        url = url or told("URL")
        if not url:
            raise AirflowError(
                "no Airflow is named", hint="give --airflow-url http://HOST:PORT, or set MLENGINE_AIRFLOW_URL"
            )
        return cls(url, token=told("TOKEN"), user=told("USER"), password=told("PASSWORD"))

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to ``/api/v2/<path>``; the answer's JSON."""
        try:
            return self._send(method, path, body)
        except AirflowError as error:
            if error.status != 401 or not self._login["username"]:
                raise
        self._token = ""  # it has expired, or the server was started anew with another secret
        return self._send(method, path, body)

    def find(self, path: str) -> dict[str, Any] | None:
        """What ``path`` names, or ``None`` if Airflow knows no such thing."""
        try:
            answer: dict[str, Any] = self.call("GET", path)
        except AirflowError as error:
            if error.status == 404 and '"detail"' in error.message:  # Airflow's own word, not some other server's
                return None
            raise
        return answer

    def health(self) -> dict[str, Any]:
        """What the server says of its components; needs no login."""
        answer: dict[str, Any] = self._request("GET", "/api/v2/monitor/health", None)
        return answer

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        if not self._token:
            if not self._login["username"]:
                raise AirflowError("nobody to log in as", hint=_WHO)
            self._token = str(self._request("POST", "/auth/token", self._login)["access_token"])
        return self._request(method, f"/api/v2/{path}", body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        url = f"{self.url}{path}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 looked at in __init__
        # Looking again is safe; and on a machine that trains at full load, an answer may take its time.
        for patience in reversed(range(_LOOKS if method == "GET" else 1)):
            try:
                with self._opener.open(request, timeout=CALL_SECONDS) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                reason = error.read().decode(errors="replace")[:2000]
                raise AirflowError(
                    f"Airflow refused {method} {url} ({error.code}): {reason}",
                    hint=_WHO if error.code in {401, 403} else "see that this is Airflow's address, and its log",
                    status=error.code,
                ) from error
            except (OSError, ValueError) as error:
                late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
                if not (late and patience):
                    raise AirflowError(
                        f"Airflow does not answer {method} {url}: {error}", hint="see that it runs there"
                    ) from error
        return None


def quoted(name: str) -> str:
    """One segment of a path: a name with a slash in it stays in its place."""
    return urllib.parse.quote(name, safe="")


def run_path(dag_id: str, run_id: str) -> str:
    """Of a DAG run, below ``/api/v2/``."""
    return f"dags/{quoted(dag_id)}/dagRuns/{quoted(run_id)}"
