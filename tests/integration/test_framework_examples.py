"""Tests the PyTorch, JAX and XGBoost examples: two replicas train one model, resume after kills, and it is validated.

Uses the commands of docs/frameworks.md on a few thousand digits.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from scripts import mnist

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.core.job import JobHandle, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Decision
from mlengine.storage.client import Storage
from mlengine.testing import faults
from mlengine.testing.gcs import GcsServer
from mlengine.validation.report import load_report
from tests.support import local_jobs
from tests.support.manual import ROOT, blocks, commands, words

pytestmark = pytest.mark.integration
PAGE = ROOT / "docs" / "frameworks.md"
BUILD_SECONDS, RUN_SECONDS = 500.0, 300.0
ENDS = re.compile(r"replica \d ends with \w+ (\S+)")


@pytest.fixture
def backend(make_backend: Callable[..., LocalBackend]) -> LocalBackend:
    return make_backend()


@pytest.fixture
def mlengine(
    backend: LocalBackend, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command in the clone, and returns its output."""
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(backend.state_dir))
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.delenv("AIRFLOW__MLENGINE__BACKEND", raising=False)
    monkeypatch.chdir(ROOT)

    def run(command: str, *more: str) -> str:
        given, _ = words(command.replace("gs://BUCKET", bucket))
        ended = main([*given, *more])
        out, err = capsys.readouterr()
        assert ended == 0, f"{command}: {out[-3000:]}{err[-3000:]}"
        return out + err

    return run


def documented(example: str) -> list[str]:
    """The page's mlengine commands that train, validate and publish an example."""
    found = [command for block in blocks(PAGE) for command in commands(block)]
    return [command for command in found if re.search(rf"\b{example}\b", command)]


def torch_constraint(folder: Path) -> Path:
    """Constraints with which uv installs a CPU build of PyTorch.

    For Linux, PyPI has only CUDA builds of several gigabytes.
    """
    python, machine = f"cp{sys.version_info.major}{sys.version_info.minor}", platform.machine()
    folders = re.split(r"[\s,]+", f"{os.environ.get('PIP_FIND_LINKS', '')} {os.environ.get('UV_FIND_LINKS', '')}")
    builds = [path.name.split("-") for one in filter(None, folders) for path in Path(one).glob("torch-*+cpu-*.whl")]
    versions = [parts[1] for parts in builds if parts[2] == python and parts[-1].endswith(f"{machine}.whl")]
    if not versions:
        pytest.skip("no CPU build of PyTorch is at hand")
    path = folder / "torch.txt"
    path.write_text(f"torch=={max(versions)}\n")
    return path


def ended(backend: LocalBackend, handle: JobHandle) -> JobStatus | None:
    """The state of a job that has ended; ``None`` while it runs."""
    status = local_jobs.describe(backend, handle)
    return status if status.state.terminal else None


def replica(backend: LocalBackend, handle: JobHandle, rank: int) -> int:
    """The process id of a replica."""
    for process in local_jobs.alive(backend, handle):
        if psutil.Process(process.pid).environ().get("RANK") == str(rank):
            return process.pid
    raise AssertionError(f"rank {rank} is not running")


def log_of(backend: LocalBackend, handle: JobHandle) -> str:
    return "\n".join(local_jobs.texts(backend, handle))


@pytest.mark.parametrize(
    ("example", "arguments", "killed"),
    [
        ("torch_digits", ["--steps", "600"], 1),
        ("jax_digits", ["--steps", "600"], 0),
        ("xgboost_digits", ["--rounds", "25"], 1),
    ],
)
def test_an_example_survives_kills_and_is_validated(
    mlengine: Callable[..., str],
    backend: LocalBackend,
    bucket: str,
    storage: Storage,
    gcs_server: GcsServer,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    example: str,
    arguments: list[str],
    killed: int,
) -> None:
    if example == "torch_digits":
        monkeypatch.setenv("PIP_CONSTRAINT", str(torch_constraint(tmp_path)))
    mnist.register(storage, bucket, digits, "2026-11-01", train=2_000, heldout=1_000)
    train, validate = documented(example)
    job_dir = JobDir(train.split("--job-dir ")[1].split()[0].replace("gs://BUCKET", bucket))
    checkpoint = f"{job_dir.uri}/train/progress.json"
    with faults.before(gcs_server.url) as proxy, monkeypatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.strike(faults.stall(BUILD_SECONDS), "POST", body=rb"/model/model\.")
        mlengine(train.replace("--stream-logs", ""), "--", *arguments)
        (handle,) = backend.jobs()
        local_jobs.until(lambda: ended(backend, handle) or storage.exists(checkpoint), "a checkpoint", BUILD_SECONDS)
        os.kill(replica(backend, handle, killed), signal.SIGKILL)
        local_jobs.until(lambda: ended(backend, handle) or not proxy.unused, "the upload of the model", RUN_SECONDS)
        local_jobs.until(lambda: len(ENDS.findall(log_of(backend, handle))) == 2, "the end of training on both")
        os.kill(replica(backend, handle, 0), signal.SIGKILL)
        proxy.release()
        status = local_jobs.until(lambda: ended(backend, handle), "the end of the job", RUN_SECONDS)
    log = log_of(backend, handle)
    assert status.state.name == "SUCCEEDED", log[-5000:]
    for rank in range(2):
        assert f"replica {rank} of 2: 1000 rows" in log
    starts = sorted(int(step) for step in re.findall(r"starting after (?:step|round) (\d+)", log))
    assert starts[:2] == [0, 0]
    assert len(starts) >= 6, "both replicas were restarted twice"
    assert starts[2] > 0, "training resumes from the checkpoint"
    assert starts[-2:] == [int(arguments[1])] * 2, "the worker was also restarted, only to store the model"
    losses = [float(loss) for loss in re.findall(r"'loss': ([\d.e-]+)", log)]
    assert losses[-1] < 0.7 * losses[0]
    ends = ENDS.findall(log)
    assert len(ends) == 4
    assert len(set(ends)) == 1, "all replicas have the same model"

    mlengine(validate)
    report = load_report(storage, job_dir)
    assert report.verdict.decision is Decision.FIRST
    assert report.metrics["accuracy"] is not None
    assert report.metrics["accuracy"] > 0.8


LIGHTGBM = """
import lightgbm, numpy as np, zlib
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
rows = np.random.default_rng(0).normal(size=(1000, 4))
labels = (rows[:, 0] + rows[:, 1] > 0).astype(float)
options = {"objective": "binary", "verbose": -1, "num_threads": 1, "time_out": 5, **lightgbm_cluster()}
booster = lightgbm.train(options, lightgbm.Dataset(rows[rank::size], labels[rank::size]), 10)
trees = booster.model_to_string().split("parameters:")[0]
accuracy = float(np.mean((booster.predict(rows) > 0.5) == labels))
print(f"replica {rank} of {options['num_machines']}: {zlib.crc32(trees.encode())} {accuracy}", flush=True)
"""


def test_lightgbm_forms_a_cluster_with_the_parameters_of_the_page(
    backend: LocalBackend, storage: Storage, bucket: str
) -> None:
    block = next(block.text for block in blocks(PAGE) if "def lightgbm_cluster" in block.text)
    source = block.replace("assert lightgbm_cluster() == {}\n", "") + LIGHTGBM
    data = local_jobs.sdist(source, name="boost", dependencies='["lightgbm==4.7.0"]')
    uri = local_jobs.put(storage, bucket, data, "boost-1.0.tar.gz")
    handle = backend.submit(local_jobs.submission(bucket, local_jobs.spec(uri, worker=1, module="boost.task")))
    status = local_jobs.until(lambda: ended(backend, handle), "the end of the job", BUILD_SECONDS)
    log = log_of(backend, handle)
    assert status.state.name == "SUCCEEDED", log[-5000:]
    found = re.findall(r"replica (\d) of 2: (\d+) ([\d.]+)", log)
    assert sorted(rank for rank, _, _ in found) == ["0", "1"]
    assert len({trees for _, trees, _ in found}) == 1, "all replicas have the same model"
    assert min(float(accuracy) for _, _, accuracy in found) > 0.85


@pytest.mark.parametrize("example", ["torch_digits", "jax_digits", "xgboost_digits"])
def test_an_example_is_short(example: str) -> None:
    modules = (ROOT / "examples" / example).glob("*/*.py")
    assert 0 < sum(len(path.read_text().splitlines()) for path in modules) <= 120


@pytest.mark.parametrize("example", ["torch_digits", "jax_digits", "xgboost_digits"])
def test_the_page_shows_the_job_file(example: str) -> None:
    shown = next(block for block in blocks(PAGE) if block.language == "yaml")
    assert shown.text == (ROOT / "examples" / example / "job.yaml").read_text()
