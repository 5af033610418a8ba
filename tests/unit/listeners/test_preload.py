"""What the plugin's file costs in each task. ``test_starting.py`` tests the listener that preloads modules."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from mlengine.core import software


def test_installed_packages_are_read_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow reads the plugin's file in each task, but each task is forked from a scheduler that has read it."""
    asked: list[str] = []

    def version(name: str) -> str:
        asked.append(name)
        return "1.0"

    monkeypatch.setattr(software, "version", version)
    software.installed.cache_clear()
    try:
        for _ in range(2):
            found = runpy.run_path(str(Path(__file__).parents[3] / "plugins" / "mlengine_plugin.py"))
            assert "MlenginePlugin" not in found, "the entry point must register the listener"
    finally:
        software.installed.cache_clear()
    assert asked == ["mlengine"]
