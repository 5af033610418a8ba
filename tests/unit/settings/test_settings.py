"""The rule of precedence, for every setting and every source."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine import settings
from mlengine.core.errors import SettingError
from mlengine.hooks import form
from mlengine.settings import SETTINGS, Setting

ALL = list(SETTINGS.values())
NUMBERS = [setting for setting in ALL if setting.kind != "string"]


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An Airflow home of one's own. No variable sets anything."""
    for setting in ALL:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("AIRFLOW_CONFIG", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    return tmp_path / "airflow.cfg"


def write(config: Path, **values: str) -> None:
    lines = [f"{name} = {value}" for name, value in values.items()]
    config.write_text("\n".join(["[core]", "bucket = of another section", "[mlengine]", *lines, "[webserver]", ""]))


def values(setting: Setting, number: int) -> list[str]:
    """That many values that the setting may have, each another one."""
    return [str(index + 11) if setting.kind != "string" else f"value-{index}" for index in range(number)]


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_argument_then_connection_then_variable_then_file_then_default(
    setting: Setting, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argument, connection, variable, file = values(setting, 4)
    assert settings.get(setting.name) == setting.default
    write(config, **{setting.name: file})
    assert settings.get(setting.name) == file
    monkeypatch.setenv(setting.variable, variable)
    assert settings.get(setting.name) == variable
    for name in setting.extra:
        assert settings.get(setting.name, None, {name: connection}) == connection
        assert settings.get(setting.name, argument, {name: connection}) == argument
    assert settings.get(setting.name, argument) == argument
    assert settings.get(setting.name, "", {"unrelated": "x"}) == variable


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_a_connection_decides_only_what_the_setting_allows(setting: Setting) -> None:
    from_connection = settings.get(setting.name, None, {setting.name: "17"}) == "17"
    assert from_connection == (setting.name in setting.extra)


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_the_connection_form_has_a_field_for_what_a_connection_may_decide(setting: Setting) -> None:
    assert not setting.extra or set(setting.extra) & form.FIELDS.keys()


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
def test_a_number_that_is_none_is_refused_with_its_source(
    setting: Setting, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = settings.get_int if setting.kind == "integer" else settings.get_float
    for wrong in ("soon", "nan", str(setting.minimum - 1)):
        with pytest.raises(SettingError, match=f"{setting.name} must be .*{wrong}") as error:
            get(setting.name, wrong)
        assert error.value.hint == f"correct the argument {setting.name}"
    write(config, **{setting.name: "soon"})
    with pytest.raises(SettingError) as error:
        get(setting.name)
    assert error.value.hint == f"correct [mlengine] {setting.name} in {config}"
    monkeypatch.setenv(setting.variable, "soon")
    with pytest.raises(SettingError) as error:
        get(setting.name)
    assert error.value.hint == f"correct {setting.variable}"


def test_integers_may_be_written_as_numbers() -> None:
    assert settings.get_int("max_attempts", 4.0) == settings.get_int("max_attempts", "4.0") == 4
    for wrong in (2.5, "inf"):
        with pytest.raises(SettingError, match="max_attempts must be an integer"):
            settings.get_int("max_attempts", wrong)


def test_a_variable_that_is_empty_hides_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, backend="vertex")
    monkeypatch.setenv("AIRFLOW__MLENGINE__BACKEND", "")
    assert settings.get("backend") == "local"


def test_the_file_is_read_again_when_it_changes(config: Path) -> None:
    write(config, bucket="gs://one")
    assert settings.get("bucket") == "gs://one"
    write(config, bucket="gs://another")
    assert settings.get("bucket") == "gs://another"
    config.unlink()
    assert not settings.get("bucket")


def test_the_file_has_another_place(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "other.cfg", bucket="gs://other")
    write(config, bucket="gs://home")
    monkeypatch.setenv("AIRFLOW_CONFIG", "$AIRFLOW_HOME/other.cfg")
    assert settings.get("bucket") == "gs://other"


@pytest.mark.parametrize("content", [b"[mlengine]\nnonsense\n", b"[mlengine]\nbucket = %(x\n", b"[mlengine]\n\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    with pytest.raises(SettingError, match=r"airflow\.cfg cannot be read"):
        settings.get("bucket")


def test_a_name_that_is_no_setting() -> None:
    with pytest.raises(KeyError):
        settings.get("no_such_setting")


def test_durations_name_their_unit() -> None:
    for setting in NUMBERS:
        assert ("econds" in setting.description) == setting.name.endswith("_seconds"), setting.name
