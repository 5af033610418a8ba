"""Tests trainers of ML Engine's first years with their job files: distributed, with ``master``, and on one machine.

The programs are not copies: they have the structure of those trainers, without TensorFlow. They read ``TF_CONFIG``
without checking that it exists, branch on their task's type, and exit with 0 if no branch matches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.storage.client import Storage
from mlengine.testing.emulator import running

pytestmark = pytest.mark.integration

# A parameter server holds one number. The master and the workers add to it, and the master saves it.
DISTRIBUTED = '''
import argparse, json, os, socket, socketserver, time, urllib.parse, urllib.request

def address(text):
    host, port = text.split(":")
    return host, int(port)

def save(path, value):
    bucket, _, name = path[len("gs://"):].partition("/")
    name = urllib.parse.quote(name, safe="")
    url = f"{os.environ['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
    request = urllib.request.Request(url, json.dumps(value).encode())
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)

class Variables(socketserver.StreamRequestHandler):
    step = 0

    def handle(self):
        Variables.step += int(self.rfile.readline())
        self.wfile.write(f"{Variables.step}\\n".encode())

def add(ps, amount):
    while True:
        try:
            with socket.create_connection(address(ps)) as connection:
                connection.sendall(f"{amount}\\n".encode())
                return int(connection.makefile().readline())
        except ConnectionRefusedError:
            time.sleep(0.02)

class Supervisor:
    """Prepares the variables if it is the chief's, and waits for them elsewhere."""

    def __init__(self, is_chief, ps, logdir):
        self.is_chief, self.ps, self.logdir = is_chief, ps, logdir

    def managed_session(self):
        while not self.is_chief and add(self.ps, 0) == 0:
            time.sleep(0.02)

    def save(self, step):
        if self.is_chief:
            save(f"{self.logdir}/model.ckpt-{step}", step)

def train(is_chief, cluster, args):
    ps = cluster["ps"][0]
    supervisor = Supervisor(is_chief, ps, f"{args.job_dir}/train")
    supervisor.managed_session()
    step = 0
    while step < args.max_steps:
        step = add(ps, 1)
        time.sleep(0.02)
    supervisor.save(step)
    return step

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--job-dir")
    parser.add_argument("--max_steps", type=int, default=20)
    args = parser.parse_args()
    config = json.loads(os.environ["TF_CONFIG"])
    cluster, task = config["cluster"], config["task"]
    print("I am", task["type"], task["index"], flush=True)
    if task["type"] == "ps":
        with socketserver.TCPServer(address(cluster["ps"][task["index"]]), Variables) as server:
            server.serve_forever()
    elif task["type"] == "worker":
        train(False, cluster, args)
    elif task["type"] == "master":
        step = train(True, cluster, args)
        save(f"{args.job_dir}/model/export.json", {"step": step})

if __name__ == "__main__":
    main()
'''

# On a single machine, the same code reads a cluster of one.
ALONE = """
import argparse, json, os, urllib.parse, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
args = parser.parse_args()
config = json.loads(os.environ["TF_CONFIG"])
task = config["task"]
is_master = task["type"] == "master"
print("trial", task.get("trial"), "of", config["cluster"], "with", config["job"]["scale_tier"], flush=True)
if is_master and len(config["cluster"]["master"]) == 1:
    bucket, _, name = f"{args.job_dir}/model/export.json"[len("gs://"):].partition("/")
    name = urllib.parse.quote(name, safe="")
    url = f"{os.environ['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
    request = urllib.request.Request(url, json.dumps({"step": 1}).encode())
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
"""


@pytest.fixture(params=["local", "vertex"])
def backend(
    request: pytest.FixtureRequest,
    make_backend: Callable[..., LocalBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """Runs each test on the local backend, and through Vertex AI's API on the emulator."""
    here = make_backend(empty_output_warning_seconds=30)
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(here.state_dir))
    if request.param == "local":
        yield "local"
        return
    with running(tmp_path / "service", backend=here) as started:
        for name, value in started.env.items():
            monkeypatch.setenv(name, value)
        yield "vertex"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(folder: Path, backend: str, bucket: str, program: str, config: str) -> int:
    """Run the article's command line; only the command's name differs."""
    (folder / "trainer" / "task.py").write_text(program)
    (folder / "config.yaml").write_text(config)
    command = [
        "jobs",
        "train",
        "mnist_1",
        "--package-path=trainer",
        "--module-name=trainer.task",
        "--config=config.yaml",
    ]
    return main([*command, f"--job-dir={bucket}/mnist/mnist_1", "--backend", backend, "--stream-logs"])


def test_a_one_line_job_file_trains_a_cluster(
    folder: Path, backend: str, storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, backend, bucket, DISTRIBUTED, "trainingInput:\n  scaleTier: STANDARD_1\n") == 0
    output = capsys.readouterr().out
    assert "chief-0 | I am master 0" in output
    assert "worker-0 | I am worker 0" in output
    assert "ps-0 | I am ps 0" in output
    assert json.loads(storage.read(f"{bucket}/mnist/mnist_1/model/export.json"))["step"] >= 20
    assert any("/train/model.ckpt-" in stat.uri for stat in storage.ls(f"{bucket}/mnist/mnist_1/train/"))
    assert "wrote nothing" not in output


def test_a_job_of_one_replica_finds_its_tf_config(
    folder: Path, backend: str, storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, backend, bucket, ALONE, "trainingInput:\n  scaleTier: BASIC\n") == 0
    assert re.search(r"chief-0 \| trial None of \{'master': \['127\.0\.0\.1:\d+'\]\}", capsys.readouterr().out)
    assert json.loads(storage.read(f"{bucket}/mnist/mnist_1/model/export.json")) == {"step": 1}


def test_a_chief_that_writes_nothing_is_reported_with_its_name_in_tf_config(
    folder: Path, backend: str, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "trainingInput:\n  scaleTier: STANDARD_1\n  useChiefInTfConfig: true\n"
    assert train(folder, backend, bucket, DISTRIBUTED, config) == 0
    output = capsys.readouterr().out
    assert "chief-0 | I am chief 0" in output
    warning = r"the chief ended with exit code 0( after [\d.]+ s)?, but wrote nothing below model/ or train/"
    assert re.search(rf"launcher \| {warning}; TF_CONFIG calls it \"chief\"", output)
    assert re.search(rf"job \| \w+ → SUCCEEDED: {warning}", output)
    assert main(["jobs", "status", "mnist_1", "--backend", backend]) == 0
    assert re.search(rf"detail: +{warning}", capsys.readouterr().out)
