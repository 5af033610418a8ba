"""The evaluation of a model's outputs: predictions, metrics, slices, and the comparison with the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import ModelError
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check
from mlengine.validation.comparison import Baseline, compare
from mlengine.validation.heldout import Heldout, read_column
from mlengine.validation.measured import Measured
from mlengine.validation.metrics.bootstrap import Difference
from mlengine.validation.metrics.curves import curves
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import Value, compute_all
from mlengine.validation.metrics.slices import Slice, slices
from mlengine.validation.outputs import Activation, fit
from mlengine.validation.predictions import Predictions
from mlengine.validation.quality import error_text, metric_checks, output_checks, slice_checks

if TYPE_CHECKING:
    from mlengine.validation.measured import Matrix

# Metrics that a report shows, in addition to those with a threshold.
SHOWN: Mapping[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "accuracy", "f1"),
    "multiclass": ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "worst_class_recall"),
    "regression": ("mean_absolute_error", "root_mean_squared_error", "median_absolute_error", "r2"),
}


@dataclass
class Evaluation:
    """The results that are computed from the outputs of a model, and of the champion, on the same rows.

    :ivar outcomes: the model's predictions with the true values; ``None`` if no metrics can be computed.
    :ivar differences: the differences to the champion, by metric.
    """

    thresholds: Thresholds
    predictions: Predictions | None = None
    outcomes: Outcomes | None = None
    champion_outcomes: Outcomes | None = None
    values: dict[str, Value] = field(default_factory=dict)
    champion_values: dict[str, Value] = field(default_factory=dict)
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)

    def fit(self, heldout: Heldout, outputs: Matrix, activation: Activation) -> list[Check]:
        """Check that the outputs have the form that the task requires. Outputs of another form have no metrics."""
        try:
            fitted = fit(outputs, heldout.task, heldout.classes, activation)
        except ModelError as error:
            message = error_text(error)
            return [Check("outputs", "other", f"those of {heldout.task}", passed=False, message=message)]
        by = {name for item in self.thresholds.slices for name in item.by}
        columns = {name: read_column(heldout, name) for name in sorted(by)}
        self.predictions = Predictions.of(heldout, fitted, columns)
        if heldout.target is not None:
            self.outcomes = Outcomes.of(self.predictions)
        return output_checks(fitted, heldout.rows, heldout.task)

    def measure(self, outcomes: Outcomes, champion: Outcomes | None) -> list[Check]:
        """Compute the metrics of the model and of its slices, and check them against the thresholds.

        :param champion: the champion's predictions for the same rows.
        """
        wanted = self.thresholds.for_task(outcomes.task)
        names = list(dict.fromkeys([*wanted, *SHOWN.get(outcomes.task, ())]))
        self.values = compute_all(names, outcomes)
        self.champion_outcomes = champion
        if champion is not None:
            self.champion_values = compute_all(names, champion)
        found = []
        for item in self.thresholds.slices:
            columns = {name: self.predictions.slices[name] for name in item.by} if self.predictions else {}
            parts = slices(outcomes, columns, item.metric, item.min_rows, champion)
            self.slices[f"{item.metric} by {', '.join(item.by)}"] = parts
            found.append((item, parts))
        return [*metric_checks(self.values, wanted), *slice_checks(found)]

    def compare(
        self, measured: Measured, size: int, baseline: Baseline | None, *, not_run: str = ""
    ) -> tuple[Check, ...]:
        """Compare the model with the champion, as in :func:`~mlengine.validation.comparison.compare`."""
        comparison = compare(self.outcomes, measured, size, baseline, self.thresholds, not_run=not_run)
        self.differences = comparison.differences
        return comparison.checks

    @property
    def comparable(self) -> bool:
        """Whether the thresholds require any comparison."""
        task = self.outcomes.task if self.outcomes is not None else ""
        if not task:
            return True
        return any(item.max_regression is not None for item in self.thresholds.for_task(task).values())

    def champion_figures(self, measured: Measured) -> Mapping[str, Any]:
        """The champion's measurements, metrics and plots on the same rows."""
        if self.champion_outcomes is None:
            return measured.baseline
        metrics = {name: value.number for name, value in self.champion_values.items()}
        drawn = curves(self.champion_outcomes) if self.champion_outcomes.task == "binary" else {}
        return {**measured.baseline, "metrics": metrics, "curves": drawn}

    def context(self, measured: Measured) -> Mapping[str, Any]:
        """The values that extra checks get: the figures, the metrics, and the predictions of both models."""
        return {
            **measured.figures,
            "metrics": {name: value.number for name, value in self.values.items()},
            "champion_metrics": {name: value.number for name, value in self.champion_values.items()},
            "predictions": self.outcomes,
            "champion_predictions": self.champion_outcomes,
        }
