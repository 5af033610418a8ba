"""The directory of local jobs, environments and datasets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mlengine.runtime.state_dir import is_full, state_dir


def test_argument_setting_airflow_home_and_home_take_precedence_in_this_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", raising=False)
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_dir() == tmp_path / ".local" / "state" / "mlengine"
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    assert state_dir() == tmp_path / "airflow" / "mlengine"
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(tmp_path / "state"))
    assert state_dir() == tmp_path / "state"
    assert state_dir("~/mine") == tmp_path / "mine"


def test_a_disk_is_full_if_users_cannot_write_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not is_full(tmp_path)
    assert not is_full(tmp_path / "deleted")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=1 << 40, used=1 << 40, free=4096))
    assert is_full(tmp_path)
