"""The chief's checkpoints, evaluations, reports and exports."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer import mnist
from trainer.chief import Chief
from trainer.config import parse
from trainer.distributed.cluster import Cluster
from trainer.errors import LossNotFiniteError
from trainer.files import manifest
from trainer.files.checkpoint import Checkpoints
from trainer.files.dataset import open_dataset
from trainer.files.storage import LocalStore
from trainer.model import LocalModel, export


class _Weights:
    """The values of a training, as a session would return them."""

    def __init__(self, step: int, spoilt: float | None = None) -> None:
        weights = mnist.initial_weights(0)
        if spoilt is not None:
            weights["conv1/bias"][3] = spoilt
        moments = {
            f"{name}/{slot}": np.zeros_like(value) for name, value in weights.items() for slot in ("adam_m", "adam_v")
        }
        self.values = {**weights, **moments, "global_step": np.array(step), "shares": np.array([step])}

    def read(self, _session: object) -> dict[str, np.ndarray]:
        return dict(self.values)

    def read_counters(self, _session: object) -> tuple[int, list[int]]:
        return int(self.values["global_step"]), [0]

    def set_saved(self, _session: object, step: int) -> None:
        """Ignored: no worker waits for the checkpoint."""


class _MovingWeights(_Weights):
    """Values that change between two reads, as when other trainers keep training."""

    def read(self, _session: object) -> dict[str, np.ndarray]:
        before = super().read(None)
        self.values = {**before, "dense2/bias": before["dense2/bias"] + np.float32(1)}
        return before


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_non_finite_weights_are_not_saved(dataset: Path, tmp_path: Path, spoilt: float) -> None:
    chief = Chief(parse(["--dataset", str(dataset), "--job-dir", str(tmp_path)]), Cluster(), open_dataset(str(dataset)))
    chief.save(None, _Weights(7), 2.3, evaluate=False)
    with pytest.raises(LossNotFiniteError, match="step 9"):
        chief.save(None, _Weights(9, spoilt), 2.3, evaluate=False)
    kept = [path.name for path in (tmp_path / "train" / "checkpoints").iterdir()]
    assert [name.partition("-")[0] for name in kept] == ["00000007"]


def test_only_the_last_evaluation_uses_all_held_out_examples(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = open_dataset(str(dataset))
    argv = ["--dataset", str(dataset), "--job-dir", str(tmp_path), "--max_steps", "9", "--eval_examples", "20"]
    chief = Chief(parse(argv), Cluster(), found)
    with caplog.at_level(logging.INFO, "trainer.chief"):
        chief.save(None, _Weights(7), 2.3)
        chief.save(None, _Weights(9), 2.3)
    evaluations = [message for message in caplog.messages if "held-out accuracy" in message]
    assert "on 20 examples" in evaluations[0]
    assert f"on {len(found.load('heldout'))} examples" in evaluations[1]


@pytest.mark.parametrize("saved_before", [False, True])
def test_the_export_has_the_values_of_the_checkpoint(dataset: Path, tmp_path: Path, saved_before: bool) -> None:
    argv = ["--dataset", str(dataset), "--job-dir", str(tmp_path), "--max_steps", "9"]
    chief, weights = Chief(parse(argv), Cluster(), open_dataset(str(dataset))), _MovingWeights(9)
    if saved_before:
        chief.save(None, weights, 2.3, evaluate=False)
    chief.finish(None, weights, 2.3)
    found = Checkpoints(LocalStore(str(tmp_path / "train"))).load_newest()
    assert found is not None
    assert found[0] == 9
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    split = open_dataset(str(dataset)).load("heldout").sample(5)
    images = tf.constant(split.images, tf.float32) / 255
    expected = tf.nn.softmax(mnist.logits({name: found[1][name] for name in mnist.SHAPES}, images))
    scores = serve(key=tf.range(5, dtype=tf.int64), image=images)["scores"]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reported", [9, 7])
def test_restarting_a_finished_training_keeps_its_reports(dataset: Path, tmp_path: Path, reported: int) -> None:
    argv = ["--dataset", str(dataset), "--job-dir", str(tmp_path), "--max_steps", "9"]
    store, weights = LocalStore(str(tmp_path / "train")), _Weights(9)
    Chief(parse(argv), Cluster(), open_dataset(str(dataset))).finish(None, weights, 2.25)
    before = json.loads(store.read("progress.json"))
    store.write("progress.json", json.dumps({**before, "step": reported}).encode())
    again = Chief(parse(argv), Cluster(), open_dataset(str(dataset)))
    again.newest()
    again.finish(None, weights, None)
    after = json.loads(store.read("progress.json"))
    assert after["step"] == 9
    assert after["loss"] == (2.25 if reported == 9 else None)
    assert [json.loads(row)["train_loss"] for row in store.read("metrics.jsonl").splitlines()] == [2.25]


def test_rates_after_a_resume_exclude_earlier_steps(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse(["--dataset", str(dataset), "--job-dir", str(tmp_path)])
    Chief(config, Cluster(), open_dataset(str(dataset))).save(None, _Weights(400), 2.3, evaluate=False)
    clock = [100.0]
    monkeypatch.setattr("trainer.chief.time.monotonic", lambda: clock[0])
    chief = Chief(config, Cluster(), open_dataset(str(dataset)))
    assert chief.newest()[0] == 400
    clock[0] += 10.0
    chief._measure(500)
    assert chief._rate == 10.0 * config.batch_size


def test_a_damaged_export_is_replaced(tmp_path: Path) -> None:
    store, model = LocalStore(str(tmp_path)), LocalModel()
    model.load(mnist.initial_weights(0))
    store.write("MANIFEST.json", b"{")
    assert export(model, store, 9)
    assert (manifest.read(store, "") or {})["step"] == 9
