"""The environment of uv: the system's certificates, and uv's equivalents of pip's variables."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from mlengine.runtime import uv_env
from mlengine.runtime.uv_env import index_options, install_options, uv_environment


@pytest.fixture(autouse=True)
def no_system_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv_env, "has_system_certificates", lambda: False)


@pytest.mark.parametrize(
    ("variable", "value", "uv_variable", "uv_value"),
    [
        ("PIP_INDEX_URL", "https://pypi.example/simple", "UV_DEFAULT_INDEX", "https://pypi.example/simple"),
        ("PIP_EXTRA_INDEX_URL", "https://a.example https://b.example", "UV_INDEX", "https://a.example https://b.example"),
        ("PIP_FIND_LINKS", "https://a.example/whl https://b.example", "UV_FIND_LINKS", "https://a.example/whl,https://b.example"),
        ("PIP_TRUSTED_HOST", "a.example b.example:8443", "UV_INSECURE_HOST", "a.example b.example:8443"),
        ("PIP_CERT", "/etc/company.pem", "SSL_CERT_FILE", "/etc/company.pem"),
        ("PIP_CLIENT_CERT", "/etc/me.pem", "SSL_CLIENT_CERT", "/etc/me.pem"),
        ("PIP_CONSTRAINT", "/a.txt /b.txt", "UV_CONSTRAINT", "/a.txt /b.txt"),
        ("PIP_BUILD_CONSTRAINT", "/a.txt", "UV_BUILD_CONSTRAINT", "/a.txt"),
        ("PIP_PRE", "true", "UV_PRERELEASE", "allow"),
        ("PIP_DEFAULT_TIMEOUT", "7.5", "UV_HTTP_TIMEOUT", "8"),
        ("PIP_TIMEOUT", "60", "UV_HTTP_TIMEOUT", "60"),
        ("PIP_RETRIES", "9", "UV_HTTP_RETRIES", "9"),
        ("PIP_PROXY", "http://proxy.example:3128", "ALL_PROXY", "http://proxy.example:3128"),
        ("PIP_KEYRING_PROVIDER", "subprocess", "UV_KEYRING_PROVIDER", "subprocess"),
    ],
)  # fmt: skip
def test_pips_variables_are_translated(variable: str, value: str, uv_variable: str, uv_value: str) -> None:
    assert uv_environment({variable: value}) == {variable: value, uv_variable: uv_value}
    # Variables for uv itself are kept.
    assert uv_environment({variable: value, uv_variable: "mine"})[uv_variable] == "mine"


@pytest.mark.parametrize(
    "env",
    [
        {"PIP_INDEX_URL": ""},  # docker compose passes a variable that is not set as an empty string
        {"PIP_PRE": "0"},
        {"PIP_TIMEOUT": "soon"},
        {"PIP_KEYRING_PROVIDER": "import"},
        {"PIP_CACHE_DIR": "/cache"},
        {"PIP_INDEX_URL": "https://a.example", "UV_INDEX_URL": "https://b.example"},
        {"PIP_PROXY": "http://a.example", "https_proxy": "http://b.example"},
    ],
)
def test_variables_without_meaning_for_uv_are_ignored(env: dict[str, str]) -> None:
    assert uv_environment(env) == env


def test_an_empty_variable_of_uv_counts_as_unset() -> None:
    env = {"PIP_INDEX_URL": "https://a.example", "UV_DEFAULT_INDEX": ""}
    assert uv_environment(env)["UV_DEFAULT_INDEX"] == "https://a.example"


def test_a_missing_find_links_directory_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    monkeypatch.chdir(tmp_path)
    env = uv_environment({"PIP_FIND_LINKS": f"wheels {tmp_path}/none file:///also/none"})
    assert env["UV_FIND_LINKS"] == f"{tmp_path}/wheels,file:///also/none"


def test_only_pip_variables_of_a_job_apply_and_take_precedence() -> None:
    parent = {"UV_DEFAULT_INDEX": "https://a.example", "PIP_INDEX_URL": "https://b.example"}
    job = {"PIP_INDEX_URL": "https://c.example", "UV_INDEX": "https://d.example", "PATH": "/mine"}
    env = uv_environment(parent, job)
    assert env == {"UV_DEFAULT_INDEX": "https://c.example", "PIP_INDEX_URL": "https://c.example"}


def test_variables_become_options_of_uv() -> None:
    assert index_options({}) == install_options({}) == []
    env = {"PIP_NO_INDEX": "1", "PIP_NO_BINARY": "a,b", "PIP_ONLY_BINARY": ":all:"}
    assert index_options(env) == ["--no-index"]
    assert install_options(env) == [
        *("--no-index", "--no-binary", "a", "--no-binary", "b", "--only-binary", ":all:"),
    ]


def test_the_systems_certificates_are_trusted_if_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv_env, "has_system_certificates", lambda: True)
    assert uv_environment({}) == {"UV_SYSTEM_CERTS": "true"}
    for own in ({"UV_SYSTEM_CERTS": "false"}, {"UV_NATIVE_TLS": "0"}):
        assert uv_environment(own) == own


def test_the_systems_certificates_are_searched_in_known_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # undoes the changes of the fixture
    folder, file = tmp_path / "certs", tmp_path / "cert.pem"

    def paths(cafile: Any, capath: Any) -> None:
        found = ssl.DefaultVerifyPaths(cafile, capath, "", "", "", "")
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: found)

    paths(None, None)
    assert not uv_env.has_system_certificates()
    paths(None, folder)
    assert not uv_env.has_system_certificates()
    folder.mkdir()
    assert not uv_env.has_system_certificates()
    (folder / "ca-certificates.crt").touch()
    assert uv_env.has_system_certificates()
    paths(str(file), None)
    assert uv_env.has_system_certificates()


def test_the_callers_environment_is_not_changed() -> None:
    before = dict(os.environ)
    uv_environment(os.environ, {"PIP_INDEX_URL": "https://a.example"})
    assert dict(os.environ) == before
