"""One run of the scoring process: it loads the model, and measures it and the champion on the same rows.

Results are written to files in the configuration's ``out`` folder:

* ``stage``: the current stage, so that a hang can be located
* ``model.json``, ``model.npy``: the model's figures, and the outputs for each held-out row: float64 (rows, values)
* ``baseline.json``, ``baseline.npy``: those of the champion, measured in the same process
* ``environment.json``: versions of Python and of the model's framework
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import measure, predictors
from .rows import Rows

MEASURED, FAILED, UNFIT = 0, 3, 4


class ScoringJob:
    """One run of the scoring process.

    :param config: ``out``, ``rows`` (folder of the column files), ``model``, ``baseline`` (or ``None``), ``batch``
        and ``only`` (rows to predict, or ``None`` to measure all).
    :param rows_written: an event that is set when the column files are complete.
    """

    def __init__(self, config: dict[str, Any], rows_written: threading.Event) -> None:
        self.config = config
        self.rows_written = rows_written
        self.out = Path(config["out"])
        self.stage = ""

    def run(self) -> int:
        """Run the job. The exit code means: measured, failed (error in ``model.json``), or framework missing."""
        self.enter("import")
        kind = self.config["model"]["kind"]
        if all(model["kind"] == "savedmodel" for model in (self.config["model"], self.config["baseline"]) if model):
            # Keeps TensorFlow from importing Keras, which no SavedModel needs: a sixth of the import's CPU time.
            os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        try:
            with _without_garbage_collection():
                importlib.import_module("numpy")
                if kind in predictors.FRAMEWORKS:
                    importlib.import_module(predictors.FRAMEWORKS[kind])
        except ImportError as error:
            self.write("model.json", {"error": {"stage": "import", "message": str(error)}})
            return UNFIT
        self.write("environment.json", {"python": sys.version.split()[0], **predictors.version(kind)})
        self.enter("held-out data")
        self.rows_written.wait()
        rows = Rows(Path(self.config["rows"]))
        try:
            self.enter("load")
            outputs = self.load(self.config["model"], rows)
            only = self.config["only"]
            self.write(
                "model.json", self.measure_model(outputs, rows) if only is None else self.predict(outputs, rows, only)
            )
        except Exception as error:  # noqa: BLE001 -- whatever a model raises is its own fault, and is reported as that
            self.write("model.json", {"error": self.fault(error, rows)})
            return FAILED
        if self.config["baseline"]:
            self.write("baseline.json", self.measure_baseline(outputs, rows))
        self.enter("done")
        return MEASURED

    def load(self, options: dict[str, Any], rows: Rows) -> measure.Outputs:
        described = {name: (column.dtype, column.shape) for name, column in rows.columns.items()}
        return measure.Outputs(predictors.load(options, described), options["output"])

    def measure_model(self, outputs: measure.Outputs, rows: Rows) -> dict[str, Any]:
        """All figures about the model itself. Its outputs are written to ``model.npy``."""
        self.enter("keys")
        figures: dict[str, Any] = {"keys": measure.check_keys(outputs.predictor, rows)}
        self.enter("batches")
        figures.update(measure.check_batches(outputs, rows))
        self.enter("held-out rows")
        start = time.perf_counter()
        values = measure.score(outputs, rows, self.config["batch"])
        self.save("model.npy", values)
        figures["heldout_seconds"] = time.perf_counter() - start
        self.enter("latency")
        milliseconds = measure.latency([outputs], rows)[0]
        return {**figures, "rows": len(values), "outputs": int(values.shape[1]), "latency_ms": milliseconds}

    def predict(self, outputs: measure.Outputs, rows: Rows, only: list[int]) -> dict[str, Any]:
        """The outputs of single rows."""
        self.enter("prediction")
        asked = [row for row in only if 0 <= row < rows.count]
        if asked:
            self.save("model.npy", outputs(rows.take(asked)))
        return {"rows": len(asked)}

    def measure_baseline(self, outputs: measure.Outputs, rows: Rows) -> dict[str, Any]:
        """The figures about the champion on the same rows, and the latency of both models, measured in turns."""
        try:
            self.enter("champion: load")
            baseline = self.load(self.config["baseline"], rows)
            self.enter("champion: held-out rows")
            values = measure.score(baseline, rows, self.config["batch"])
            self.save("baseline.npy", values)
            self.enter("champion: latency")
            mine, theirs = measure.latency([outputs, baseline], rows)
        except Exception as error:  # noqa: BLE001 -- an old champion may not load in a new environment
            return {"error": self.fault(error, rows)}
        return {"challenger_latency_ms": mine, "latency_ms": theirs, "outputs": int(values.shape[1])}

    def enter(self, stage: str) -> None:
        self.stage = stage
        self.replace("stage", stage.encode())

    def fault(self, error: Exception, rows: Rows) -> dict[str, str]:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}".strip()
        hint = getattr(error, "hint", "") or _too_large(message, rows)
        # Only a limited part of the error is read, which must include the hint.
        return {"stage": self.stage, "message": f"{message[:400]}. To correct it: {hint}" if hint else message[:2000]}

    def save(self, name: str, values: Any) -> None:
        import numpy as np

        np.save(self.out / f".{name}", values)
        os.replace(self.out / f".{name}", self.out / name)  # noqa: PTH105

    def write(self, name: str, data: Any) -> None:
        self.replace(name, json.dumps(data, allow_nan=False).encode())

    def replace(self, name: str, data: bytes) -> None:
        """Write a file atomically, as it may be read at any time."""
        partial = self.out / f".{name}.part"
        partial.write_bytes(data)
        os.replace(partial, self.out / name)  # noqa: PTH105


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Import a framework without garbage collection, which would take a quarter of the CPU time and find nothing.

    Afterwards the imported objects are not examined again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _too_large(message: str, rows: Rows) -> str:
    """If a framework reports an infinite value, a message that says where the first one is."""
    if not re.search(r"\binf(inity|inite)?\b", message, re.I) or (found := rows.too_large()) is None:
        return ""
    name, row, value = found
    return f"column {name!r} is {value:g} in held-out row {row}; correct the data, or let the model replace such values"
