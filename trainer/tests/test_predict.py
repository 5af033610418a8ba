"""``trainer.predict``: its output, its picture, and its errors when there is no model to load."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from trainer import mnist, predict
from trainer.files.storage import LocalStore
from trainer.model import LocalModel, export


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the initial weights: untrained, but sufficient to print and draw predictions."""
    folder = tmp_path_factory.mktemp("model")
    local = LocalModel()
    local.load(mnist.initial_weights(0))
    export(local, LocalStore(str(folder)), 0)
    return folder


def test_ten_digits_are_printed_and_drawn_with_their_scores(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs trainer[draw]")
    picture = tmp_path / "digits.png"
    assert predict.main(["--model", str(model), "--dataset", str(dataset), "--draw", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["key", "prediction", "label", "score"]
    assert len(lines) == 12
    assert lines[-1] == f"drawn: {picture}"
    pixels = pyplot.imread(picture)[:, :, :3]
    height, width = pixels.shape[:2]
    assert height >= 400
    # Each cell of the two rows and five columns has dark pixels, so no digit was left out.
    for row in range(2):
        for column in range(5):
            part = pixels[row * height // 2 : (row + 1) * height // 2, column * width // 5 : (column + 1) * width // 5]
            assert np.mean(part.min(axis=2) < 0.5) > 0.01


def test_without_matplotlib_the_digits_are_printed_with_a_hint(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ["--model", str(model), "--dataset", str(dataset), "--draw", str(tmp_path / "digits.png")]
    assert predict.main(arguments) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 11
    assert "pip install 'trainer[draw]'" in output.err


def test_an_unpublished_model_is_refused(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main(["--model", str(tmp_path), "--dataset", str(dataset)]) == 1
    assert "nothing is published here" in capsys.readouterr().err
