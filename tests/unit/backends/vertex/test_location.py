"""The rule of precedence for project, region and endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.backends.vertex.location import Connection, Place, find_place, is_local
from mlengine.core.errors import BackendError


def find(**given: Any) -> Place:
    return find_place(**{"project": None, "region": None, "endpoint": None, "connection": Connection({}), **given})


def test_argument_then_job_file_then_connection_then_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection({"project": "from-connection", "location": "region-c"})
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_PROJECT", "from-setting")
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_REGION", "region-s")
    argument = find(project="arg", region="r", connection=connection)
    assert argument.parent("region-j") == "projects/arg/locations/r"
    assert find(connection=connection).parent("region-j") == "projects/from-connection/locations/region-j"
    assert find(connection=connection).parent() == "projects/from-connection/locations/region-c"
    assert find(credentials_project="own").parent() == "projects/from-setting/locations/region-s"
    monkeypatch.delenv("AIRFLOW__MLENGINE__VERTEX_PROJECT")
    assert find(credentials_project="own").project == "own"
    assert find(credentials_project="own").server("europe-west4") == "https://europe-west4-aiplatform.googleapis.com"


def test_what_is_missing_is_said_with_the_places_to_write_it() -> None:
    with pytest.raises(BackendError, match="no Google Cloud project"):
        find(region="r")
    with pytest.raises(BackendError, match="no region") as caught:
        find(project="p").parent()
    assert "vertex_region" in caught.value.hint


def test_a_token_never_travels_in_plain_text() -> None:
    assert is_local("http://127.0.0.1:9000")
    assert not is_local("https://elsewhere.example")
    assert not is_local(None)
    with pytest.raises(BackendError, match="loopback only"):
        is_local("http://elsewhere.example")


def test_a_host_of_a_private_network_is_named_to_be_called_in_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_HTTP_HOSTS", "trainer, trainer-2")
    assert is_local("http://trainer:9000")
    assert is_local("http://trainer-2:9000")
    for other in ("http://elsewhere.example", "http://trainer.elsewhere.example", "http://"):
        with pytest.raises(BackendError, match="vertex_http_hosts"):
            is_local(other)


def test_one_endpoint_serves_every_region_and_the_logs() -> None:
    place = find_place(project="p", region="r", endpoint="http://127.0.0.1:9000/", connection=Connection({}))
    assert place.server("any") == place.logging_endpoint == "http://127.0.0.1:9000"


@pytest.mark.parametrize("region", ["other.invalid#", "other.invalid/", "r@other.invalid", "r?", "R", "r\n", "..", ""])
def test_a_region_cannot_name_another_server(region: str) -> None:
    place = find(project="p", region="r")
    for use in (place.server, place.parent_in):
        with pytest.raises(BackendError, match="not a region"):
            use(region)
