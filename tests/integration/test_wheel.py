"""Tests the built wheel in another Airflow, the plugins folder alone, and both together.

The other Airflow is a separate environment with links to this one's packages, except this project: linking takes
milliseconds, an installation takes a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from mlengine.hooks.form import FIELDS
from mlengine.settings import SETTINGS

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "tests" / "support" / "airflow_probe.py"
OPERATORS = [
    "PackageTrainerOperator",
    "PrepareJobDirOperator",
    "PublishModelOperator",
    "ResolveDatasetOperator",
    "SubmitTrainingJobOperator",
    "ValidateModelOperator",
]
LOADED = {
    "names": ["mlengine", "OpenLineageProviderPlugin"],  # the second one is in the tests' environment
    "errors": {},
    "apps": ["/mlengine"],
    "timetables": ["mlengine.timetables.DatasetVersionTimetable"],
}

pytestmark = pytest.mark.integration


def uv(*words: str) -> None:
    subprocess.run([find_uv_bin(), *words, "--quiet", "--offline"], check=True, cwd=ROOT, timeout=1500)


class OtherAirflow:
    """An environment with Airflow, in which mlengine is not installed at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        uv("venv", str(folder / "venv"), "--python", sys.executable)
        self.python = folder / "venv" / "bin" / "python"
        self.site = next((folder / "venv" / "lib").glob("python3*")) / "site-packages"
        shared = folder / "shared"
        shared.mkdir()
        for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
            if "mlengine" not in path.name and path.suffix != ".pth":
                (shared / path.name).symlink_to(path)
        (self.site / "shared.pth").write_text(f"{shared}\n")

    def install(self, wheel: Path) -> None:
        uv("pip", "install", "--no-deps", "--python", str(self.python), str(wheel))

    def say(self, *asked: str, plugins: Path | None = None) -> dict[str, Any]:
        home = self.folder / "home"
        done = subprocess.run(
            [str(self.python), "-I", str(PROBE), *asked],
            env={
                "PATH": os.defpath,
                "HOME": str(self.folder),
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins or home / "plugins"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            },
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        output: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return output


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder))
    return next(folder.glob("mlengine-*.whl"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> OtherAirflow:
    return OtherAirflow(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> OtherAirflow:
    airflow = OtherAirflow(tmp_path_factory.mktemp("other"))
    airflow.install(wheel)
    return airflow


@pytest.fixture(scope="module")
def output(other: OtherAirflow) -> dict[str, Any]:
    return other.say("providers", "plugins", "links", "config", "form", "operators", "assets", "loaded")


def test_the_package_is_a_provider(output: dict[str, Any]) -> None:
    listed = {entry["package_name"]: entry for entry in json.loads(output["providers"])}
    assert listed["mlengine"]["version"] == "0.1.0"
    assert listed["mlengine"]["description"].startswith("Retrain models on a schedule")
    links = {next(iter(entry.values())) for entry in json.loads(output["links"])}
    assert {
        f"mlengine.links.job.{name}" for name in ("JobLink", "ConsoleLink", "TensorBoardLink", "ModelDirLink")
    } < links
    assert "mlengine.links.report.ReportLink" in links


def test_the_package_includes_the_plugin(output: dict[str, Any]) -> None:
    listed = {entry["name"]: entry for entry in json.loads(output["plugins"])}
    assert "mlengine==0.1.0" in listed["mlengine"]["source"]
    assert output["loaded"] == LOADED


def test_the_connection_type_has_a_form(output: dict[str, Any]) -> None:
    assert output["form"]["name"] == "mlengine (training jobs)"
    assert output["form"]["class"] == "mlengine.hooks.training.TrainingHook"
    assert output["form"]["fields"] == {name: field["label"] for name, field in FIELDS.items()}
    assert "extra" in output["form"]["hidden"]


def test_every_setting_is_in_the_configuration_with_its_description(output: dict[str, Any]) -> None:
    text = output["config"]
    assert "[mlengine]" in text
    for setting in SETTINGS.values():
        assert f"{setting.name} =" in text, setting.name
        assert setting.description.split()[0] in text


def test_operators_are_imported_from_the_package(output: dict[str, Any], other: OtherAirflow) -> None:
    assert Path(output["file"]).is_relative_to(other.site)
    assert set(OPERATORS) <= set(output["operators"])


def test_the_page_is_in_the_wheel(output: dict[str, Any]) -> None:
    folder = ROOT / "plugins" / "mlengine" / "web" / "static"
    assert output["assets"] == sorted(path.name for path in folder.iterdir())


def test_the_plugins_folder_alone_is_enough_for_dags(bare: OtherAirflow) -> None:
    output = bare.say("loaded", "operators", plugins=ROOT / "plugins")
    assert output["loaded"] == LOADED
    assert set(OPERATORS) <= set(output["operators"])
    assert Path(output["file"]).is_relative_to(ROOT / "plugins")


def test_the_package_takes_precedence_over_the_plugins_folder(other: OtherAirflow) -> None:
    output = other.say("loaded", plugins=ROOT / "plugins")
    assert output["loaded"] == LOADED
    assert Path(output["file"]).is_relative_to(other.site)


@contextmanager
def service(status: int) -> Iterator[str]:
    """A server that responds to every request with ``status`` and an empty object."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "well", "output"), [(200, True, "responds"), (403, False, "403")])
def test_testing_the_connection_sends_a_request_to_the_service(
    monkeypatch: pytest.MonkeyPatch, status: int, well: bool, output: str
) -> None:
    from mlengine.hooks.training import TrainingHook

    with service(status) as url:
        extra = {"project": "p", "region": "europe-west1", "vertex_endpoint": url, "is_anonymous": True}
        monkeypatch.setenv("AIRFLOW_CONN_TRAINING", json.dumps({"conn_type": "mlengine", "extra": extra}))
        found, why = TrainingHook("training").test_connection()
    assert found is well
    assert output in why
