"""The rule of precedence for project, region and endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.backends.vertex.location import Connection, VertexLocation, find_location, is_local
from mlengine.core.errors import BackendError


def find(**given: Any) -> VertexLocation:
    return find_location(**{"project": None, "region": None, "endpoint": None, "connection": Connection({}), **given})


def test_argument_job_file_connection_and_setting_take_precedence_in_this_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_a_missing_value_is_an_error_that_names_where_to_set_it() -> None:
    with pytest.raises(BackendError, match="no Google Cloud project"):
        find(region="r")
    with pytest.raises(BackendError, match="no region") as caught:
        find(project="p").parent()
    assert "vertex_region" in caught.value.hint


def test_a_token_is_never_sent_in_plain_text() -> None:
    assert is_local("http://127.0.0.1:9000")
    assert not is_local("https://elsewhere.example")
    assert not is_local(None)
    with pytest.raises(BackendError, match="loopback only"):
        is_local("http://elsewhere.example")


def test_http_hosts_of_a_private_network_must_be_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_HTTP_HOSTS", "trainer, trainer-2")
    assert is_local("http://trainer:9000")
    assert is_local("http://trainer-2:9000")
    for other in ("http://elsewhere.example", "http://trainer.elsewhere.example", "http://"):
        with pytest.raises(BackendError, match="vertex_http_hosts"):
            is_local(other)


def test_a_custom_endpoint_serves_every_region_and_the_logs() -> None:
    location = find_location(project="p", region="r", endpoint="http://127.0.0.1:9000/", connection=Connection({}))
    assert location.server("any") == location.logging_endpoint == "http://127.0.0.1:9000"


@pytest.mark.parametrize("region", ["other.invalid#", "other.invalid/", "r@other.invalid", "r?", "R", "r\n", "..", ""])
def test_a_region_cannot_name_another_server(region: str) -> None:
    location = find(project="p", region="r")
    for use in (location.server, location.parent_in):
        with pytest.raises(BackendError, match="not a region"):
            use(region)
