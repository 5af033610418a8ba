"""Telling Airflow that there is a new dataset version: an asset event with the version as its partition key.

Over Airflow's public REST API, so that whoever registers data needs no Airflow on their machine. Where a task of
Airflow's registers it, that task emits the event itself, by its outlets (docs/retraining.md).
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import AnnounceError
from mlengine.core.layout import dataset_asset_name

_SECONDS = 30.0


@dataclass(frozen=True)
class AirflowServer:
    """An Airflow, and how to be let in: with a token, or with a user and a password.

    :param url: of the API server, as in the browser.
    """

    url: str
    token: str = ""
    user: str = ""
    password: str = ""

    @classmethod
    def from_environment(cls, url: str = "", environ: Mapping[str, str] = os.environ) -> AirflowServer:
        """``MLENGINE_AIRFLOW_URL``, ``_TOKEN``, ``_USER`` and ``_PASSWORD``: secrets are no arguments.

        :raises AnnounceError: no address is named.
        """
        found = {name: environ.get(f"MLENGINE_AIRFLOW_{name.upper()}", "") for name in ("token", "user", "password")}
        url = url or environ.get("MLENGINE_AIRFLOW_URL", "")
        if not url:
            raise AnnounceError("no Airflow to tell", remedy="give --airflow URL, or set MLENGINE_AIRFLOW_URL")
        return cls(url.rstrip("/"), **found)


def announce(server: AirflowServer, dataset: str, version: str, extra: Mapping[str, Any] | None = None) -> int:
    """Send the event; every DAG that waits for the dataset starts a run about this version. Returns the event's id.

    Not idempotent: told twice, a version starts two runs, of which the second finds its work done (``reused``).

    :param extra: small JSON that goes with the event.
    :raises AnnounceError: Airflow cannot be reached, refuses, or has no DAG that waits for the dataset.
    """
    token = server.token or _login(server)
    name = dataset_asset_name(dataset)
    query = urllib.parse.urlencode({"name_pattern": name, "limit": 100})
    assets = _call(server, token, "GET", f"api/v2/assets?{query}")["assets"]
    ids = [asset["id"] for asset in assets if asset["name"] == name]
    if not ids:
        raise AnnounceError(
            f"{server.url} knows no asset {name!r}: no DAG waits for versions of {dataset!r}",
            remedy="switch on a DAG whose schedule names it, such as mnist_on_new_version, and see that it has no"
            " import error",
        )
    body = {"asset_id": ids[0], "partition_key": version, "extra": dict(extra or {})}
    return int(_call(server, token, "POST", "api/v2/assets/events", body)["id"])


def _login(server: AirflowServer) -> str:
    if not server.user:
        raise AnnounceError(
            "nobody to log in as",
            remedy="set MLENGINE_AIRFLOW_TOKEN, or MLENGINE_AIRFLOW_USER and MLENGINE_AIRFLOW_PASSWORD",
        )
    body = {"username": server.user, "password": server.password}
    return str(_call(server, "", "POST", "auth/token", body)["access_token"])


def _call(server: AirflowServer, token: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    url = f"{server.url}/{path}"
    if not url.startswith(("http://", "https://")):
        raise AnnounceError(f"not the address of an Airflow: {server.url}", remedy="write http://… or https://…")
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310 - looked at above
    where = f"{method} {url.partition('?')[0]}"
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        words = error.read().decode(errors="replace")[:500]
        raise AnnounceError(
            f"Airflow refused {where} ({error.code}): {words}",
            remedy="see that the user may create asset events" if error.code in {401, 403} else "see Airflow's own log",
        ) from error
    except (OSError, ValueError) as error:
        raise AnnounceError(f"Airflow does not answer {where}: {error}", remedy="see that it runs there") from error
