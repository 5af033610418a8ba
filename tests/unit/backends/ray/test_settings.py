"""The Ray backend's settings follow the precedence of all settings."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from mlengine.backends.ray.settings import RaySettings
from mlengine.core.errors import SettingError
from mlengine.settings import SETTINGS

NO_FIELDS = {"ray_address", "ray_token", "ray_headers"}


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(SETTINGS[name].variable, raising=False)


def test_every_field_is_a_setting() -> None:
    names = {name for name in SETTINGS if name.startswith("ray_")}
    assert names == {f"ray_{field.name}" for field in fields(RaySettings)} | NO_FIELDS


def test_argument_and_connection_take_precedence_over_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_PLACEMENT", "SPREAD")
    monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_RESOURCES", '{"CPU": 2}')
    assert RaySettings.load().placement == "SPREAD"
    assert RaySettings.load().resources == {"CPU": 2}
    extra = {"ray_placement": "STRICT_PACK", "ray_resources": {"CPU": 3}}
    assert RaySettings.load(extra).placement == "STRICT_PACK"
    assert RaySettings.load(extra).resources == {"CPU": 3}
    assert RaySettings.load(extra, resources='{"CPU": 4}').resources == {"CPU": 4}


def test_the_job_file_takes_precedence_over_the_connection_only() -> None:
    extra = {"ray_placement": "STRICT_PACK", "ray_resources": {"CPU": 3}}
    job_file = {"placement": "SPREAD"}
    assert RaySettings.load(extra, job_file).placement == "SPREAD"
    assert RaySettings.load(extra, job_file).resources == {"CPU": 3}
    assert RaySettings.load(extra, job_file, placement="PACK").placement == "PACK"
    assert RaySettings.load(extra, job_file, placement=None).placement == "SPREAD"


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("False", False), (True, True), ("1", True), ("no", False)]
)
def test_autoscaling_must_be_true_or_false(text: Any, value: bool) -> None:
    assert RaySettings.load(autoscaling=text).autoscaling is value


@pytest.mark.parametrize(
    "given",
    [
        {"autoscaling": "maybe"},
        {"placement": "pack"},
        {"resources": "[1]"},
        {"resources": "{"},
        {"resources": {"CPU": "four"}},
        {"resources": {"CPU": -1}},
        {"resources": {"CPU": True}},
        {"resources": {"chief": 4}},
        {"resources": {"cpu": 4}},
        {"max_restarts": "many"},
        {"linger_seconds": -1},
        {"node_dir": "state/mlengine"},
        {"resources": {"TPU": 4}},
        {"runtime_env": {"working_dir": "gs://mine"}},
        {"runtime_env": {"env_vars": "A=1"}},
        {"runtime_env": {"env_vars": None}},
        {"runtime_env": '{"env_vars": {"A": 1}}'},
    ],
)
def test_an_invalid_value_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(given))):
        RaySettings.load(**given)


def test_a_record_without_keep_environments_has_the_default() -> None:
    record = RaySettings.load(keep_environments=3).to_json()
    del record["keep_environments"]
    assert RaySettings.from_json(record).keep_environments == 8


def test_a_job_keeps_its_settings() -> None:
    chosen = RaySettings.load(resources={"CPU": 1}, max_restarts=0)
    assert RaySettings.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


@pytest.mark.parametrize("path", ["", "/mnt/disk/mlengine", "~/mlengine"])
def test_a_relative_node_directory_is_refused(path: str) -> None:
    assert RaySettings.load(node_dir=path).node_dir == path
