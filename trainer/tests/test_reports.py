"""``metrics.jsonl``: rows in the order of their steps, from the chief and the evaluator."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

import numpy as np
import pytest

from trainer.files.reports import METRICS, Progress, append_metrics
from trainer.files.storage import GcsStore, LocalStore, Store
from trainer.model import Evaluation

LAST = 150


@pytest.fixture(params=["local", "gcs"])
def store(request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "local":
        return LocalStore(str(tmp_path / "train"))
    for name, value in request.getfixturevalue("gcs_server").env.items():
        monkeypatch.setenv(name, value)
    from google.cloud import storage

    name = f"metrics-{tmp_path.name.rstrip('_').replace('_', '-')}".lower()[:60]
    storage.Client().create_bucket(name)
    return GcsStore(f"gs://{name}/train")


def _steps(store: Store) -> list[int]:
    return [json.loads(line)["step"] for line in store.read(METRICS).splitlines()]


def _evaluation() -> Evaluation:
    return Evaluation(0.5, 0.9, (0.9,) * 10, np.zeros((10, 10), np.int64), np.zeros(0, np.int64))


def test_a_late_evaluator_keeps_the_row_of_the_last_step(store: Store) -> None:
    append_metrics(store, 40, None, _evaluation(), last=LAST)
    append_metrics(store, LAST + 1, 0.1, _evaluation())
    append_metrics(store, 120, None, _evaluation(), last=LAST)
    assert _steps(store) == [40, 120, LAST + 1]


def test_rows_of_an_earlier_attempt_beyond_the_current_step_are_dropped(store: Store) -> None:
    for step in (40, 80, 120):
        append_metrics(store, step, 0.1, _evaluation())
    append_metrics(store, 60, 0.1, _evaluation(), last=LAST)
    assert _steps(store) == [40, 60]
    append_metrics(store, 40, 0.1, _evaluation())
    assert _steps(store) == [40]


def test_a_damaged_line_is_dropped(store: Store) -> None:
    append_metrics(store, 40, 0.1, _evaluation())
    store.write(METRICS, store.read(METRICS) + b'{"step": 8')
    append_metrics(store, 80, 0.1, _evaluation())
    assert _steps(store) == [40, 80]


def test_a_row_without_a_train_loss_keeps_the_one_of_its_step(store: Store) -> None:
    append_metrics(store, 40, 0.1, _evaluation())
    append_metrics(store, 40, None, _evaluation())
    append_metrics(store, 80, None, _evaluation())
    assert [json.loads(line)["train_loss"] for line in store.read(METRICS).splitlines()] == [0.1, None]


def test_an_unknown_loss_is_null(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Progress(store, 1000, 50, "chief").update(1000, None, now=True)
    assert json.loads(store.read("progress.json"))["loss"] is None
    assert caplog.messages[-1] == "step 1000 of 1000"


def test_rows_of_concurrent_writers_are_all_kept(store: Store) -> None:
    # With last=0, rows of later steps are kept, so no row may be lost.
    ready = threading.Barrier(2)

    def write(steps: list[int]) -> None:
        ready.wait()
        for step in steps:
            append_metrics(store, step, None, _evaluation(), last=0)

    steps = list(range(1, 21))
    threads = [threading.Thread(target=write, args=(steps[start::2],)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _steps(store) == steps


def test_the_first_report_has_no_rate(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress(store, 1000, 50, "chief")
    progress.update(1, 2.5, now=True)
    first = json.loads(store.read("progress.json"))
    assert (first["step"], first["examples_per_second"], first["eta_seconds"]) == (1, None, None)
    assert caplog.messages[-1] == "step 1 of 1000, loss 2.5000"
    time.sleep(0.2)
    progress.update(3, 2.4, now=True)
    assert json.loads(store.read("progress.json"))["eta_seconds"] > 0
    assert "examples/s" in caplog.messages[-1]
