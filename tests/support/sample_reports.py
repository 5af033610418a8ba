"""A validation report for each kind of task.

This project's own code computes the metrics, slices, comparisons and plots; the predictions are random with a fixed
seed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, Decision, Verdict, decide
from mlengine.validation.comparison import Baseline, compare_outcomes
from mlengine.validation.curves import Curves
from mlengine.validation.evaluation import SHOWN
from mlengine.validation.metrics.curves import curves
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import compute_all
from mlengine.validation.metrics.slices import slices
from mlengine.validation.quality import metric_checks, slice_checks
from mlengine.validation.report import Report

ROWS = 2000
CARRIERS = ("AA", "B6", "DL", "UA", "WN")
CHAMPION = {
    "serial": 3,
    "job_id": "flights_20261001_a81f",
    "job_dir": "gs://bucket/flights/flights_20261001_a81f",
    "metric": "",
    "metric_value": None,
    "dataset_version": "2026-10-01",
}
CURVES = Curves(
    {
        "train_loss": tuple((step, 1 / step**0.5) for step in range(10, 1000, 10)),
        "val_loss": tuple((step, 1.15 / step**0.5) for step in range(10, 1000, 50)),
        "val_auc": tuple((step, 0.9 - 0.4 / step**0.5) for step in range(10, 1000, 50)),
    }
)


def binary(champion: bool = True) -> Report:
    """Binary classification of late flights; a metric is undefined for the smallest slice."""
    draw = np.random.default_rng(3)
    carrier = draw.choice(len(CARRIERS), ROWS, p=[0.3, 0.25, 0.2, 0.22, 0.03])
    truth = draw.random(ROWS) < np.array([0.1, 0.3, 0.2, 0.25, 0.0])[carrier]
    signal = truth + draw.normal(0, 0.9, ROWS)
    mine = 1 / (1 + np.exp(-(2.2 * signal - 2.6)))
    theirs = 1 / (1 + np.exp(-(2.2 * (signal + draw.normal(0, 0.35, ROWS) - 0.4 * (carrier == 3)) - 2.4)))
    columns = {"carrier": np.array([CARRIERS[at] for at in carrier]), "distance": draw.gamma(2, 500, ROWS).round()}
    thresholds = Thresholds.from_json(
        {
            "roc_auc": {"min": 0.7, "max_regression": 0.005},
            "log_loss": {"max": 0.6, "max_regression": "2%"},
            "slices": {"by": ["carrier"], "metric": "roc_auc", "min": 0.77, "min_rows": 20},
        }
    )
    return _report(
        "flights",
        "binary",
        truth.astype(np.int64),
        (mine, theirs if champion else None),
        thresholds,
        columns,
        classes=("on time", "late"),
        column="arr_late",
        model_kind="keras",
    )


def multiclass(classes: Sequence[str] = tuple("0123456789"), champion: bool = True, images: bool = True) -> Report:
    """Multiclass classification of digits as images, or of any other number of classes as a table."""
    draw, count = np.random.default_rng(5), len(classes)
    truth = draw.integers(0, count, ROWS)
    scores = draw.normal(0, 1, (2, ROWS, count))
    scores[:, np.arange(ROWS), truth] += 3.2 if count < 20 else 4.5
    mine, theirs = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    thresholds = Thresholds.from_json({"accuracy": {"min": 0.5, "max_regression": 0.02}})
    made = _report(
        "mnist",
        "multiclass",
        truth,
        (mine, theirs if champion else None),
        thresholds,
        {"length": draw.integers(1, 400, ROWS)},
        classes=tuple(classes),
        column="label",
        model_kind="savedmodel",
    )
    if not images:
        return made
    pixels = base64.b64encode(bytes(range(256)) * 3 + bytes(16)).decode()
    return replace(
        made,
        worst_rows=tuple(
            {**row, "columns": {}, "image": {"shape": [28, 28], "pixels": pixels}} for row in made.worst_rows
        ),
    )


def regression(champion: bool = True) -> Report:
    """Regression of prices in hundreds of thousands, with some outliers."""
    draw = np.random.default_rng(7)
    target = draw.lognormal(12.6, 0.5, ROWS).round(-2)
    mine = target * draw.normal(1.0, 0.12, ROWS)
    mine[:3] *= 6
    theirs = target * draw.normal(1.02, 0.14, ROWS)
    columns = {
        "district": np.array([f"district {at}" for at in draw.integers(0, 70, ROWS)]),
        "area": draw.gamma(9, 12, ROWS).round(1),
        "description": np.array(
            ["Bright flat with a view of the river, close to shops, schools and the station " * 3] * ROWS
        ),
    }
    thresholds = Thresholds.from_json(
        {
            "mean_absolute_error": {"max": 60_000, "max_regression": "1%"},
            "slices": {"by": ["district"], "metric": "mean_absolute_error", "max": 60_000, "min_rows": 15},
        }
    )
    return _report(
        "prices",
        "regression",
        target,
        (mine, theirs if champion else None),
        thresholds,
        columns,
        column="price",
        model_kind="scorer",
        scorer="prices.serve:load",
    )


def opaque() -> Report:
    """A report on a model of which only the files are checked."""
    checks = [
        Check("files", 4, "complete", passed=True, message="The model is complete: 4 files; there is no manifest."),
        Check.skip("size", "The model has 1.2 MiB; no maximum is set."),
        Check("vocabulary", 812, "≥ 1000", passed=False, message="The vocabulary has 812 words."),
    ]
    made = _bare("words", decide(checks, champion="words_1"), Thresholds(), "files")
    return replace(
        made, champion={**CHAMPION, "job_id": "words_1"}, extra_checks=({"name": "vocabulary", "digest": ""},)
    )


def without_task() -> Report:
    """A report on a model that is run on a dataset without a task."""
    checks = [Check("runs", "yes", "loads and runs", passed=True, message="The model loads and returns predictions.")]
    made = _bare("words", decide(checks, champion=None), Thresholds(), "all")
    return replace(made, task="none", model_kind="onnx", dataset={"name": "words", "version": "v1", "rows": 1200})


def _report(
    model: str,
    task: str,
    target: Any,
    values: tuple[Any, Any],
    thresholds: Thresholds,
    columns: Mapping[str, Any],
    *,
    column: str,
    classes: Sequence[Any] = (),
    **facts: Any,
) -> Report:
    mine, theirs = (None if part is None else _outcomes(task, target, part, len(classes)) for part in values)
    assert mine is not None
    wanted = thresholds.for_task(task)
    names = list(dict.fromkeys([*wanted, *SHOWN[task]]))
    found = compute_all(names, mine)
    parts = {
        f"{item.metric} by {', '.join(item.by)}": slices(
            mine, {name: columns[name] for name in item.by}, item.metric, item.min_rows, theirs
        )
        for item in thresholds.slices
    }
    checks = [*metric_checks(found, wanted), *slice_checks(zip(thresholds.slices, parts.values(), strict=True))]
    baseline: dict[str, Any] = {}
    differences: Mapping[str, Any] = {}
    if theirs is not None:
        compared, differences = compare_outcomes(mine, Baseline(str(CHAMPION["job_id"]), 10, theirs), thresholds)
        checks += compared
        baseline = {
            "metrics": {name: value.number for name, value in compute_all(names, theirs).items()},
            "curves": curves(theirs) if task == "binary" else {},
            "latency_ms": 2.6,
            "challenger_latency_ms": 2.31,
        }
    verdict = decide(checks, champion=None if theirs is None else str(CHAMPION["job_id"]))
    made = _bare(model, verdict, thresholds, "all")
    return replace(
        made,
        task=task,
        dataset={**made.dataset, "rows": ROWS, "task": task, "target": column, "classes": list(classes)},
        champion={} if theirs is None else CHAMPION,
        figures={"latency_ms": 2.3},
        baseline=baseline,
        comparison={name: asdict(item) for name, item in differences.items()},
        metrics={name: value.number for name, value in found.items()},
        undefined={name: value.undefined for name, value in found.items() if value.number is None},
        main_metric=thresholds.main_metric(task),
        curves=curves(mine),
        slices={name: [asdict(one) for one in some] for name, some in parts.items()},
        worst_rows=tuple(_worst(mine, classes, columns)),
        **facts,
    )


def _outcomes(task: str, target: Any, values: Any, classes: int) -> Outcomes:
    predicted = None
    if task == "binary":
        predicted = (values >= 0.5).astype(np.int64)
    elif task == "multiclass":
        predicted = values.argmax(axis=1)
    return Outcomes(task, target, values, predicted, class_count=classes)


def _worst(outcomes: Outcomes, classes: Sequence[Any], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    values, predicted = outcomes.need_values(), outcomes.predicted
    if predicted is None:
        errors = np.abs(values - outcomes.target)
    else:
        confidence = np.abs(values - 0.5) + 0.5 if values.ndim == 1 else values.max(axis=1)
        errors = np.where(predicted != outcomes.target, confidence, 0)
    return [
        {
            "row": int(row),
            "key": None,
            "target": _named(classes, outcomes.target[row]),
            "prediction": _named(classes, values[row] if predicted is None else predicted[row]),
            "error": round(float(errors[row]), 6),
            "columns": {name: column[row].item() for name, column in columns.items()},
        }
        for row in np.argsort(-errors)[:24]
    ]


def _named(classes: Sequence[Any], value: Any) -> Any:
    return classes[int(value)] if classes else float(value)


def _bare(model: str, verdict: Verdict, thresholds: Thresholds, scope: str) -> Report:
    job_id = f"{model}_20261101_07c2"
    return Report(
        model=model,
        job_id=job_id,
        job_dir=f"gs://bucket/{model}/{job_id}",
        model_uri=f"gs://bucket/{model}/{job_id}/model",
        verdict=verdict,
        thresholds=thresholds,
        checks=scope,
        created="2026-11-23T12:00:00+00:00",
        digest="5a" * 32,
        size=123_456,
        dataset={
            "name": model,
            "version": "2026-11-01",
            "uri": f"gs://bucket/datasets/{model}/2026-11-01",
            "digest": "c0" * 32,
        },
        lineage={
            "args": ["--epochs", "3"],
            "events": [{"time": 1_795_445_000.0, "event": "fresh_submit", "attempt": 1}],
        },
        usage={"attempts": 1, "queued_seconds": 0.5, "seconds": 81.2},
        seconds={"files": 0.1, "scoring": 4.2, "metrics": 0.3},
    )


SAMPLES = {
    "binary": binary,
    "binary-first": lambda: binary(champion=False),
    "multiclass": multiclass,
    "multiclass-many": lambda: multiclass([f"category {at} of goods" for at in range(45)], images=False),
    "regression": regression,
    "opaque": opaque,
    "without-task": without_task,
}


def rejected(report: Report, reason: str) -> Report:
    """The report with its verdict changed to rejected."""
    return replace(report, verdict=Verdict(Decision.REJECTED, (reason,), report.verdict.checks))
