"""A complete cluster on a bucket (chief, workers, parameter servers, evaluator), and the files that it writes there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.cluster import ClusterOfProcesses, environment
from trainer.errors import MissingError, StorageForbiddenError
from trainer.files.checkpoint import Checkpoints
from trainer.files.storage import GcsStore, open_store

STEPS = 150


@pytest.fixture(scope="module")
def bucket(gcs_server: Any, dataset: Path) -> Iterator[str]:
    """A bucket with the small dataset version, which processes started during the fixture can access."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gcs_server.env.items():
            patch.setenv(name, value)
        from google.cloud import storage

        storage.Client().create_bucket("trainer")
        store = open_store("gs://trainer/datasets/mnist/small")
        for path in dataset.iterdir():
            store.write(path.name, path.read_bytes())
        yield "gs://trainer"


@pytest.fixture(scope="module")
def trained(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfProcesses]:
    """A finished cluster of a master, two workers, a parameter server and an evaluator, all on the bucket."""
    folder = tmp_path_factory.mktemp("cluster")
    args = ("--batch_size", "50", "--max_steps", str(STEPS), "--checkpoint", "40", "--learning_rate", "3e-4")
    with ClusterOfProcesses(
        folder, f"{bucket}/datasets/mnist/small", *args,
        job=f"{bucket}/mnist/job1", chief_name="master", worker=2, ps=1, evaluator=1,
    ) as cluster:  # fmt: skip
        cluster.start()
        codes = cluster.wait()
        assert set(codes.values()) == {0}, codes
        yield cluster


def test_all_trainers_share_the_batches(trained: ClusterOfProcesses) -> None:
    shares = [int(count) for count in re.findall(r"share of \S+: (\d+) of", trained.chief.log)]
    assert len(shares) == 3
    assert min(shares) >= STEPS // 20
    # When the last step is made, each trainer still finishes its steps in flight.
    assert STEPS <= sum(shares) <= STEPS + 5
    for name, count in zip(("worker/0", "worker/1"), shares[1:], strict=True):
        assert f"{count} of " in trained[name].log


def test_no_process_is_left_listening(trained: ClusterOfProcesses) -> None:
    assert trained.listening() == []


def test_the_train_dir_has_progress_and_metrics(trained: ClusterOfProcesses) -> None:
    store = open_store(f"{trained.job_dir}/train")
    progress = json.loads(store.read("progress.json"))
    assert progress["of"] == STEPS
    assert STEPS <= progress["step"] <= STEPS + 5
    assert progress["role"] == "chief"
    assert abs(progress["updated"] - time.time()) < 600
    assert set(progress) == {"step", "of", "examples_per_second", "loss", "eta_seconds", "updated", "role"}
    rows = [json.loads(line) for line in store.read("metrics.jsonl").splitlines()]
    assert rows[-1]["step"] == progress["step"]
    assert rows[-1]["test_accuracy"] >= 0.85
    assert len(rows[-1]["per_class"]) == 10
    assert np.mean(rows[-1]["per_class"]) == pytest.approx(rows[-1]["test_accuracy"], abs=0.05)


def test_the_evaluator_evaluates_all_but_the_last_checkpoint(trained: ClusterOfProcesses) -> None:
    measured = [int(step) for step in re.findall(r"step (\d+): held-out accuracy", trained["evaluator/0"].log)]
    assert measured
    assert max(measured) < STEPS
    by_chief = [int(step) for step in re.findall(r"step (\d+): held-out accuracy", trained.chief.log)]
    assert min(by_chief) >= STEPS
    rows = [json.loads(line) for line in open_store(f"{trained.job_dir}/train").read("metrics.jsonl").splitlines()]
    assert [row["step"] for row in rows] == sorted({*measured, *by_chief})


def test_summaries_have_scalars_histograms_and_images(trained: ClusterOfProcesses, tmp_path: Path) -> None:
    store = open_store(f"{trained.job_dir}/train")
    found: dict[str, str] = {}
    for name in store.ls("events."):
        (tmp_path / name).write_bytes(store.read(name))
        for event in tf.compat.v1.train.summary_iterator(str(tmp_path / name)):
            found |= {value.tag: value.WhichOneof("value") for value in event.summary.value}
    assert found["accuracy/test"] == found["loss/test"] == "simple_value"
    assert found["conv1/kernel"] == found["dense1/kernel"] == "histo"
    assert found["filters/conv1/image/0"] == "image"
    assert found["confusion (row: label, column: prediction)/image/0"] == "image"


def test_checkpoints_are_independent_of_the_number_of_parameter_servers(trained: ClusterOfProcesses) -> None:
    checkpoints = Checkpoints(open_store(f"{trained.job_dir}/train"))
    assert 1 <= len(checkpoints.list()) <= 3
    found = checkpoints.load_newest()
    assert found is not None
    assert found[1]["dense1/kernel"].shape == (3136, 1024)
    assert found[1]["dense1/kernel/adam_v"].shape == (3136, 1024)
    assert found[0] == found[1]["global_step"]


def test_the_export_is_single_node_and_predicts_in_another_process(
    trained: ClusterOfProcesses, bucket: str, tmp_path: Path
) -> None:
    store = open_store(f"{trained.job_dir}/model")
    manifest = json.loads(store.read("MANIFEST.json"))
    assert set(manifest["files"]) == {
        "saved_model.pb", "fingerprint.pb", "variables/variables.index", "variables/variables.data-00000-of-00001",
    }  # fmt: skip
    graph = store.read("saved_model.pb")
    assert b"/job:" not in graph
    assert sum(entry["size"] for entry in manifest["files"].values()) < 14_000_000
    result = subprocess.run(
        [sys.executable, "-m", "trainer.predict", "--model", store.root, "--dataset", f"{bucket}/datasets/mnist/small"],
        env=environment(), capture_output=True, text=True, timeout=1500, check=True,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["key", "prediction", "label", "score"]
    right = [line.split()[1] == line.split()[2] for line in lines[1:]]
    assert len(right) == 10
    assert sum(right) >= 7


@pytest.mark.parametrize("code", [403, 429, 503])
def test_a_temporarily_refused_write_is_retried(
    gcs_server: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    from mlengine.testing import faults

    with faults.before(gcs_server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.strike(faults.status(code), "POST", r"/upload/", times=2)
        store = GcsStore(f"{bucket}/refused{code}", patience=20.0)
        store.write("progress.json", b"{}")
        assert store.read("progress.json") == b"{}"
    if code == 403:  # not retried by the client library itself
        assert f"not allowed to write {bucket}/refused403/progress.json" in caplog.text


def test_a_permanently_refused_write_is_an_error(gcs_server: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlengine.testing import faults

    with faults.before(gcs_server.url, strict=False) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.strike(faults.status(403), "POST", r"/upload/", times=100)
        store = GcsStore(f"{bucket}/forbidden", patience=2.0)
        with pytest.raises(StorageForbiddenError, match=r"not allowed to write gs://trainer/forbidden/a"):
            store.write("a", b"2")
        assert len(proxy.seen("POST", r"/upload/")) >= 2
        assert store.ls() == []


def test_a_damaged_download_is_retried(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud.storage import Blob
    from google.cloud.storage.exceptions import DataCorruption

    download, calls = Blob.download_as_bytes, []

    def damage_once(blob: Blob, **options: Any) -> Any:
        calls.append(blob.name)
        if len(calls) == 1:
            raise DataCorruption(None, "checksum mismatch")
        return download(blob, **options)

    store = GcsStore(f"{bucket}/damaged", patience=20.0)
    store.write("a", b"1")
    monkeypatch.setattr(Blob, "download_as_bytes", damage_once)
    assert store.read("a") == b"1"
    assert calls == ["damaged/a"] * 2


@pytest.mark.parametrize("kind", ["local", "gs"])
def test_both_stores_behave_alike(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = str(tmp_path / "store") if kind == "local" else f"{request.getfixturevalue('bucket')}/store"
    store = open_store(root)
    assert store.ls() == []
    with pytest.raises(MissingError, match="nothing"):
        store.read("nothing")
    store.write("a/b.json", b"{}")
    store.write("a/b.json", b"[]")
    store.write("a/c", b"")
    assert store.read("a/b.json") == b"[]"
    assert store.exists("a/c")
    assert not store.exists("a")
    assert store.ls("a/") == ["a/b.json", "a/c"]
    store.delete("a/c")
    store.delete("a/c")
    assert store.ls() == ["a/b.json"]
