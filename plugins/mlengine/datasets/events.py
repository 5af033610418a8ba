"""Telling Airflow that there is a new dataset version: an asset event with the version as its partition key.

Over Airflow's public REST API, so that data can be registered on a machine without Airflow. Where a task of
Airflow's registers it, that task emits the event itself, by its outlets (docs/retraining.md).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any

from mlengine.clients.airflow_api import AirflowServer
from mlengine.core.errors import AnnounceError
from mlengine.core.layout import dataset_asset_name


def announce(server: AirflowServer, dataset: str, version: str, extra: Mapping[str, Any] | None = None) -> int:
    """Send the event; every DAG that waits for the dataset starts a run about this version. Returns the event's id.

    Not idempotent: told twice, a version starts two runs, of which the second finds its work done (``reused``).

    :param extra: small JSON that goes with the event.
    :raises AnnounceError: Airflow has no DAG that waits for the dataset.
    :raises AirflowError: Airflow cannot be reached, or refuses.
    """
    name = dataset_asset_name(dataset)
    query = urllib.parse.urlencode({"name_pattern": name, "limit": 100})
    assets = server.call("GET", f"assets?{query}")["assets"]
    ids = [asset["id"] for asset in assets if asset["name"] == name]
    if not ids:
        raise AnnounceError(
            f"{server.url} knows no asset {name!r}: no DAG waits for versions of {dataset!r}",
            hint="unpause a DAG whose schedule names the asset, and check that it has no import error",
        )
    body = {"asset_id": ids[0], "partition_key": version, "extra": dict(extra or {})}
    return int(server.call("POST", "assets/events", body)["id"])
