"""The state directory: one emulator at a time, and clear errors for an invalid directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlengine.core.errors import EmulatorError
from mlengine.emulator import state_dir
from mlengine.emulator.records import Store


def test_a_second_emulator_is_refused(tmp_path: Path) -> None:
    with (
        state_dir.locked(tmp_path / "state"),
        pytest.raises(EmulatorError, match=f"another emulator uses .* \\(process {os.getpid()}\\)"),
        state_dir.locked(tmp_path / "state"),
    ):
        pass
    with state_dir.locked(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o77 == 0


def test_a_directory_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(EmulatorError, match="cannot use the state directory"),
        state_dir.locked(tmp_path / "file" / "x"),
    ):
        pass


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"state": "NOPE"}'])
def test_a_file_that_is_not_a_record_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(EmulatorError, match=r"cannot read the job record .*broken\.json"):
        Store(tmp_path)
