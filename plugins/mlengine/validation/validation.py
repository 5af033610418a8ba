"""Validates the model of a finished job. Cheap checks come first; the model runs only after they have passed.

1. files: the export is complete (manifest, sizes, checksums) and not too large
2. signature: names, dtypes and shapes; devices; ops with effects outside the graph
3. scoring: the model and the champion predict the held-out set, as a subprocess in the trainer's environment
4. metrics: their values, those of slices, and the comparison with the champion
5. verdict: ``report.json``, ``report.html`` and ``predictions.parquet`` are written to the job directory

A problem of the model is a failed check. Any other problem (storage, dataset, environment) is raised, because it says
nothing about the model.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.champions.history import Champion, current
from mlengine.core.errors import DatasetError, ModelError
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Check, Verdict, decide
from mlengine.storage.client import Storage
from mlengine.validation.curves import read_curves
from mlengine.validation.export import Export, download, resolve
from mlengine.validation.extra_checks import run_check
from mlengine.validation.heldout import Heldout, HeldoutVersion, read_column, read_heldout
from mlengine.validation.job import FinishedJob, load_job
from mlengine.validation.metrics.bootstrap import Difference
from mlengine.validation.metrics.curves import curves
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import Value, compute_all
from mlengine.validation.metrics.slices import Slice, slices
from mlengine.validation.model_kind import SCORER, find_kind
from mlengine.validation.outputs import fit
from mlengine.validation.predictions import Predictions, load_predictions
from mlengine.validation.quality import (
    Baseline,
    compare,
    metric_checks,
    output_checks,
    run_checks,
    size_check,
    slice_checks,
)
from mlengine.validation.report import Report, find_report, store
from mlengine.validation.report_page import render
from mlengine.validation.rules import Rules, Scope, dropped_checks, recorded_model
from mlengine.validation.runner import Measured, run_model
from mlengine.validation.scored_model import ScoredModel
from mlengine.validation.signature import check_saved_model
from mlengine.validation.worst_rows import worst_rows

if TYPE_CHECKING:
    from mlengine.validation.runner import Matrix

log = logging.getLogger(__name__)

# Metrics that a report shows, in addition to those with a threshold.
SHOWN: Mapping[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "accuracy", "f1"),
    "multiclass": ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "worst_class_recall"),
    "regression": ("mean_absolute_error", "root_mean_squared_error", "median_absolute_error", "r2"),
}
MOST_NAMES = 1000  # classes whose names a report keeps
MOST_SLICES = 200  # slices that a report keeps of each threshold


@dataclass(frozen=True)
class ValidationEnvironment:
    """The trainer's environment and the dataset cache on this machine.

    :param python: builds the trainer's environment and yields its interpreter. It is entered only if the model runs.
    :param datasets: the folder in which downloaded dataset versions are cached.
    """

    python: Callable[[], AbstractContextManager[Path]]
    datasets: Path


def validate(
    storage: Storage,
    job: FinishedJob,
    rules: Rules,
    environment: ValidationEnvironment,
    *,
    replace_report: bool = False,
) -> Report:
    """Validate the model of ``job`` and store the report in the job directory.

    Can be repeated: the model is then validated again, against the current champion.

    :param replace_report: replace the job's report even if it has checks that ``rules`` do not include.
    :raises ModelError: the job has such a report, and ``replace_report`` is false.
    :raises DatasetError: there is no held-out set.
    :raises EnvironmentBuildError: the trainer's environment cannot be built.
    :raises StorageError: the storage service failed or denied access.
    """
    if not replace_report:
        _refuse_to_drop_checks(storage, job, rules)
    champion = current(storage, job.bucket, job.model)
    name = None if champion is None else champion.job_id
    with tempfile.TemporaryDirectory(prefix="mlengine-validation-") as scratch:
        validation = _Validation(storage, job, rules, environment, champion, Path(scratch))
        validation.run()
        required = rules.require_comparison and validation.comparable
        report = validation.report(decide(validation.checks, champion=name, require_comparison=required))
    store(storage, report, validation.predictions, render(report, read_curves(storage, job.job_dir)))
    return report


def _refuse_to_drop_checks(storage: Storage, job: FinishedJob, rules: Rules) -> None:
    """:raises ModelError: the job has a report of these files with checks that ``rules`` do not include."""
    report = find_report(storage, job.job_dir)
    dropped = dropped_checks(report, rules) if report else []
    if report is None or not dropped:
        return
    try:
        export = resolve(storage, job.job_dir.model, known=report.checks != Scope.FILES and not report.scorer)
    except ModelError:
        return
    if export.fingerprint == report.fingerprint:  # otherwise the report is about other files, and is outdated
        raise ModelError(
            f"the report of {report.job_id} ({report.verdict.decision.value}, {report.created}) has checks that this"
            f" validation does not make: {'; '.join(dropped)}",
            hint="to keep them, clear the task `validate` of the job's DAG run; to replace the report, use"
            " `mlengine models validate --replace-report` or ValidateModelOperator(replace_report=True)",
        )


@dataclass
class _Validation:
    """The state of a validation."""

    storage: Storage
    job: FinishedJob
    rules: Rules
    environment: ValidationEnvironment
    champion: Champion | None
    scratch: Path
    checks: list[Check] = field(default_factory=list)
    export: Export = field(default_factory=lambda: Export(""))
    digest: str = ""
    dataset: dict[str, Any] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    model_kind: str = ""
    version: HeldoutVersion | None = None
    predictions: Predictions | None = None
    outcomes: Outcomes | None = None
    champion_outcomes: Outcomes | None = None
    values: dict[str, Value] = field(default_factory=dict)
    champion_values: dict[str, Value] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    unavailable: str = ""  # why the champion has no predictions
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        return self.scratch / "model"

    @property
    def scorer(self) -> str:
        return self.rules.scorer or self.job.scorer

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def run(self) -> None:
        with self.timed("files"):
            self.check_files()
        if self.passed and self.rules.scope is not Scope.FILES:
            self.check_signature()
        if self.passed and self.rules.scope is Scope.ALL:
            self.run_model()
        if self.outcomes is not None:
            with self.timed("metrics"):
                self.measure(self.outcomes)
        if self.passed or self.outcomes is not None:
            with self.timed("comparison"):
                self.compare()
        if self.export.files:
            self.checks += [run_check(check, self.model, self.context()) for check in self.rules.extra_checks]

    def check_files(self) -> None:
        threshold = "complete"
        try:
            known = self.rules.scope is not Scope.FILES and not self.scorer
            export = resolve(self.storage, self.job.job_dir.model, known=known)
            size = size_check(export.size, self.rules.thresholds.size_bytes)
            if size.passed:  # a model that is too large is not downloaded
                self.digest = download(self.storage, export, self.model)
        except ModelError as error:
            self.checks.append(Check("files", "broken", threshold, passed=False, message=_with_hint(error)))
            return
        self.export = export
        kind = "as in the manifest" if export.manifest else "there is no manifest"
        text = f"The model is complete: {len(export.files)} files; {kind}."
        self.checks += [Check("files", len(export.files), threshold, passed=True, message=text), size]

    def check_signature(self) -> None:
        """The signature of a SavedModel; other kinds say how they are called only when they are loaded."""
        found = None if self.scorer else find_kind(self.export.files)
        if found is not None and found.kind == "savedmodel":
            self.checks += check_saved_model(self.model / found.path, self.rules.expected)
        elif self.rules.scope is Scope.SIGNATURE:
            text = "The model is not a SavedModel, so its signature cannot be read without loading it."
            self.checks.append(Check.skip("signature", text))

    def run_model(self) -> None:
        with self.timed("dataset"):
            self.version = self.read_heldout()
        heldout = self.version.heldout
        try:
            model = ScoredModel.read(self.model, self.rules.expected, scorer=self.scorer, classes=heldout.classes)
        except ModelError as error:
            self.checks.append(Check("runs", "no", "loads and runs", passed=False, message=_with_hint(error)))
            return
        self.model_kind = model.kind
        baseline = self.champion_model(heldout)
        work = self.scratch / "scoring"
        work.mkdir()
        with ExitStack() as stack:
            with self.timed("environment"):
                python = stack.enter_context(self.environment.python())
            with self.timed("scoring"):
                limits = self.rules.limits
                self.measured = run_model(python, model, heldout, work=work, baseline=baseline, limits=limits)
        self.checks += run_checks(self.measured, self.rules.thresholds)
        if self.measured.outputs is not None:
            self.fit_outputs(heldout, self.measured.outputs)

    def fit_outputs(self, heldout: Heldout, outputs: Matrix) -> None:
        """Hold the outputs to the task. Outputs of another form have no metrics."""
        try:
            fitted = fit(outputs, heldout.task, heldout.classes, self.rules.expected.activation)
        except ModelError as error:
            message = _with_hint(error)
            self.checks.append(Check("outputs", "other", f"those of {heldout.task}", passed=False, message=message))
            return
        self.checks += output_checks(fitted, heldout.rows, heldout.task)
        by = {name for item in self.rules.thresholds.slices for name in item.by}
        columns = {name: read_column(heldout, name) for name in sorted(by)}
        self.predictions = Predictions.of(heldout, fitted, columns)
        if heldout.target is not None:
            self.outcomes = Outcomes.of(self.predictions)

    def measure(self, outcomes: Outcomes) -> None:
        """The metrics of the model, and of its slices, against the thresholds."""
        thresholds = self.rules.thresholds
        wanted = thresholds.for_task(outcomes.task)
        names = list(dict.fromkeys([*wanted, *SHOWN.get(outcomes.task, ())]))
        self.values = compute_all(names, outcomes)
        self.champion_outcomes, self.unavailable = self.find_champion_outcomes()
        if self.champion_outcomes is not None:
            self.champion_values = compute_all(names, self.champion_outcomes)
        self.checks += metric_checks(self.values, wanted)
        found = []
        for item in thresholds.slices:
            columns = {name: self.predictions.slices[name] for name in item.by} if self.predictions else {}
            parts = slices(outcomes, columns, item.metric, item.min_rows, self.champion_outcomes)
            self.slices[f"{item.metric} by {', '.join(item.by)}"] = parts
            found.append((item, parts))
        self.checks += slice_checks(found)

    def compare(self) -> None:
        """Compare the model with the champion, as far as both have been measured."""
        if self.champion is None and self.rules.scope is not Scope.ALL:
            return
        baseline = None
        if self.champion is not None:
            baseline = Baseline(self.champion.job_id, self.champion.size, self.champion_outcomes, self.unavailable)
        not_run = f"The model is not run with validation_level={self.rules.scope.value!r}."
        comparison = compare(
            self.outcomes,
            self.measured,
            self.export.size,
            baseline,
            self.rules.thresholds,
            not_run="" if self.rules.scope is Scope.ALL else not_run,
        )
        self.checks += comparison.checks
        self.differences = comparison.differences

    @property
    def comparable(self) -> bool:
        """Whether the thresholds ask for a comparison at all."""
        task = self.outcomes.task if self.outcomes is not None else ""
        if not task:
            return True
        return any(item.max_regression is not None for item in self.rules.thresholds.for_task(task).values())

    def context(self) -> Mapping[str, Any]:
        """What extra checks get: the figures, the metrics, and the predictions of both models."""
        return {
            **self.measured.figures,
            "metrics": {name: value.number for name, value in self.values.items()},
            "champion_metrics": {name: value.number for name, value in self.champion_values.items()},
            "predictions": self.outcomes,
            "champion_predictions": self.champion_outcomes,
        }

    def read_heldout(self) -> HeldoutVersion:
        uri = self.job.dataset_uri
        if not uri:
            raise DatasetError(
                f"no dataset version to validate {self.job.job_dir.job_id} on",
                hint="pass dataset=, or validate with validation_level='signature' or 'files'",
            )
        folder = self.scratch / "rows"
        folder.mkdir()
        version = read_heldout(self.storage, uri, self.environment.datasets, folder, task=self.rules.task)
        manifest, heldout = version.manifest, version.heldout
        self.dataset = {
            "uri": uri,
            "name": manifest.name,
            "version": manifest.version,
            "digest": manifest.digest,
            "heldout": heldout.digest,
            "rows": heldout.rows,
            "task": heldout.task,
            "target": manifest.schema.target,
            "classes": [str(one) for one in heldout.classes[:MOST_NAMES]],
        }
        if manifest.exceptions:
            self.dataset["exceptions"] = [item.to_json() for item in manifest.exceptions]
        return version

    def champion_model(self, heldout: Heldout) -> ScoredModel | None:
        """Download the champion's model; ``None`` if there is none, or it cannot be used.

        The champion is called with its own serving signature and scorer, which may differ from the challenger's.
        """
        if self.champion is None:
            return None
        target = self.scratch / "champion"
        try:
            job = load_job(self.storage, self.champion.job_dir)
            expected, scorer = recorded_model(self.storage, job)
            export = resolve(self.storage, self.champion.model_uri, known=not scorer)
            if export.fingerprint != self.champion.fingerprint:
                log.warning("champion %s cannot be run: its files changed after publication", self.champion.job_id)
                return None
            download(self.storage, export, target)
            return ScoredModel.read(target, expected, scorer=scorer, classes=heldout.classes)
        except ModelError as error:
            log.warning("champion %s cannot be run: %s", self.champion.job_id, error.message)
            return None

    def find_champion_outcomes(self) -> tuple[Outcomes | None, str]:
        """The champion's predictions, measured now or stored for the same rows; or why there are none."""
        if self.champion is None or self.version is None or self.predictions is None:
            return None, ""
        heldout, name = self.version.heldout, self.champion.job_id
        reason = f"The champion {name} could not be run on these rows, and has no stored predictions for them."
        if self.measured.baseline_outputs is not None:
            expected, _ = recorded_model(self.storage, load_job(self.storage, self.champion.job_dir))
            try:
                fitted = fit(self.measured.baseline_outputs, heldout.task, heldout.classes, expected.activation)
                return Outcomes.of(Predictions.of(heldout, fitted)), ""
            except ModelError as error:
                reason = f"The champion {name} has other outputs: {error.message}."
        elif self.measured.baseline.get("error"):
            log.warning("champion %s could not be run: %s", name, self.measured.baseline["error"])
        kept = load_predictions(self.storage, JobDir(self.champion.job_dir))
        if kept is not None and kept.same_rows(self.predictions):
            return Outcomes.of(kept), ""
        return None, f"{reason} Roll back to a champion that can be run, or publish with force."

    def baseline(self) -> Mapping[str, Any]:
        """The champion's measurements, metrics and plots on the same rows."""
        if self.champion_outcomes is None:
            return self.measured.baseline
        metrics = {name: value.number for name, value in self.champion_values.items()}
        drawn = curves(self.champion_outcomes) if self.champion_outcomes.task == "binary" else {}
        return {**self.measured.baseline, "metrics": metrics, "curves": drawn}

    def report(self, verdict: Verdict) -> Report:
        task = self.outcomes.task if self.outcomes is not None else str(self.dataset.get("task") or "")
        main = self.rules.thresholds.main_metric(task) if task else ""
        return Report(
            model=self.job.model,
            job_id=self.job.job_dir.job_id,
            job_dir=self.job.job_dir.uri,
            model_uri=self.export.uri or self.job.job_dir.model.rstrip("/"),
            verdict=verdict,
            thresholds=self.rules.thresholds,
            checks=self.rules.scope.value,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=self.export.fingerprint,
            digest=self.digest,
            size=self.export.size,
            step=self.export.step,
            dataset=self.dataset or dict(self.job.dataset),
            champion={} if self.champion is None else self.champion.brief(),
            figures=self.measured.figures,
            baseline=self.baseline(),
            comparison={name: _finite(item) for name, item in self.differences.items()},
            lineage=self.job.lineage,
            usage=self.job.usage,
            environment=self.measured.environment,
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            serving_signature=self.rules.expected.to_json(),
            extra_checks=self.rules.extra_check_records,
            require_comparison=self.rules.require_comparison,
            task=task,
            model_kind=self.model_kind,
            scorer=self.scorer if self.model_kind == SCORER else "",
            metrics={name: value.number for name, value in self.values.items()},
            undefined={name: value.undefined for name, value in self.values.items() if value.number is None},
            main_metric=main,
            curves=curves(self.outcomes) if self.outcomes is not None else {},
            slices={name: [asdict(one) for one in parts[:MOST_SLICES]] for name, parts in self.slices.items()},
            worst_rows=tuple(worst_rows(self.version.heldout, self.outcomes)) if self.version and self.outcomes else (),
        )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def _with_hint(error: ModelError) -> str:
    """An error as the message of a check."""
    return f"{error.message}. To correct it: {error.hint}." if error.hint else f"{error.message}."


def _finite(difference: Difference) -> dict[str, Any]:
    """As JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in asdict(difference).items()}  # noqa: PLR0124
