"""Runs a model and writes down what it did. A script: it is run by path with the trainer's own Python.

It imports nothing of mlengine, for there is none in the trainer's environment; numpy and TensorFlow are enough. The
first argument is a JSON file (:mod:`mlengine.validation.runner` writes it); results go to files in its ``out`` folder:

* ``stage``: what is being done, so that whoever ends this process can say what hung
* ``model.json``, ``model.u16``: figures, and the predicted class of each held-out row (65535: none)
* ``baseline.json``, ``baseline.u16``: the champion's, measured in the same process
* ``labels.u16``, ``mistakes.json``, ``digits.json``

Exit codes: 0 measured, 3 the model failed (``model.json`` has the error), 4 the environment lacks what is needed.
It judges nothing.
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

FAILED, UNFIT = 3, 4
NO_CLASS = 65535
EDGE_KEYS = [0, 1, -1, -5, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]
ALONE = 8  # rows that are also scored one at a time
WARM, CALLS = 5, 40  # calls for the latency
MISTAKES = 24
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILE_BYTES = 256 * 1024 * 1024  # that any file it writes may have


def main(config: dict[str, Any]) -> int:
    """Measure what the config asks for. Returns the exit code."""
    out = Path(config["out"])
    stage = Stage(out / "stage")
    stage("import")
    try:
        import numpy as np
        import tensorflow as tf  # type: ignore[import-untyped]
    except ImportError as error:
        write(out / "model.json", {"error": {"stage": "import", "message": str(error)}})
        return UNFIT
    write(out / "environment.json", {"python": sys.version.split()[0], "tensorflow": tf.__version__})
    stage("held-out data")
    rows = Rows(np, config)
    save_classes(out / "labels.u16", rows.labels)
    try:
        stage("load")
        model = Model(np, tf, config["model"])
        figures = (answer if config.get("brief") else measure)(model, rows, stage, out)
        write(out / "model.json", figures)
    except Exception as error:  # noqa: BLE001 -- whatever a model raises is its own fault, and is reported as that
        write(out / "model.json", {"error": fault(stage, error)})
        return FAILED
    if config.get("baseline"):
        write(out / "baseline.json", measure_baseline(tf, model, rows, stage))
    stage("done")
    return 0


class Stage:
    """Writes what is being done now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = ""

    def __call__(self, name: str) -> None:
        self.name = name
        replace(self.path, name.encode())


class Model:
    """A loaded SavedModel, called with keys and rows.

    :param spec: ``path``; ``signature``, ``key``, ``features``, ``scores`` and ``scale`` as in an expectation; and
        ``inputs``, each input's ``[dtype, shape]`` in the SignatureDef. TensorFlow's own description of the loaded
        function is no source for these: it has Python's argument names (``sepal_length`` for ``sepal-length``).
    """

    def __init__(self, np: Any, tf: Any, spec: dict[str, Any]) -> None:
        self.np, self.tf, self.spec = np, tf, spec
        self.loaded = tf.saved_model.load(spec["path"])
        self.call = self.loaded.signatures[spec["signature"]]
        dtype, shape = spec["inputs"][spec["features"]]
        self.dtype = tf.as_dtype(dtype).as_numpy_dtype
        self.floats = tf.as_dtype(dtype).is_floating
        if not (self.floats or tf.as_dtype(dtype).is_integer):
            raise TypeError(f"input {spec['features']!r} takes {dtype}, and held-out rows are numbers")
        self.width = [-1] if shape is None else shape[1:]
        self.key_dtype = tf.as_dtype(spec["inputs"][spec["key"]][0]) if spec["key"] else None

    def __call__(self, rows: Any, keys: list[int] | None = None) -> tuple[Any, Any]:
        """Scores, and the keys that came back (``None`` if the model has none)."""
        spec = self.spec
        feed = {spec["features"]: self.tf.constant(self.features(rows).reshape([len(rows), *self.width]))}
        if spec["key"]:
            keys = list(range(len(rows))) if keys is None else keys
            feed[spec["key"]] = self.tf.constant(keys, self.key_dtype)
        answer = self.call(**feed)
        back = answer[spec["key"]].numpy() if spec["key"] else None
        return answer[spec["scores"]].numpy(), back

    def features(self, rows: Any) -> Any:
        """The rows in the input's type, scaled. Integers must stay what they are: nothing is cut off unnoticed."""
        np, scale = self.np, self.spec["scale"]
        if scale is None:
            scale = 255.0 if self.floats and rows.dtype == np.uint8 else 1.0
        values = rows if scale == 1 else rows.astype(np.float32) / np.float32(scale)
        cast = values.astype(self.dtype)
        if not self.floats and not np.array_equal(cast, values):
            raise ValueError(
                f"input {self.spec['features']!r} takes {np.dtype(self.dtype).name}, which does not hold the values of"
                f" the held-out rows ({values.dtype.name}, {values.min()} to {values.max()})"
            )
        return cast


class Rows:
    """The held-out set: rows as they are stored, flattened, and their labels. Knows how to show one to a person."""

    def __init__(self, np: Any, config: dict[str, Any]) -> None:
        self.np, self.config = np, config
        images = read_idx(np, config["images"])
        self.values = images.reshape(len(images), -1)
        self.labels = read_idx(np, config["labels"]).astype(np.int64)
        low, high, classes = self.labels.min(), self.labels.max(), config["classes"]
        if low < 0 or high >= classes:
            raise ValueError(f"held-out labels go from {low} to {high}; the dataset has {classes} classes")

    def show(self, row: int, scores: Any) -> dict[str, Any]:
        """One row with what its scores say."""
        pixels = as_bytes(self.np, self.values[row])
        said = int(predicted(self.np, scores[None])[0])
        return {
            "row": int(row),
            "label": int(self.labels[row]),
            "predicted": None if said == NO_CLASS else said,
            "score": None if said == NO_CLASS else number(scores[said]),
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
        }


def as_bytes(np: Any, row: Any) -> Any:
    """A row as pixels; values that are no bytes are stretched to 0 to 255."""
    if row.dtype == np.uint8:
        return row
    values = np.nan_to_num(row.astype(np.float64))
    low, high = values.min(), values.max()
    return ((values - low) * (255 / ((high - low) or 1))).round().astype(np.uint8)


def measure(model: Model, rows: Rows, stage: Stage, out: Path) -> dict[str, Any]:
    """Every figure about the model itself; also writes predictions and mistakes.

    Scores that are not one for each class say nothing about classes: then only their number is reported.
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


def answer(model: Model, rows: Rows, stage: Stage, out: Path) -> dict[str, Any]:
    """The rows asked for by number and no more; each is shown under the key that came back with its scores."""
    stage("prediction")
    asked = [row for row in rows.config["show"] if 0 <= row < len(rows.labels)]
    if not asked:
        return {"rows": 0}
    scores, back = model(rows.values[asked], asked)
    check_columns(scores, rows.config["classes"])
    keys = asked if back is None else back.reshape(-1).tolist()
    found = [dict(rows.show(row, one), row=key) for row, key, one in zip(asked, keys, scores)]  # noqa: B905
    write(out / "digits.json", found)
    return {"rows": len(asked)}


def measure_baseline(tf: Any, model: Model, rows: Rows, stage: Stage) -> dict[str, Any]:
    """The champion, on the same rows; the latency of both is taken in turns, so that a busy machine slows both."""
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
        return {"error": fault(stage, error)}
    return figures


def fault(stage: Stage, error: Exception) -> dict[str, str]:
    traceback.print_exc()
    return {"stage": stage.name, "message": f"{type(error).__name__}: {error}".strip()[:2000]}


def check_keys(np: Any, model: Model, rows: Any) -> dict[str, Any] | None:
    """Whether keys come back as sent, however large or negative. ``None`` for a model without keys."""
    if model.key_dtype is None:
        return None
    limits = model.tf.dtypes.as_dtype(model.key_dtype)
    sent = [key for key in EDGE_KEYS if limits.min <= key <= limits.max]
    _, back = model(np.resize(rows, (len(sent), rows.shape[1])), sent)
    back = np.asarray(back).reshape(-1).tolist()
    return {"sent": len(sent), "wrong": [str(key) for key, other in zip(sent, back) if key != other][:5]  # noqa: B905
            + (["their number"] if len(sent) != len(back) else [])}  # fmt: skip


def check_columns(scores: Any, classes: int) -> None:
    """:raises ValueError: there is not one score for each class, so no class can be told from them."""
    columns = scores.shape[1] if scores.ndim > 1 else 1
    if columns != classes:
        raise ValueError(f"{columns} score(s) a row do not name one of {classes} classes")


def check_batches(np: Any, model: Model, rows: Any) -> tuple[Any, Any]:
    """The largest difference between a row's scores in company, in other company, and alone; and the largest score."""
    some = rows[:64]
    together, _ = model(some)
    turned, _ = model(some[::-1])
    alone = np.concatenate([model(some[at : at + 1])[0] for at in range(min(ALONE, len(some)))])
    gaps = [np.abs(together - turned[::-1]).max(), np.abs(together[: len(alone)] - alone).max()]
    return number(max(gaps)), number(np.abs(together).max())


def score(np: Any, model: Model, rows: Any, size: int) -> Any:
    """Scores of all rows, ``size`` rows a call. One score a row comes as one column."""
    parts = []
    for at in range(0, len(rows), size):
        part, back = model(rows[at : at + size])
        want = len(rows[at : at + size])
        part = part[:, None] if part.ndim == 1 else part
        if part.ndim != 2 or len(part) != want:
            raise ValueError(f"{want} rows gave scores of shape {list(part.shape)}")
        if back is not None and back.reshape(-1).tolist() != list(range(want)):
            raise ValueError("keys of a batch came back in another order")
        parts.append(part.astype(np.float64))
    return np.concatenate(parts)


def grade(np: Any, scores: Any, labels: Any) -> dict[str, Any]:
    """Quality of all rows' scores."""
    classes = scores.shape[1]
    answers = predicted(np, scores)
    finite = np.isfinite(scores).all(axis=1)
    confusion = np.zeros((classes, classes), np.int64)
    given = answers != NO_CLASS
    np.add.at(confusion, (labels[given], answers[given]), 1)
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
    """The class with the highest score; none where a score is not a number."""
    finite = np.isfinite(scores).all(axis=1)
    return np.where(finite, np.where(finite[:, None], scores, 0).argmax(axis=1), NO_CLASS).astype(np.int64)


def latency(models: list[Model], rows: Any) -> list[float]:
    """Median milliseconds of a call with one row, of each model, in turns."""
    times: list[list[float]] = [[] for _ in models]
    for turn in range(WARM + CALLS):
        for model, taken in zip(models, times):  # noqa: B905 -- this script also runs on old Pythons
            row = rows[turn % len(rows)][None]
            start = time.perf_counter()
            model(row)
            if turn >= WARM:
                taken.append((time.perf_counter() - start) * 1000)
    return [sorted(taken)[len(taken) // 2] for taken in times]


def read_idx(np: Any, path: str) -> Any:
    """An IDX file, packed or not, in this machine's byte order. Its checksum was verified by whoever fetched it."""
    data = Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    zero, kind, rank = struct.unpack(">HBB", data[:4])
    if zero or kind not in IDX_TYPES:
        raise ValueError(f"{path} is not an IDX file: it begins with {data[:4].hex(' ')}")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    stored = np.frombuffer(data, np.dtype(IDX_TYPES[kind]), offset=4 + 4 * rank).reshape(shape)
    return stored.astype(stored.dtype.newbyteorder("="))


def save_classes(path: Path, classes: Any) -> None:
    replace(path, classes.astype("<u2").tobytes())


def number(value: Any) -> Any:
    """A float that JSON has; infinities and NaN become text."""
    value = float(value)
    return value if value - value == 0 else str(value)


def write(path: Path, data: Any) -> None:
    replace(path, json.dumps(data, allow_nan=False).encode())


def replace(path: Path, data: bytes) -> None:
    """Whole or not there: the reader may look at any moment."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    os.replace(partial, path)  # noqa: PTH105


def restrain(config: dict[str, Any]) -> None:
    """Limit this process before the model gets near it."""
    try:
        import resource

        if config.get("memory_bytes"):
            # Counts private writable memory only. RLIMIT_AS would also count the mapped library.
            resource.setrlimit(resource.RLIMIT_DATA, (config["memory_bytes"],) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)  # its log, too
    except (ImportError, ValueError, OSError) as error:
        sys.stderr.write(f"probe: no memory limit on this system: {error}\n")
    with contextlib.suppress(OSError):
        # If the machine runs out of memory, let the kernel end this process rather than the worker.
        Path("/proc/self/oom_score_adj").write_text("1000")


def end_with_parent() -> None:
    """Stdin is a pipe that the parent never writes to: it ends when the parent does, however that died."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    end_with_parent()
    restrain(settings)
    try:
        code = main(settings)
    except BaseException:  # noqa: BLE001 -- an ordinary exit would abort in the thread that waits for the parent
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # TensorFlow's threads have no clean stop
