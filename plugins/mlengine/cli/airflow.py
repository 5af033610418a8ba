"""Airflow's REST API, as much of it as a command needs to know whether a task still wants its job.

Nothing here knows Airflow's database, or imports Airflow: the command may run anywhere that reaches its API server.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from mlengine.core.errors import MlengineError

_SECONDS = 30.0


class AirflowClient:
    """Read-only. A look-up that finds nothing is ``None``; anything else that is no answer raises.

    :param url: of Airflow's UI.
    :param token: a bearer token; else ``user`` and ``password`` get one.
    """

    def __init__(self, url: str, *, token: str = "", user: str = "", password: str = "") -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._login = {"username": user, "password": password}

    @classmethod
    def from_environment(cls, url: str | None) -> AirflowClient:
        """``MLENGINE_AIRFLOW_URL``, and ``_TOKEN``, or ``_USER`` and ``_PASSWORD``: secrets are no arguments, which
        every user of a machine can read.
        """

        def told(name: str) -> str:
            return os.environ.get(f"MLENGINE_AIRFLOW_{name}", "")

        url = url or told("URL")
        if not url:
            raise MlengineError(
                "no Airflow to ask which runs still exist",
                remedy="give --airflow-url http://HOST:PORT, or set MLENGINE_AIRFLOW_URL",
            )
        return cls(url, token=told("TOKEN"), user=told("USER"), password=told("PASSWORD"))

    def knows(self, dag_id: str) -> bool:
        """Whether there is such a DAG."""
        return self._get(f"dags/{urllib.parse.quote(dag_id, safe='')}") is not None

    def run(self, dag_id: str, run_id: str) -> dict[str, Any] | None:
        """The DAG run."""
        return self._get(_path(dag_id, run_id))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All its task instances."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(f"{_path(dag_id, run_id)}/taskInstances?limit=100&offset={len(found)}&order_by=id")
            items = (page or {}).get("task_instances", [])
            found += items
            if not items or len(found) >= (page or {})["total_entries"]:
                return found

    def _get(self, path: str) -> dict[str, Any] | None:
        if not self._token and self._login["username"]:
            self._token = (self._ask("POST", "/auth/token", self._login) or {})["access_token"]
        return self._ask("GET", f"/api/v2/{path}")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        url = f"{self._url}{path}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 the person's own address
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
                answer: dict[str, Any] = json.loads(response.read())
                return answer
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace")[:500]
            if error.code == 404 and '"detail"' in reason:  # Airflow's own word, not some other server's
                return None
            remedy = "set MLENGINE_AIRFLOW_TOKEN, or MLENGINE_AIRFLOW_USER and MLENGINE_AIRFLOW_PASSWORD"
            raise MlengineError(
                f"Airflow refused {method} {url} ({error.code}): {reason}",
                remedy=remedy if error.code in {401, 403} else "see that --airflow-url is Airflow's",
            ) from error
        except (OSError, ValueError) as error:
            raise MlengineError(f"Airflow does not answer at {url}: {error}", remedy="nothing was decided") from error


def _path(dag_id: str, run_id: str) -> str:
    return f"dags/{urllib.parse.quote(dag_id, safe='')}/dagRuns/{urllib.parse.quote(run_id, safe='')}"
