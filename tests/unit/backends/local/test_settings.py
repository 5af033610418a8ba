"""The sources of settings, and rejected values."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.backends.local import settings
from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.local.settings import Settings
from mlengine.core.errors import BackendError, SettingError
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.settings import SETTINGS


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_cores", lambda: 2)
    for name in SETTINGS:
        monkeypatch.delenv(f"AIRFLOW__MLENGINE__{name.upper()}", raising=False)
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)


def test_arguments_take_precedence_over_environment_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings.load().max_concurrent_jobs, Settings.load().max_workers, Settings.load().max_ps) == (1, 2, 1)
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_MAX_WORKERS", "4")
    assert Settings.load().max_workers == 4
    assert Settings.load(max_workers=3, max_concurrent_jobs=None).max_workers == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_CONCURRENT_JOBS", "many"),
        ("MAX_CONCURRENT_JOBS", "0"),
        ("MAX_WORKERS", "-1"),
        ("RESTART_BACKOFF_SECONDS", "soon"),
    ],
)
def test_an_invalid_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__MLENGINE__LOCAL_{name}", value)
    with pytest.raises(SettingError, match=f"local_{name.lower()}.*\n.*AIRFLOW__MLENGINE__LOCAL_{name}"):
        Settings.load()


def test_defaults_equal_those_of_the_settings() -> None:
    assert {f"local_{name}" for name in Settings.load().to_json()} | {"local_state_dir"} == {
        name for name in SETTINGS if name.startswith("local_")
    }
    for name, value in Settings.load().to_json().items():
        default = SETTINGS[f"local_{name}"].default
        assert default in {"", f"{value:g}" if isinstance(value, float) else str(value)}, name


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(BackendError, match=r"no setting.*capasity"):
        Settings.load(capasity=3)


def test_settings_are_read_back_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings.load(max_concurrent_jobs=7, python_path="/usr/bin/python3", restart_backoff_seconds=0.5)
    assert Settings.from_json(given.to_json()) == given
    assert Settings.from_json({**given.to_json(), "of_a_later_version": 1}) == given
    default = Settings.load()
    for name in ("PYTHON_PATH", "MAX_RESTARTS"):
        monkeypatch.setenv(f"AIRFLOW__MLENGINE__LOCAL_{name}", "77")
    assert Settings.from_json(default.to_json()) == default


def test_a_record_is_read_independently_of_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = Settings.load().to_json()
    (tmp_path / "airflow.cfg").write_text("[mlengine]\nnonsense\n")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert Settings.from_json(kept).to_json() == kept


def test_reduced_replica_counts_are_reported(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path, max_workers=2, max_ps=1, gpus="0")
    pools = (
        Pool(Role.CHIEF, 1, accelerator_type="NVIDIA_TESLA_T4", accelerator_count=1),
        Pool(Role.WORKER, 4),
        Pool(Role.PS, 3),
    )
    small, words = backend.cap(TrainingSpec(module="t", pools=pools))
    assert (small.count(Role.CHIEF), small.count(Role.WORKER), small.count(Role.PS)) == (1, 2, 1)
    assert words == [
        "worker: 4 requested, 2 will run (local_max_workers=2)",
        "ps: 3 requested, 1 will run (local_max_ps=1)",
        "chief: 1 NVIDIA_TESLA_T4 requested; this machine has none, so the replica trains on the CPU",
    ]


def test_a_job_within_the_limits_is_not_changed(tmp_path: Path) -> None:
    spec = TrainingSpec(module="t", pools=(Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2)))
    assert LocalBackend(tmp_path, max_workers=2).cap(spec) == (spec, [])
