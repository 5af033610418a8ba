"""Announces a new dataset version to Airflow, as an asset event with the version as its partition key.

It uses Airflow's public REST API, so that data can be registered on a machine without Airflow. If an Airflow task
registers the version, that task emits the event itself, through its outlets (docs/retraining.md).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any

from mlengine.clients.airflow_api import AirflowServer
from mlengine.core.errors import AnnounceError
from mlengine.core.layout import dataset_asset_name


def announce(server: AirflowServer, dataset: str, version: str, extra: Mapping[str, Any] | None = None) -> int:
    """Send the event and return its id. Every DAG that is scheduled on the dataset starts a run for this version.

    This is not idempotent: announcing a version twice starts two runs. The second finds its work done (``reused``).

    :param extra: a small JSON object that is sent with the event.
    :raises AnnounceError: Airflow has no DAG that is scheduled on the dataset.
    :raises AirflowError: Airflow cannot be reached, or rejects the request.
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
