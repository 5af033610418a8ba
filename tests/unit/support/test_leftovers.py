"""The check for processes that a stack leaves running."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.support.leftovers import MARK, left_running


@pytest.mark.parametrize("where", ["environment", "folder"])
def test_a_process_that_was_left_running_is_found_until_it_ends(where: str, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    env = {**os.environ, MARK: mark} if where == "environment" else None
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env=env,
        cwd=tmp_path if where == "folder" else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = left_running(tmp_path, mark)
        assert found.startswith(f"{process.pid} ")
        assert left_running(tmp_path / "another", "another") == []
    assert left_running(tmp_path, mark) == []
