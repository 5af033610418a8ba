"""The scheduler imports the modules that its tasks need; other components do not."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mlengine.core import software

_START = """
import sys
sys.argv = ["airflow", sys.argv[1]]
from mlengine.listeners import preload
from mlengine.plugin import MlenginePlugin
assert preload in MlenginePlugin.listeners
before = "google.cloud.storage" in sys.modules
preload.on_starting(component=None)
print(before, "google.cloud.storage" in sys.modules)
"""


@pytest.mark.parametrize(("component", "after"), [("scheduler", "True"), ("triggerer", "False")])
def test_only_the_scheduler_preloads(component: str, after: str, tmp_path: Path) -> None:
    plugins = Path(__file__).parents[3] / "plugins"
    done = subprocess.run(
        [sys.executable, "-c", _START, component],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(plugins), "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == ["False", after]


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
