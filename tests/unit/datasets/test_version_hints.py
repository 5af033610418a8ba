"""The file of version hints for trigger forms: no content of it raises an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.datasets.version_hints import MOST, known_versions, note_versions


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("AIRFLOW__MLENGINE__PARAM_HINTS_DIR", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    return tmp_path / "mlengine"


def test_the_newest_version_is_first() -> None:
    assert known_versions("mnist") == []
    note_versions("mnist", ["2026-06-01", "2026-07-01"])
    assert known_versions("mnist") == ["2026-07-01", "2026-06-01"]
    assert known_versions("other") == []


def test_the_number_of_hints_is_limited() -> None:
    note_versions("mnist", [f"v{number}" for number in range(1000)])
    assert known_versions("mnist")[0] == "v999"
    assert len(known_versions("mnist")) == MOST


@pytest.mark.parametrize("content", ["", "{", "7", '{"a": 1}', '[1, "v1"]', "[" * 100_000, "\x00"])
def test_a_damaged_hint_file_proposes_nothing_invalid(home: Path, content: str) -> None:
    home.mkdir()
    (home / "versions-mnist.json").write_text(content)
    assert set(known_versions("mnist")) <= {"v1"}


def test_a_hint_file_that_cannot_be_written_is_skipped(home: Path) -> None:
    home.write_text("a file where the folder should be")
    note_versions("mnist", ["v1"])
    assert known_versions("mnist") == []


def test_the_folder_of_the_hints_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__PARAM_HINTS_DIR", str(tmp_path / "shared"))
    note_versions("mnist", ["v1"])
    assert (tmp_path / "shared" / "versions-mnist.json").exists()
    assert known_versions("mnist") == ["v1"]
