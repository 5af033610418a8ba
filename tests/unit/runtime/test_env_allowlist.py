"""The environment variables that are passed to launchers and replicas, and those that never are."""

from __future__ import annotations

import pytest

from mlengine.runtime import env_allowlist

SECRETS = {
    "AIRFLOW__CORE__FERNET_KEY": "s",
    "AIRFLOW_CONN_DB": "s",
    "AIRFLOW_HOME": "s",
    "_AIRFLOW__AS_LIBRARY": "s",
    "DATABASE_URL": "s",
    "AWS_SECRET_ACCESS_KEY": "s",
    "PYTHONPATH": "s",
    "PYTHONSTARTUP": "s",
    "LD_PRELOAD": "s",
    "MY_TOKEN": "s",
    "XPATH": "s",
    "PATHS": "s",
}


def test_variables_outside_the_allowlist_are_not_passed() -> None:
    assert env_allowlist.for_replica(SECRETS) == {}
    assert env_allowlist.for_launcher(SECRETS) == {}


_NEEDED = """
    PATH HOME LANG LC_ALL TZ TMPDIR https_proxy NO_PROXY SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE
    STORAGE_EMULATOR_HOST GOOGLE_APPLICATION_CREDENTIALS CLOUDSDK_CONFIG GCS_RETRY_CONFIG_MAX_RETRIES
    TF_CPP_MIN_LOG_LEVEL
"""


@pytest.mark.parametrize("name", _NEEDED.split())
def test_variables_that_a_trainer_needs_are_passed(name: str) -> None:
    assert name in env_allowlist.for_replica({name: "x"})
    assert name in env_allowlist.for_launcher({name: "x"})


def test_installer_settings_are_passed_only_to_the_launcher() -> None:
    url = "https://user:password@index.invalid"
    env = {"UV_INDEX_URL": url, "PIP_INDEX_URL": url}
    assert env_allowlist.for_launcher(env) == env
    assert env_allowlist.for_replica(env) == {}


def test_airflows_settings_are_not_passed() -> None:
    """A job uses the settings in its record, with which it was submitted."""
    env = {"AIRFLOW__MLENGINE__LOCAL_MAX_RESTARTS": "2", "AIRFLOW__CORE__FERNET_KEY": "k", "AIRFLOW_HOME": "/airflow"}
    assert env_allowlist.for_launcher(env) == env_allowlist.for_replica(env) == {}


def test_pips_settings_are_passed_to_a_replica_without_passwords() -> None:
    env = {
        "PIP_INDEX_URL": "https://user:password@index.invalid/simple",
        "PIP_EXTRA_INDEX_URL": "https://index.invalid/simple",
        "PIP_FIND_LINKS": "/wheels",
        "PIP_CERT": "/ca.pem",
    }
    assert env_allowlist.for_launcher(env) == env
    assert env_allowlist.for_replica(env) == {name: env[name] for name in env if name != "PIP_INDEX_URL"}
    assert env_allowlist.for_replica({"PIP_TARGET": "/host", "PIP_USER": "1"}) == {}


def test_gcsfs_is_configured_for_a_storage_emulator() -> None:
    name, emulator = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"}
    assert env_allowlist.for_replica(emulator)[name] == "false"
    assert env_allowlist.for_replica({**emulator, name: "true"})[name] == "true"
    assert name not in env_allowlist.for_replica({"PATH": "/bin"})


def test_tf_config_of_the_parent_is_not_passed() -> None:
    env = {"TF_CONFIG": "{}", env_allowlist.MARK: "/another/job"}
    assert env_allowlist.for_launcher(env) == env_allowlist.for_replica(env) == {}


def test_loopback_is_excluded_from_proxies() -> None:
    env = env_allowlist.for_replica({"https_proxy": "http://p", "no_proxy": "example.org,localhost"})
    assert env["no_proxy"] == "example.org,localhost,127.0.0.1"
    assert env["NO_PROXY"] == "127.0.0.1,localhost"
    assert "NO_PROXY" not in env_allowlist.for_replica({"PATH": "/bin"})
