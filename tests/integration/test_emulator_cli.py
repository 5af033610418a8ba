"""Runs ``mlengine jobs train`` and ``mlengine emulator`` as typed: on this machine, and through the emulator."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml

import mlengine
from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.cli.documents import JobDocument
from mlengine.cli.exit_codes import ExitCode
from mlengine.emulator.projects import location_name
from mlengine.storage.client import Storage
from mlengine.testing.emulator import RunningEmulator, running
from tests.support import local_jobs

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
Say = pytest.CaptureFixture[str]

TASK = """
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
parser.add_argument("--max_steps", type=int)
args = parser.parse_args()
task = json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {})
print("trained", args.max_steps, "steps into", args.job_dir, "as", task.get("type"), flush=True)
"""


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "trainer"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def state(make_backend: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state dir of the local backend that commands use by default."""
    folder = make_backend().state_dir
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(folder))
    monkeypatch.delenv("AIRFLOW__MLENGINE__BACKEND", raising=False)
    return folder


@pytest.fixture
def emulator(make_backend: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningEmulator]:
    with running(tmp_path / "emulator", backend=make_backend()) as started:
        for name, value in started.env.items():
            monkeypatch.setenv(name, value)
        yield started


def test_jobs_train_runs_a_cluster_on_the_local_backend(
    trainer: Path, state: Path, storage: Storage, bucket: str, capsys: Say
) -> None:
    command = [
        "jobs",
        "train",
        "mnist_1",
        "--package-path",
        "trainer",
        "--module-name",
        "trainer.task",
        "--staging-bucket",
        bucket,
    ]
    cluster = ["--worker-count", "1", "--region", "us-central1", "--runtime-version", "1.0", "--stream-logs"]
    assert main([*command, *cluster, "--", "--max_steps", "10"]) == 0
    output = capsys.readouterr().out
    assert "job mnist_1: fresh_submit" in output
    assert f"chief-0 | trained 10 steps into {bucket}/jobs/mnist_1 as master" in output
    assert f"worker-0 | trained 10 steps into {bucket}/jobs/mnist_1 as worker" in output
    assert storage.exists(f"{bucket}/jobs/mnist_1/job.json")
    assert main(["jobs", "list", "--bucket", bucket, "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert set(listed) == set(JobDocument.__annotations__)
    assert (listed["job_id"], listed["state"], listed["dag_id"]) == ("mnist_1", "SUCCEEDED", "")
    assert main(["jobs", "list", "--bucket", bucket, "--state", "succeeded", "--limit", "1"]) == 0
    assert "jobs/mnist_1  SUCCEEDED  " in capsys.readouterr().out
    assert main(["jobs", "list", "--bucket", bucket, "--state", "failed", "--model", "jobs"]) == 0
    assert capsys.readouterr().out == f"no FAILED jobs of model jobs in {bucket}\n"
    for name in ("jobs/mnist_1", f"{bucket}/jobs/mnist_1", "mnist_1"):
        assert main(["jobs", "status", name, "--bucket", bucket, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["job_dir"] == f"{bucket}/jobs/mnist_1"
    # The same command again refers to the same job; another training with its id is refused.
    assert main([*command, *cluster, "--", "--max_steps", "10"]) == 0
    assert "already_succeeded" in capsys.readouterr().out
    assert main([*command, *cluster, "--", "--max_steps", "11"]) == 1
    assert "args: --max_steps 10 → --max_steps 11" in capsys.readouterr().err


def test_a_job_keeps_its_given_name(trainer: Path, state: Path, storage: Storage, bucket: str, capsys: Say) -> None:
    command = ["jobs", "train", "my_job_1", "--package-path", "trainer", "--module-name", "trainer.task"]
    where = ["--job-dir", f"{bucket}/out/run"]
    assert main([*command, *where, "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["job_id"] == "my_job_1"
    vertex = ["--backend", "vertex", "--region", "us-central1"]
    assert main([*command, *where, *vertex, "--dry-run"]) == 0
    request = yaml.safe_load(capsys.readouterr().out)
    assert request["displayName"] == "my_job_1"
    assert request["jobSpec"]["baseOutputDirectory"] == {"outputUriPrefix": f"{bucket}/out/run"}
    assert main([*command, *where, "--stream-logs"]) == 0
    output = capsys.readouterr().out
    assert "job my_job_1: fresh_submit" in output
    assert f"trained None steps into {bucket}/out/run as master" in output
    assert json.loads(storage.read(f"{bucket}/out/run/job.json"))["job_id"] == "my_job_1"
    assert main(["jobs", "status", "my_job_1"]) == 0
    assert f"job dir:    {bucket}/out/run" in capsys.readouterr().out
    assert main([*command, *where]) == 0
    assert "job my_job_1: already_succeeded" in capsys.readouterr().out
    assert main([*command, "--job-dir", "out", "--dry-run"]) == ExitCode.USAGE
    assert "--job-dir: not a Cloud Storage URI: 'out'" in capsys.readouterr().err


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_the_module_of_a_job_file_is_checked_in_the_bucket_s_packages(
    trainer: Path, state: Path, storage: Storage, bucket: str, tmp_path: Path, capsys: Say, dry: list[str]
) -> None:
    uri = local_jobs.put(storage, bucket, local_jobs.sdist("print('trained')"))
    config = "trainingInput: {{pythonModule: {}, packageUris: [{}]}}\n"
    command = ["jobs", "train", "j", "--staging-bucket", bucket, "--config", "job.yaml", *dry]
    (tmp_path / "job.yaml").write_text(config.format("tiny.tsak", uri))
    assert main(command) == 1
    assert "no module tiny.tsak in" in (err := capsys.readouterr().err)
    assert "tiny.task" in err
    (tmp_path / "job.yaml").write_text(config.format("tiny.task", uri.replace("1.0", "1.1")))
    assert main(command) == 1
    assert "no object" in capsys.readouterr().err
    (tmp_path / "job.yaml").write_text(config.format("tiny.task", uri))
    assert main(command) == 0
    # The package is on this machine; only the job file names the module.
    (tmp_path / "job.yaml").write_text("trainingInput: {pythonModule: trainer.tsak}")
    assert main([*command, "--package-path", "trainer"]) == 1
    assert "no module trainer.tsak" in capsys.readouterr().err


def test_train_on_vertex(trainer: Path, emulator: RunningEmulator, bucket: str, tmp_path: Path, capsys: Say) -> None:
    (tmp_path / "job.yaml").write_text(
        "trainingInput:\n  scaleTier: CUSTOM\n  masterType: complex_model_m\n  pythonModule: trainer.task\n"
        "  args: [--max_steps, '1']\n  region: us-central1\n"
    )
    command = ["jobs", "train", "mnist_1", "--package-path", "trainer", "--config", "job.yaml", "--backend", "vertex"]
    places = ["--staging-bucket", bucket, "--job-dir", f"{bucket}/mnist/mnist_1", "--labels", "team=vision"]
    assert main([*command, *places, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    request = yaml.safe_load(dry)
    assert request["labels"]["team"] == "vision"
    assert request["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"] == f"{bucket}/mnist/mnist_1"
    assert "# chief: complex_model_m is n1-highcpu-16 on Vertex AI" in dry
    assert emulator.calls == []
    assert main([*command, *places, "--stream-logs", "--", "--max_steps", "2"]) == 0
    output = capsys.readouterr().out
    package = re.search(r"package trainer 0\.0\.0, \d+ files: (gs://\S+)", output)
    assert package is not None
    assert package[1] in str(request), "a dry run names the package that is then uploaded"
    assert f"as {location_name('test-project', 'us-central1')}/customJobs/" in output
    assert f"chief-0 | trained 2 steps into {bucket}/mnist/mnist_1 as master" in output
    cap = ["--set", "cost_cap_usd=0.01", "--set", "prices={n1-highcpu-16: 0.65}"]
    assert main(["jobs", "train", "mnist_2", *command[3:], *places[:2], *cap]) == 1
    assert "the cap is 0.01 USD" in capsys.readouterr().err


def test_a_dry_run_needs_no_bucket(state: Path, tmp_path: Path, capsys: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setattr("mlengine.storage.retries.CONNECT_DEADLINE", 0.1)
    job = tmp_path / "job.yaml"
    job.write_text("trainingInput:\n  pythonModule: tiny.task\n  packageUris: [gs://bucket/tiny-1.0.tar.gz]\n")
    assert main(["jobs", "train", "mnist_1", "--config", str(job), "--staging-bucket", "gs://bucket", "--dry-run"]) == 0
    assert "# module tiny.task was not checked" in capsys.readouterr().out


def with_python(version: str, bucket: str) -> list[str]:
    command = ["jobs", "train", "mnist_1", "--package-path", "trainer", "--module-name", "trainer.task"]
    return [*command, "--staging-bucket", bucket, "--stream-logs", "--python-version", version]


def test_a_missing_python_version_is_refused(trainer: Path, state: Path, bucket: str, capsys: Say) -> None:
    assert main(with_python("2.7", bucket)) == 1
    refused = capsys.readouterr().err
    assert "there is no Python 2.7 on this machine" in refused
    assert "--backend vertex" in refused
    assert list((state / "jobs").glob("*")) == [], "nothing was submitted"


def test_another_installed_python_version_is_used(
    trainer: Path, state: Path, bucket: str, capsys: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another_python()
    if other is None:
        pytest.skip("this machine has no other Python that could be asked for")
    version, folder = other
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (trainer / "task.py").write_text("import sys; print('this is', *sys.version_info[:2])")
    assert main(with_python(version, bucket)) == 0
    assert f"chief-0 | this is {version.replace('.', ' ')}" in capsys.readouterr().out


def another_python() -> tuple[str, Path] | None:
    """A Python of a different version than this one, newer than 3.9, and its folder; from the path or from pyenv."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for version in ("3.13", "3.12", "3.10"):
        for folder in folders:
            python = folder / f"python{version}"
            if version != own and python.exists() and "shims" not in str(python):
                return version, folder
    return None


def test_failed_jobs_and_invalid_options_are_reported(trainer: Path, state: Path, bucket: str, capsys: Say) -> None:
    command = ["jobs", "train", "mnist_1", "--package-path", "trainer", "--module-name", "trainer.task"]
    assert main([*command, "--staging-bucket", bucket, "--stream-logs", "--", "--no_such_flag"]) == ExitCode.JOB_FAILED
    output = capsys.readouterr().out
    assert "unrecognized arguments: --no_such_flag" in output
    assert "FAILED" in output
    assert main([*command, "--staging-bucket", bucket, "--scale-tier", "BASICC"]) == ExitCode.USAGE
    assert "BASICC" in capsys.readouterr().err
    assert main(["jobs", "train", "1-bad", *command[3:], "--staging-bucket", bucket]) == ExitCode.USAGE
    assert "is not a job id" in capsys.readouterr().err
    assert main(["jobs", "train", "j", "--staging-bucket", bucket, "--module-name", "a.b"]) == 1
    assert "pass --package-path" in capsys.readouterr().err


class Command:
    """``mlengine emulator`` as a process.

    :param url: its address, once it accepts requests.
    """

    def __init__(self, *options: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(Path(mlengine.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
        script = "import sys; from mlengine.cli import main; sys.exit(main(sys.argv[1:]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "emulator", "--port", "0", *options],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        self.url = "".join(re.findall(r"http://[\d.:]+", self.first_line))

    def stop(self) -> tuple[int, str, str]:
        """Stop the process and return its exit code and output."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=1500)
        return self.process.returncode, self.first_line + out, err


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Starts emulators, and stops those that still run at the end."""
    started: list[Command] = []

    def start(*options: str) -> Command:
        started.append(Command(*options))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            command.stop()


def test_the_emulator_command_applies_and_reports_faults(
    storage: Storage, bucket: str, tmp_path: Path, start: Callable[..., Command]
) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("[{method: projects.jobs.list, action: status}, {method: GetOperation, action: reset}]")
    command = start("--state-dir", str(tmp_path / "state"), "--faults", str(faults), "--bucket", bucket)
    assert requests.get(f"{command.url}/healthz", timeout=60).json() == {"status": "ok"}
    jobs = f"{command.url}/v1/projects/p/jobs"
    rejected = requests.get(jobs, timeout=60)
    assert (rejected.status_code, rejected.json()["error"]["status"]) == (503, "UNAVAILABLE")
    assert requests.get(jobs, timeout=60).json() == {}
    unused = requests.get(f"{command.url}/faults", timeout=60).json()["unused"]
    assert [fault["method"] for fault in unused] == ["GetOperation"]
    wrong = requests.post(
        f"{command.url}/faults", json={"faults": [{"method": "GetOperation", "action": "x"}]}, timeout=60
    )
    assert (wrong.status_code, wrong.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    code, out, err = command.stop()
    assert code == 1, err
    assert "fault not triggered: GetOperation reset" in out
    assert "projects.jobs.list /v1/projects/p/jobs: 200" in err
    assert json.dumps(bucket) not in err


def test_two_emulators_cannot_share_a_port_or_a_state_directory(
    storage: Storage, tmp_path: Path, start: Callable[..., Command]
) -> None:
    first = start("--state-dir", str(tmp_path / "state"), "--grpc-port", "0")
    assert first.process.stdout is not None
    target = first.process.stdout.readline().split()[-1]
    same_port = start("--state-dir", str(tmp_path / "other"), "--grpc-port", target.rpartition(":")[2])
    same_directory = start("--state-dir", str(tmp_path / "state"))
    for second, message in (
        (same_port, f"cannot listen on {target}: Address already in use"),
        (same_directory, f"another emulator uses the state directory {tmp_path}/state (process {first.process.pid})"),
    ):
        code, out, err = second.wait()
        assert (code, out) == (1, "")
        assert message in err
    assert first.stop()[0] == 0
    # The port and the directory are available again.
    assert start("--state-dir", str(tmp_path / "state"), "--grpc-port", target.rpartition(":")[2]).stop()[0] == 0
