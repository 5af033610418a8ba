"""Runs the shortest DAG through all stages: a trainer without TensorFlow, with sub-packages and data files."""

from __future__ import annotations

import pytest
from scripts.stack import Stack

from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import AirflowApi
from tests.e2e.stack.conftest import Ended

pytestmark = pytest.mark.e2e


def test_a_package_without_ml_frameworks_trains(hello: Ended, stack: Stack) -> None:
    assert hello.run.state == "success", hello.states()
    folder = JobDir(hello.result("retrain.prepare")["job_dir"])
    assert [stat for stat in stack.storage.ls(folder.model) if stat.size], "the model directory is empty"
    log = hello.log("retrain.wait")
    for replica in ("chief-0", "worker-0", "worker-1"):
        assert f"{replica} |" in log


def test_the_plugin_is_loaded_once_and_without_errors(api: AirflowApi) -> None:
    assert api.call("GET", "plugins/importErrors")["import_errors"] == []
    plugins = [plugin["name"] for plugin in api.call("GET", "plugins?limit=100")["plugins"]]
    assert plugins.count("mlengine") == 1
    assert api.import_errors() == {}
