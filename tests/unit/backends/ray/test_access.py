"""Address and credentials of a Ray cluster."""

from __future__ import annotations

import pytest

from mlengine.backends.ray.access import Access
from mlengine.core.errors import BackendError, SettingError


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADDRESS", "TOKEN", "HEADERS"):
        monkeypatch.setenv(f"AIRFLOW__MLENGINE__RAY_{name}", "")


def test_arguments_take_precedence_over_connection_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"ray_address": "https://of-connection", "ray_token": "t", "ray_headers": {"X-Team": "a"}}
    assert Access.find(extra=extra) == Access("https://of-connection", {"X-Team": "a", "Authorization": "Bearer t"})
    assert Access.find("http://argument:8265/", extra=extra).address == "http://argument:8265"
    monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_ADDRESS", "http://configured:8265")
    assert Access.find() == Access("http://configured:8265", {})


@pytest.mark.parametrize(
    "address",
    ["ray://head:10001", "head:8265", "127.0.0.1:6379", "http://", "ftp://head", "http://h:x", "http://h:99999"],
)
def test_an_address_other_than_a_dashboard_is_refused(address: str) -> None:
    with pytest.raises(BackendError, match="not the URL of a Ray dashboard"):
        Access.find(address)


def test_an_address_is_needed() -> None:
    with pytest.raises(BackendError, match="no address of a Ray cluster"):
        Access.find()


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(BackendError) as error:
        Access.find("http://user:hush@head:8265")
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("token", ["abc\ndef", "abc€"])
def test_a_token_invalid_in_a_header_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingError, match="ray_token") as error:
        Access.find("http://head:8265", token=token)
    assert "abc" not in str(error.value)


@pytest.mark.parametrize("headers", ["[]", "x", '{"a b": "1"}', '{"a": "1\\n2"}', '{"a": "1€"}'])
def test_headers_must_be_valid(headers: str) -> None:
    with pytest.raises(SettingError, match="ray_headers"):
        Access.find("http://head:8265", headers=headers)


def test_secrets_are_not_in_the_representation() -> None:
    assert "hush" not in repr(Access.find("http://head:8265", token="hush"))
