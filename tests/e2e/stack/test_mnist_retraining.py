"""Runs ``mnist_retraining`` on real components, triggered by REST as the UI does.

Four real processes train the model. It is validated, published, and loaded by a process that has only TensorFlow.
"""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts.stack import Stack

from mlengine.champions.history import Champion
from mlengine.core import layout
from mlengine.core.errors import AirflowError
from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import AirflowApi, DagRun
from tests.e2e.stack.conftest import MONTH, Ended
from tests.support.live_airflow import persist

pytestmark = pytest.mark.e2e

STAGES = ("dataset", "package", "prepare", "submit", "wait", "validate", "publish")
XCOM_BYTES = 4096

_PREDICT = """
import json, sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = np.fromfile(sys.argv[2], np.uint8)[16:].reshape(-1, 784).astype("float32") / 255
scores = model.signatures["serving_default"](
    key=tf.range(len(images), dtype=tf.int64), image=tf.constant(images)
)["scores"]
print(json.dumps(np.argmax(scores.numpy(), 1).tolist()))
"""


def job_dir(ended: Ended) -> JobDir:
    return JobDir(ended.result("retrain.prepare")["job_dir"])


def test_every_task_succeeds(first: Ended) -> None:
    assert first.states() == {f"retrain.{stage}": "success" for stage in STAGES}
    assert first.run.state == "success"
    # One try each: no retry has hidden a failure. Resuming a deferred wait does not count as a try.
    assert {name: task.try_number for name, task in first.tasks.items() if task.try_number != 1} == {}


def test_xcoms_are_small(first: Ended) -> None:
    for task_id in first.tasks:
        for key, value in first.xcoms(task_id).items():
            assert len(json.dumps(value)) < XCOM_BYTES, (task_id, key)


def test_the_log_of_the_wait_shows_each_replica(first: Ended) -> None:
    log = first.log("retrain.wait")
    for replica in ("chief-0", "worker-0", "worker-1", "ps-0"):
        assert f"{replica} |" in log, log[-3000:]
    assert "SUCCEEDED" in log


def test_the_job_dir_is_complete(first: Ended, stack: Stack) -> None:
    folder = job_dir(first)
    names = {stat.uri.removeprefix(f"{folder.uri}/") for stat in stack.storage.ls(f"{folder.uri}/")}
    assert {"job.json", "report.json", "model/saved_model.pb", "model/MANIFEST.json", "train/metrics.jsonl"} <= names
    assert any(name.startswith("train/") and ".index" in name for name in names), "no checkpoint"
    assert {f"logs/attempt-1/{name}.log" for name in ("launcher", "chief-0", "worker-0", "worker-1", "ps-0")} <= names


def test_the_model_predicts_in_a_clean_process(
    first: Ended, stack: Stack, trainer_python: Path, tmp_path: Path
) -> None:
    """Predicts with only TensorFlow and the model's files: no trainer code, none of this project's code, no cluster."""
    model = job_dir(first).model
    for stat in stack.storage.ls(model):
        stack.storage.download(stat.uri, tmp_path / "model" / stat.uri.removeprefix(model))
    held_out = layout.dataset_dir(stack.bucket, "mnist", MONTH)
    packed = stack.storage.read(layout.join(held_out, "heldout-images-idx3-ubyte.gz"))
    labels = gzip.decompress(stack.storage.read(layout.join(held_out, "heldout-labels-idx1-ubyte.gz")))[8:]
    (tmp_path / "images").write_bytes(gzip.decompress(packed))
    done = subprocess.run(
        [str(trainer_python), "-I", "-c", _PREDICT, str(tmp_path / "model"), str(tmp_path / "images")],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    predicted = json.loads(done.stdout)
    right = sum(one == label for one, label in zip(predicted, labels, strict=True))
    assert right / len(labels) > 0.85
    report = json.loads(stack.storage.read(job_dir(first).report))
    assert right / len(labels) == pytest.approx(report["metrics"]["accuracy"], abs=0.002)


def test_the_first_model_becomes_champion(first: Ended, stack: Stack) -> None:
    report = json.loads(stack.storage.read(job_dir(first).report))
    assert report["verdict"]["verdict"] == "first"
    history = stack.storage.ls(layout.join(layout.model_prefix(stack.bucket, "mnist"), "champions/"))
    entry = Champion.from_bytes(stack.storage.read(history[0].uri))
    assert (entry.job_dir, entry.version) == (job_dir(first).uri, MONTH)


@pytest.mark.parametrize("conf", [{"max_steps": 0}, {"batch_size": "many"}, {"min_accuracy": 1.5}])
def test_an_invalid_parameter_is_rejected_before_a_run_is_created(api: AirflowApi, conf: dict[str, object]) -> None:
    api.wait_for_dag("mnist_retraining")
    before = {run.run_id for run in api.runs("mnist_retraining")}
    with pytest.raises(AirflowError, match=next(iter(conf))) as caught:
        api.trigger("mnist_retraining", conf)
    assert caught.value.status == 400
    assert {run.run_id for run in api.runs("mnist_retraining")} == before


def test_a_second_run_reuses_the_package_and_the_environment(
    first: Ended, api: AirflowApi, finish: Callable[[DagRun], Ended], stack: Stack
) -> None:
    """The second run reuses the package and the environment of the first.

    Its worse model is rejected and not published.
    """
    champion = stack.storage.read(layout.champion(stack.bucket, "mnist"))
    conf = {"dataset_version": MONTH, "max_steps": 3, "min_accuracy": 0.9}
    second = finish(persist(api.trigger, "mnist_retraining", conf))
    assert second.result("retrain.package")["reused"] is True
    assert second.result("retrain.package")["digest"] == first.result("retrain.package")["digest"]
    assert job_dir(second) != job_dir(first)
    assert len(list((stack.data / "local").rglob("site-packages/tensorflow"))) == 1
    assert second.states() == {
        **{f"retrain.{stage}": "success" for stage in STAGES},
        "retrain.validate": "skipped",
        "retrain.publish": "skipped",
    }
    report = json.loads(stack.storage.read(job_dir(second).report))
    assert report["verdict"]["verdict"] == "rejected"
    assert stack.storage.read(layout.champion(stack.bucket, "mnist")) == champion
