"""The rule of precedence, for every setting and every source."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine import settings
from mlengine.core.errors import SettingError
from mlengine.hooks import form
from mlengine.settings import SETTINGS, Found, Setting

ALL = list(SETTINGS.values())
NUMBERS = [setting for setting in ALL if setting.kind != "string"]


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The configuration file in a new Airflow home, with no environment variable set."""
    for setting in ALL:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("AIRFLOW_CONFIG", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    return tmp_path / "airflow.cfg"


def write(config: Path, **values: str) -> None:
    lines = [f"{name} = {value}" for name, value in values.items()]
    config.write_text("\n".join(["[core]", "bucket = of another section", "[mlengine]", *lines, "[webserver]", ""]))


def values(setting: Setting, number: int) -> list[str]:
    """The given number of different valid values of the setting."""
    return [str(index + 11) if setting.kind != "string" else f"value-{index}" for index in range(number)]


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_argument_connection_variable_file_and_default_take_precedence_in_this_order(
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
    for empty in ("", "None"):
        assert settings.get(setting.name, empty, {"unrelated": "x"}) == variable


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_a_connection_can_change_only_permitted_settings(setting: Setting) -> None:
    from_connection = settings.get(setting.name, None, {setting.name: "17"}) == "17"
    assert from_connection == (setting.name in setting.extra)


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_the_connection_form_has_a_field_for_each_permitted_setting(setting: Setting) -> None:
    assert not setting.extra or set(setting.extra) & form.FIELDS.keys()


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
def test_an_invalid_number_is_refused_with_its_source(
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


def test_an_empty_variable_overrides_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_file_can_be_in_another_place(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "other.cfg", bucket="gs://other")
    write(config, bucket="gs://home")
    monkeypatch.setenv("AIRFLOW_CONFIG", "$AIRFLOW_HOME/other.cfg")
    assert settings.get("bucket") == "gs://other"


@pytest.mark.parametrize("content", [b"[mlengine]\nnonsense\n", b"[mlengine]\nbucket = %(x\n", b"[mlengine]\n\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    with pytest.raises(SettingError, match=r"airflow\.cfg (cannot be read|contains an invalid % reference)"):
        settings.get("bucket")


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(KeyError):
        settings.get("no_such_setting")


def test_names_of_durations_contain_the_unit() -> None:
    for setting in NUMBERS:
        assert ("econds" in setting.description) == setting.name.endswith("_seconds"), setting.name


BACKEND = "tests.support.secrets_backend.OneSecret"


class TestSecrets:
    """``_CMD`` and ``_SECRET``, in Airflow's order: variables first, then the file."""

    def test_a_secret_can_come_from_a_command(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(config, ray_token_cmd="echo of the $RAY_TOKEN_SOURCE")
        monkeypatch.setenv("RAY_TOKEN_SOURCE", "file")
        assert settings.get("ray_token") == "of the file"
        monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_TOKEN_CMD", "printf 'a b\\n'")
        assert settings.find("ray_token") == Found("a b", "AIRFLOW__MLENGINE__RAY_TOKEN_CMD")
        monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_TOKEN", "plain")
        assert settings.get("ray_token") == "plain"
        assert settings.get("ray_token", None, {"ray_token": "connection"}) == "connection"

    def test_the_plain_value_in_the_file_comes_first(self, config: Path) -> None:
        write(config, ray_token="plain", ray_token_cmd="false")
        assert settings.get("ray_token") == "plain"

    @pytest.mark.parametrize("command", ["sh -c 'echo hush; echo broken >&2; exit 3'", "/nowhere/command", "'"])
    def test_a_failed_command_is_an_error(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_TOKEN_CMD", command)
        with pytest.raises(SettingError, match="AIRFLOW__MLENGINE__RAY_TOKEN_CMD: the command") as error:
            settings.get("ray_token")
        assert "hush" not in str(error.value)

    def test_a_secret_can_come_from_airflows_secrets_backend(
        self, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", BACKEND)
        monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_TOKEN_SECRET", "ray/token")
        assert settings.get("ray_token") == "of the backend"
        monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_TOKEN_SECRET", "other")
        with pytest.raises(SettingError, match="RAY_TOKEN_SECRET: Airflow's secrets backend has no value 'other'"):
            settings.get("ray_token")
        monkeypatch.delenv("AIRFLOW__MLENGINE__RAY_TOKEN_SECRET")
        write(config, ray_token_secret="ray/token")
        assert settings.get("ray_token") == "of the backend"
        monkeypatch.delenv("AIRFLOW__SECRETS__BACKEND")
        with pytest.raises(SettingError, match="Airflow has no secrets backend for 'ray/token'"):
            settings.get("ray_token")

    def test_airflow_reads_the_same_value(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.configuration import conf

        monkeypatch.setitem(conf.__dict__, "sensitive_config_values", {("mlengine", "ray_token")})
        monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", BACKEND)
        for name, value in (("SECRET", "ray/token"), ("CMD", "printf a")):
            monkeypatch.setenv(f"AIRFLOW__MLENGINE__RAY_TOKEN_{name}", value)
            assert settings.get("ray_token") == conf.get("mlengine", "ray_token")

    def test_only_secrets_can_come_from_a_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__MLENGINE__BACKEND_CMD", "echo vertex")
        assert settings.get("backend") == "local"


def test_a_percent_sign_in_an_option_does_not_affect_others_or_leak_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "airflow.cfg").write_text("[mlengine]\nray_token = abc%SECRET\nbucket = gs://bkt\n")
    monkeypatch.setenv("AIRFLOW_CONFIG", str(tmp_path / "airflow.cfg"))
    for name in ("BUCKET", "RAY_TOKEN"):
        monkeypatch.delenv(f"AIRFLOW__MLENGINE__{name}", raising=False)
    assert settings.get("bucket") == "gs://bkt"
    with pytest.raises(SettingError, match="ray_token in ") as caught:
        settings.get("ray_token")
    assert "SECRET" not in str(caught.value)
    assert "%%" in caught.value.hint
    (tmp_path / "airflow.cfg").write_text("[mlengine]\nbucket = gs://bkt\nSECRET\n")
    with pytest.raises(SettingError, match="line 2 of its section") as caught:
        settings.get("bucket")
    assert "SECRET" not in str(caught.value)
