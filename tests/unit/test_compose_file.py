"""docker-compose.yaml and its env files: the rules for each service. ``make test-compose`` runs the services."""

from __future__ import annotations

import re
import runpy
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts import compose_env, lock

from mlengine.cli import build_parser
from mlengine.settings import SETTINGS
from mlengine.testing.gcs import CLIENT_SETTINGS

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ONCE = {"init", "datasets"}  # services that exit
EVERY = pytest.mark.parametrize("name", sorted(SERVICES))
_VARIABLE = re.compile(r"\$\{(\w+)(:[-?])?")


@EVERY
def test_a_service_has_limits_and_minimal_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert "privileged" not in service
    # Only the database starts as root, because it must take ownership of its volume.
    assert ("cap_add" in service) == (name == "postgres")


@EVERY
def test_a_service_has_a_health_check_and_a_restart_policy(name: str) -> None:
    service = SERVICES[name]
    assert ("healthcheck" in service) == (name not in ONCE)
    assert service["restart"] == {"init": "no", "datasets": "on-failure"}.get(name, "unless-stopped")


def test_commands_of_mlengine_exist() -> None:
    commands = [
        service["command"][1:] for service in SERVICES.values() if service.get("command", [""])[0] == "mlengine"
    ]
    assert commands
    emulator = runpy.run_path(str(ROOT / "deploy" / "trainer.py"))["EMULATOR"]
    for command in [*commands, emulator[1:]]:
        assert build_parser().parse_args(command).handler


@EVERY
def test_ports_are_on_loopback_by_default(name: str) -> None:
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in SERVICES[name].get("ports", ()))


def test_databases_and_services_that_run_code_publish_no_ports() -> None:
    inside = ("postgres", "redis", "trainer", "worker", "scheduler", "ray-head", "ray-worker")
    assert not [name for name in inside if "ports" in SERVICES[name]]
    assert FILE["networks"]["database"] == {"internal": True}


def test_jobs_have_no_secrets_and_no_access_to_databases() -> None:
    for name in ("trainer", "gcs", "datasets", "tensorboard", "ray-head", "ray-worker"):
        assert SERVICES[name]["networks"] == ["training"]
        assert not [value for value in SERVICES[name].get("environment", {}).values() if ":?" in str(value)]


def test_celery_workers_have_neither_the_database_nor_the_keys() -> None:
    names = set(SERVICES["worker"]["environment"])
    assert not {name for name in names if re.search("SQL_ALCHEMY|FERNET|SECRET|JWT|PASSWORD", name)}
    assert "AIRFLOW__CELERY__BROKER_URL" in names


def test_every_image_has_a_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for service in SERVICES.values():
        tag = service["image"].rstrip("}").rpartition(":")[2]
        assert tag[0].isdigit(), service["image"]
        assert not service["image"].startswith("${MLENGINE_IMAGE") or tag == version


def test_older_versions_of_compose_accept_the_file() -> None:
    """Compose 1.29 rejects newer top-level keys such as the project's name; it does not need a version."""
    assert not {"version", "name", "include", "secrets", "configs"} & set(FILE)


def test_env_files_are_created_once_and_readable_only_by_their_owner(tmp_path: Path) -> None:
    made = compose_env.write(tmp_path)
    assert [path.name for path in made] == [".env", "mlengine.env"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    before = [path.read_bytes() for path in made]
    assert compose_env.write(tmp_path) == []
    assert [path.read_bytes() for path in made] == before
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/.env", "/mlengine.env"} <= set(ignored)


def test_the_generated_env_file_has_all_required_variables(tmp_path: Path) -> None:
    compose_env.write(tmp_path)
    made = {line.partition("=")[0] for line in (tmp_path / ".env").read_text().splitlines()}
    asked = _VARIABLE.findall((ROOT / "docker-compose.yaml").read_text())
    assert {name for name, default in asked if default != ":-"} <= made


def test_the_settings_exist(tmp_path: Path) -> None:
    compose_env.write(tmp_path)
    names = re.findall(r"^#?AIRFLOW__MLENGINE__(\w+)=", (tmp_path / "mlengine.env").read_text(), re.MULTILINE)
    assert names
    assert {name.lower() for name in names} <= set(SETTINGS)


def test_gcsfs_is_configured_for_the_storage_emulator(tmp_path: Path) -> None:
    compose_env.write(tmp_path)
    lines = (tmp_path / "mlengine.env").read_text().splitlines()
    assert {"STORAGE_EMULATOR_HOST=http://gcs:9023", *(f"{k}={v}" for k, v in CLIENT_SETTINGS.items())} <= set(lines)


def test_the_image_lock_has_only_packages_missing_in_the_other() -> None:
    run, image = ((ROOT / name).read_text() for name in ("requirements.lock", "requirements-image.lock"))
    assert lock.beyond(image, run) == image
    assert lock.beyond(run, run) == ""
    assert {"apache-airflow-providers-postgres", "apache-airflow-providers-celery"} <= set(
        re.findall(r"^([\w.-]+)==", image, re.MULTILINE)
    )
    assert len(re.findall(r"^\S+==", image, re.MULTILINE)) <= image.count("--hash=sha256:")
