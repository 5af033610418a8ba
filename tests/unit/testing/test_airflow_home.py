"""An AIRFLOW_HOME: persistent and private secrets, and settings that affect only this Airflow."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest

from mlengine.testing.airflow_home import AirflowConfig, emulator_connection, environment, prepare


def read(home: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(home / "airflow.cfg", encoding="utf-8")
    return parser


def test_secrets_are_generated_once_and_private(tmp_path: Path) -> None:
    config = AirflowConfig(home=tmp_path / "home", dags=tmp_path)
    first = prepare(config, 8080)
    before = read(config.home)
    assert prepare(config, 8081) == first
    after = read(config.home)
    for section, key in (("core", "fernet_key"), ("api_auth", "jwt_secret"), ("api", "secret_key")):
        assert before[section][key] == after[section][key]
    assert config.home.stat().st_mode & 0o077 == 0
    for name in ("airflow.cfg", "secrets.json", "passwords.json"):
        assert (config.home / name).stat().st_mode & 0o077 == 0, name
    assert json.loads((config.home / "passwords.json").read_text()) == {"admin": first}
    assert prepare(AirflowConfig(home=tmp_path / "other", dags=tmp_path), 8080) != first


def test_airflow_listens_on_loopback_and_requires_a_login(tmp_path: Path) -> None:
    config = AirflowConfig(home=tmp_path / "home", dags=tmp_path)
    prepare(config, 12345)
    written = read(config.home)
    assert written["api"]["host"] == "127.0.0.1"
    assert written["api"]["port"] == "12345"
    assert written["core"]["execution_api_server_url"] == "http://127.0.0.1:12345/execution/"
    assert written["core"]["simple_auth_manager_all_admins"] == "False"


def test_a_scheduler_that_waited_for_the_database_does_not_reset_its_tasks(tmp_path: Path) -> None:
    """A heartbeat has the time at which it began to wait for the database, and no newer one is stored until then."""
    prepare(AirflowConfig(home=tmp_path / "home", dags=tmp_path), 1)
    written = read(tmp_path / "home")
    lock_seconds = int(written["database"]["sql_alchemy_conn"].rpartition("timeout=")[2])
    assert int(written["scheduler"]["scheduler_health_check_threshold"]) > 2 * lock_seconds


def test_settings_of_the_caller_take_precedence(tmp_path: Path) -> None:
    config = AirflowConfig(home=tmp_path / "home", dags=tmp_path, settings={"core.parallelism": "2", "a.b": "100 %"})
    prepare(config, 1)
    assert read(config.home)["core"]["parallelism"] == "2"
    assert read(config.home)["a"]["b"] == "100 %"


def test_another_airflow_in_the_environment_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("NO_PROXY", "example.test")
    env = environment(AirflowConfig(home=tmp_path, dags=tmp_path, env=emulator_connection()))
    assert env["AIRFLOW_HOME"] == str(tmp_path)
    assert "AIRFLOW__CORE__EXECUTOR" not in env
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert env["NO_PROXY"] == "example.test,127.0.0.1,localhost"
    assert json.loads(env["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"])["extra"]["is_anonymous"] is True
