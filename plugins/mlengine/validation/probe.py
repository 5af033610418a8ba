"""Runs a model on the held-out set and writes the measurements. A script, run with the trainer's own Python.

mlengine is not installed in the trainer's environment, so the script needs only numpy and TensorFlow. The
argument is a JSON file that :mod:`mlengine.validation.runner` writes. The results are files in its ``out`` folder:

* ``stage``: the current step, so that the parent process can report where the probe stopped
* ``model.json``, ``model.u16``: measurements, and the predicted class of each held-out row (65535: none)
* ``baseline.json``, ``baseline.u16``: the same for the champion, measured in the same process
* ``labels.u16``, ``mistakes.json``, ``digits.json``, ``environment.json``

Exit codes: 0 measured, 3 the model failed (``model.json`` has the error), 4 a package is missing in the environment.
The measurements are compared with the thresholds by the parent process.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

MODEL_FAILED, PACKAGE_MISSING = 3, 4
NO_CLASS = 65535
EDGE_KEYS = [0, 1, -1, -5, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]
SINGLE_ROWS = 8  # rows that are also scored one at a time
WARM_UP_CALLS, CALLS = 5, 40  # for the latency
MISTAKES = 24
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILE_BYTES = 256 * 1024 * 1024  # maximum size of each file that the probe writes


def main(config: dict[str, Any]) -> int:
    """Measure the model and the champion. Returns the exit code."""
    out = Path(config["out"])
    stage = Stage(out / "stage")
    stage("import")
    try:
        import numpy as np
        import tensorflow as tf  # type: ignore[import-untyped]
    except ImportError as error:
        write(out / "model.json", {"error": {"stage": "import", "message": str(error)}})
        return PACKAGE_MISSING
    write(out / "environment.json", {"python": sys.version.split()[0], "tensorflow": tf.__version__})
    stage("held-out data")
    rows = Rows(np, config)
    save_classes(out / "labels.u16", rows.labels)
    try:
        stage("load")
        model = Model(np, tf, config["model"])
        figures = (predict if config.get("brief") else measure)(model, rows, stage, out)
        write(out / "model.json", figures)
    except Exception as error:  # noqa: BLE001 -- a model may raise anything; it is reported as a failure of the model
        write(out / "model.json", {"error": describe(stage, error)})
        return MODEL_FAILED
    if config.get("baseline"):
        write(out / "baseline.json", measure_baseline(tf, model, rows, stage))
    stage("done")
    return 0


class Stage:
    """Writes the current step to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = ""

    def __call__(self, name: str) -> None:
        self.name = name
        replace(self.path, name.encode())


class Model:
    """A loaded SavedModel.

    :param spec: ``path``; ``signature``, ``key``, ``features``, ``scores`` and ``scale`` of the serving signature; and
        ``inputs``, each input's ``[dtype, shape]`` in the SignatureDef. The loaded function's own description cannot be
        used for these: it has the names of Python arguments (``sepal_length`` for ``sepal-length``).
    """

    def __init__(self, np: Any, tf: Any, spec: dict[str, Any]) -> None:
        self.np, self.tf, self.spec = np, tf, spec
        self.loaded = tf.saved_model.load(spec["path"])
        self.call = self.loaded.signatures[spec["signature"]]
        dtype, shape = spec["inputs"][spec["features"]]
        self.dtype = tf.as_dtype(dtype).as_numpy_dtype
        self.floats = tf.as_dtype(dtype).is_floating
        if not (self.floats or tf.as_dtype(dtype).is_integer):
            raise TypeError(f"input {spec['features']!r} takes {dtype}, but held-out rows are numbers")
        self.width = [-1] if shape is None else shape[1:]
        self.key_dtype = tf.as_dtype(spec["inputs"][spec["key"]][0]) if spec["key"] else None

    def __call__(self, rows: Any, keys: list[int] | None = None) -> tuple[Any, Any]:
        """Scores, and the returned keys (``None`` if the signature has no key)."""
        spec = self.spec
        feed = {spec["features"]: self.tf.constant(self.features(rows).reshape([len(rows), *self.width]))}
        if spec["key"]:
            keys = list(range(len(rows))) if keys is None else keys
            feed[spec["key"]] = self.tf.constant(keys, self.key_dtype)
        outputs = self.call(**feed)
        back = outputs[spec["key"]].numpy() if spec["key"] else None
        return outputs[spec["scores"]].numpy(), back

    def features(self, rows: Any) -> Any:
        """The rows, scaled and converted to the input's type.

        :raises ValueError: an integer input cannot represent the values exactly.
        """
        np, scale = self.np, self.spec["scale"]
        if scale is None:
            scale = 255.0 if self.floats and rows.dtype == np.uint8 else 1.0
        values = rows if scale == 1 else rows.astype(np.float32) / np.float32(scale)
        cast = values.astype(self.dtype)
        if not self.floats and not np.array_equal(cast, values):
            raise ValueError(
                f"input {self.spec['features']!r} takes {np.dtype(self.dtype).name}, which cannot represent the"
                f" values of the held-out rows ({values.dtype.name}, {values.min()} to {values.max()})"
            )
        return cast


class Rows:
    """The held-out set: flattened rows in their stored type, and their labels."""

    def __init__(self, np: Any, config: dict[str, Any]) -> None:
        self.np, self.config = np, config
        images = read_idx(np, config["images"])
        self.values = images.reshape(len(images), -1)
        self.labels = read_idx(np, config["labels"]).astype(np.int64)
        low, high, classes = self.labels.min(), self.labels.max(), config["classes"]
        if low < 0 or high >= classes:
            raise ValueError(f"held-out labels range from {low} to {high}, but the dataset has {classes} classes")

    def show(self, row: int, scores: Any) -> dict[str, Any]:
        """One row for display: pixels, label, and predicted class with its score."""
        pixels = as_bytes(self.np, self.values[row])
        best = int(predicted(self.np, scores[None])[0])
        return {
            "row": int(row),
            "label": int(self.labels[row]),
            "predicted": None if best == NO_CLASS else best,
            "score": None if best == NO_CLASS else number(scores[best]),
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
        }


def as_bytes(np: Any, row: Any) -> Any:
    """A row as pixels. Values that are not bytes are rescaled to 0 to 255."""
    if row.dtype == np.uint8:
        return row
    values = np.nan_to_num(row.astype(np.float64))
    low, high = values.min(), values.max()
    return ((values - low) * (255 / ((high - low) or 1))).round().astype(np.uint8)


def measure(model: Model, rows: Rows, stage: Stage, out: Path) -> dict[str, Any]:
    """Measure the model. Also writes predictions and mistakes.

    If there is not one score per class, only the number of scores is reported, because they identify no class.
    """
    np, config = rows.np, rows.config
    stage("keys")
    figures: dict[str, Any] = {"keys": check_keys(np, model, rows.values)}
    stage("batches")
    figures["batch_difference"], figures["largest"] = check_batches(np, model, rows.values)
    stage("held-out scores")
    scores = score(np, model, rows.values, int(config["batch"]))
    figures["columns"] = scores.shape[1]
    if scores.shape[1] != config["classes"]:
        return figures
    figures.update(grade(np, scores, rows.labels))
    classes = predicted(np, scores)
    save_classes(out / "model.u16", classes)
    wrong = np.flatnonzero((classes != rows.labels) & (classes != NO_CLASS))
    worst = sorted(wrong, key=lambda row: -scores[row, classes[row]])[:MISTAKES]
    write(out / "mistakes.json", [rows.show(row, scores[row]) for row in worst])
    stage("latency")
    figures["latency_ms"] = latency([model], rows.values)[0]
    return figures


def predict(model: Model, rows: Rows, stage: Stage, out: Path) -> dict[str, Any]:
    """Predict only the rows in ``show``. Each result has the key that the model returned for it."""
    stage("prediction")
    wanted = [row for row in rows.config["show"] if 0 <= row < len(rows.labels)]
    if not wanted:
        return {"rows": 0}
    scores, back = model(rows.values[wanted], wanted)
    check_columns(scores, rows.config["classes"])
    keys = wanted if back is None else back.reshape(-1).tolist()
    found = [dict(rows.show(row, one), row=key) for row, key, one in zip(wanted, keys, scores)]  # noqa: B905
    write(out / "digits.json", found)
    return {"rows": len(wanted)}


def measure_baseline(tf: Any, model: Model, rows: Rows, stage: Stage) -> dict[str, Any]:
    """Measure the champion on the same rows. The latencies are measured alternately, so load affects both."""
    np, config = rows.np, rows.config
    try:
        stage("champion: load")
        baseline = Model(np, tf, config["baseline"])
        stage("champion: held-out scores")
        scores = score(np, baseline, rows.values, int(config["batch"]))
        check_columns(scores, config["classes"])
        figures = grade(np, scores, rows.labels)
        stage("champion: latency")
        figures["challenger_latency_ms"], figures["latency_ms"] = latency([model, baseline], rows.values)
        save_classes(Path(config["out"]) / "baseline.u16", predicted(np, scores))
    except Exception as error:  # noqa: BLE001 -- an old champion may not load in a new environment
        return {"error": describe(stage, error)}
    return figures


def describe(stage: Stage, error: Exception) -> dict[str, str]:
    """Print the traceback; return the stage and the error for the result file."""
    traceback.print_exc()
    return {"stage": stage.name, "message": f"{type(error).__name__}: {error}".strip()[:2000]}


def check_keys(np: Any, model: Model, rows: Any) -> dict[str, Any] | None:
    """Check that keys are returned as sent, including large and negative ones. ``None`` if the signature has no key."""
    if model.key_dtype is None:
        return None
    limits = model.tf.dtypes.as_dtype(model.key_dtype)
    sent = [key for key in EDGE_KEYS if limits.min <= key <= limits.max]
    _, back = model(np.resize(rows, (len(sent), rows.shape[1])), sent)
    back = np.asarray(back).reshape(-1).tolist()
    return {"sent": len(sent), "wrong": [str(key) for key, other in zip(sent, back) if key != other][:5]  # noqa: B905
            + (["the number of keys"] if len(sent) != len(back) else [])}  # fmt: skip


def check_columns(scores: Any, classes: int) -> None:
    """:raises ValueError: there is not one score per class."""
    columns = scores.shape[1] if scores.ndim > 1 else 1
    if columns != classes:
        raise ValueError(f"{columns} score(s) per row for {classes} classes")


def check_batches(np: Any, model: Model, rows: Any) -> tuple[Any, Any]:
    """The largest difference between scores of the same row in different batches and alone; and the largest score."""
    some = rows[:64]
    together, _ = model(some)
    reversed_rows, _ = model(some[::-1])
    alone = np.concatenate([model(some[at : at + 1])[0] for at in range(min(SINGLE_ROWS, len(some)))])
    differences = [np.abs(together - reversed_rows[::-1]).max(), np.abs(together[: len(alone)] - alone).max()]
    return number(max(differences)), number(np.abs(together).max())


def score(np: Any, model: Model, rows: Any, size: int) -> Any:
    """Scores of all rows, ``size`` rows per call. A single score per row becomes one column."""
    parts = []
    for at in range(0, len(rows), size):
        part, back = model(rows[at : at + size])
        want = len(rows[at : at + size])
        part = part[:, None] if part.ndim == 1 else part
        if part.ndim != 2 or len(part) != want:
            raise ValueError(f"scores of {want} rows have shape {list(part.shape)}")
        if back is not None and back.reshape(-1).tolist() != list(range(want)):
            raise ValueError("the keys of a batch were returned in a different order")
        parts.append(part.astype(np.float64))
    return np.concatenate(parts)


def grade(np: Any, scores: Any, labels: Any) -> dict[str, Any]:
    """Quality measures of the scores of all rows."""
    classes = scores.shape[1]
    best = predicted(np, scores)
    finite = np.isfinite(scores).all(axis=1)
    confusion = np.zeros((classes, classes), np.int64)
    given = best != NO_CLASS
    np.add.at(confusion, (labels[given], best[given]), 1)
    counts = np.bincount(labels, minlength=classes)
    right = np.diag(confusion)
    sums = np.abs(scores[finite].sum(axis=1) - 1) if finite.any() else np.array([np.inf])
    return {
        "rows": len(labels),
        "not_finite": int((~finite).sum()),
        "sum_error": number(sums.max()),
        "lowest": number(scores[finite].min() if finite.any() else np.nan),
        "accuracy": float(right.sum() / len(labels)),
        "per_class": [float(hits / count) if count else None for hits, count in zip(right, counts)],  # noqa: B905
        "counts": counts.tolist(),
        "confusion": confusion.tolist(),
    }


def predicted(np: Any, scores: Any) -> Any:
    """The class with the highest score; :data:`NO_CLASS` for rows with a score that is not finite."""
    finite = np.isfinite(scores).all(axis=1)
    return np.where(finite, np.where(finite[:, None], scores, 0).argmax(axis=1), NO_CLASS).astype(np.int64)


def latency(models: list[Model], rows: Any) -> list[float]:
    """Median time of a call with one row in milliseconds, for each model, measured alternately."""
    times: list[list[float]] = [[] for _ in models]
    for turn in range(WARM_UP_CALLS + CALLS):
        for model, taken in zip(models, times):  # noqa: B905 -- this script also runs on old Pythons
            row = rows[turn % len(rows)][None]
            start = time.perf_counter()
            model(row)
            if turn >= WARM_UP_CALLS:
                taken.append((time.perf_counter() - start) * 1000)
    return [sorted(taken)[len(taken) // 2] for taken in times]


def read_idx(np: Any, path: str) -> Any:
    """Read an IDX file, compressed or not, in native byte order. Its checksum was verified by the download."""
    data = Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    zero, kind, rank = struct.unpack(">HBB", data[:4])
    if zero or kind not in IDX_TYPES:
        raise ValueError(f"{path} is not an IDX file: it starts with {data[:4].hex(' ')}")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    stored = np.frombuffer(data, np.dtype(IDX_TYPES[kind]), offset=4 + 4 * rank).reshape(shape)
    return stored.astype(stored.dtype.newbyteorder("="))


def save_classes(path: Path, classes: Any) -> None:
    replace(path, classes.astype("<u2").tobytes())


def number(value: Any) -> Any:
    """A float for JSON. Infinity and NaN become strings."""
    value = float(value)
    return value if value - value == 0 else str(value)


def write(path: Path, data: Any) -> None:
    replace(path, json.dumps(data, allow_nan=False).encode())


def replace(path: Path, data: bytes) -> None:
    """Write a file atomically: the parent process may read it at any time."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    os.replace(partial, path)  # noqa: PTH105


def set_limits(config: dict[str, Any]) -> None:
    """Limit the resources of this process before the model is loaded."""
    try:
        import resource

        if config.get("memory_bytes"):
            # Private writable memory only. RLIMIT_AS would include the mapped libraries.
            resource.setrlimit(resource.RLIMIT_DATA, (config["memory_bytes"],) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)  # includes the log
    except (ImportError, ValueError, OSError) as error:
        sys.stderr.write(f"probe: cannot set resource limits on this system: {error}\n")
    with contextlib.suppress(OSError):
        # If the machine runs out of memory, the kernel kills this process before the Airflow worker.
        Path("/proc/self/oom_score_adj").write_text("1000")


def exit_with_parent() -> None:
    """Exit when the parent process ends. Stdin is a pipe that the parent holds open and never writes to."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    exit_with_parent()
    set_limits(settings)
    try:
        code = main(settings)
    except BaseException:  # noqa: BLE001 -- a normal exit would abort in the thread that waits for the parent
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # TensorFlow's threads cannot be stopped cleanly
