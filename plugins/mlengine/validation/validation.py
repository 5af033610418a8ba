"""Validates the model of a finished job. Cheap checks come first; the model runs only after they have passed.

1. files: the export is complete (manifest, sizes, checksums) and not too large
2. signature: names, dtypes and shapes; devices; ops with effects outside the graph
3. probe: the model and the champion predict the held-out set, as a subprocess in the trainer's environment
4. verdict: ``report.json``, ``report.html`` and ``predictions.json`` are written to the job directory

A problem of the model is a failed check. Any other problem (storage, dataset, environment) is raised, because it says
nothing about the model.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlengine.champions.history import Champion, current
from mlengine.core.errors import DatasetError, ModelError
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Check, Verdict, decide
from mlengine.storage.client import Storage
from mlengine.validation.curves import read_curves
from mlengine.validation.export import Export, download, resolve
from mlengine.validation.extra_checks import run_check
from mlengine.validation.job import FinishedJob
from mlengine.validation.paired_test import Paired
from mlengine.validation.quality import Baseline, class_scores, comparison_checks, declared_columns, value_checks
from mlengine.validation.report import Predictions, Report, find_report, load_predictions, store
from mlengine.validation.report_page import render
from mlengine.validation.rules import Rules, Scope, dropped_checks, recorded_signature
from mlengine.validation.runner import Heldout, Measured, ServedModel, run_probe
from mlengine.validation.signature import check_saved_model

log = logging.getLogger(__name__)


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
    with tempfile.TemporaryDirectory(prefix="mlengine-validation-") as scratch:
        validation = _Validation(storage, job, rules, environment, champion, Path(scratch))
        validation.run()
    name = None if champion is None else champion.job_id
    report = validation.report(decide(validation.checks, champion=name, require_comparison=rules.comparison_required))
    kept = None
    if validation.measured.predictions:
        measured = validation.measured
        kept = Predictions(str(report.dataset["heldout"]), measured.labels, measured.predictions)
    store(storage, report, kept, render(report, read_curves(storage, job.job_dir)))
    return report


def _refuse_to_drop_checks(storage: Storage, job: FinishedJob, rules: Rules) -> None:
    """:raises ModelError: the job has a report of these files with checks that ``rules`` do not include."""
    report = find_report(storage, job.job_dir)
    dropped = dropped_checks(report, rules) if report else []
    if report is None or not dropped:
        return
    try:
        export = resolve(storage, job.job_dir.model, graph=report.checks != Scope.FILES)
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
    rows: Heldout | None = None
    paired: Paired | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        return self.scratch / "model"

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def run(self) -> None:
        with self.timed("files"):
            self.check_files()
        if self.passed and self.rules.scope is not Scope.FILES:
            self.checks += check_saved_model(self.model, self.rules.expected)
        if self.passed and self.rules.scope is Scope.ALL:
            self.run_model()
        if self.passed or self.measured.predictions:
            self.compare()
        if self.export.files:
            self.checks += [run_check(check, self.model, self.measured.figures) for check in self.rules.extra_checks]

    def check_files(self) -> None:
        threshold = "complete"
        try:
            export = resolve(self.storage, self.job.job_dir.model, graph=self.rules.scope is not Scope.FILES)
            size = _size(export.size, self.rules.thresholds.size_bytes)
            if size.passed:  # a model that is too large is not downloaded
                self.digest = download(self.storage, export, self.model)
        except ModelError as error:
            self.checks.append(Check("files", "broken", threshold, passed=False, message=f"{error.message}."))
            return
        self.export = export
        kind = "as in the manifest" if export.manifest else "there is no manifest"
        text = f"The model is complete: {len(export.files)} files; {kind}."
        self.checks += [Check("files", len(export.files), threshold, passed=True, message=text), size]

    def run_model(self) -> None:
        with self.timed("dataset"):
            self.rows = rows = self.heldout()
        model = ServedModel.read(self.model, self.rules.expected)
        columns = declared_columns(model.signature.outputs[self.rules.expected.scores])
        if columns is not None and columns != rows.classes:  # no need to run the model
            self.checks.append(class_scores(columns, rows.classes, self.rules.expected.scores))
            return
        baseline = self.champion_model()
        work = self.scratch / "probe"
        work.mkdir()
        with ExitStack() as stack:
            with self.timed("environment"):
                python = stack.enter_context(self.environment.python())
            with self.timed("probe"):
                limits = self.rules.limits
                self.measured = run_probe(python, model, rows, work=work, baseline=baseline, limits=limits)
        self.checks += value_checks(self.measured, self.rules.thresholds, self.rules.expected, rows.classes)

    def compare(self) -> None:
        """Compare the model with the champion, as far as both have been measured."""
        if self.champion is None and self.rules.scope is not Scope.ALL:
            return
        baseline = None
        if self.champion is not None:
            baseline = Baseline(self.champion.job_id, self.champion.size, self.champion_predictions())
        checks, self.paired = comparison_checks(
            self.measured,
            self.export.size,
            baseline,
            self.rules.thresholds,
            not_run=f"The model is not run with validation_level={self.rules.scope.value!r}.",
        )
        self.checks += checks

    def heldout(self) -> Heldout:
        from mlengine.datasets import Manifest, fetch

        uri = self.job.dataset_uri
        if not uri:
            raise DatasetError(
                f"no dataset version to validate {self.job.job_dir.job_id} on",
                hint="pass dataset=, or validate with validation_level='signature' or 'files'",
            )
        folder = fetch(self.storage, uri, self.environment.datasets)
        manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes(), uri)
        held = manifest.heldout
        self.dataset = {
            "uri": uri,
            "name": manifest.name,
            "version": manifest.version,
            "digest": manifest.digest,
            "heldout": held.identity,
            "rows": held.rows,
            "shape": list(manifest.shape),
        }
        if manifest.exceptions:
            self.dataset["exceptions"] = [item.to_json() for item in manifest.exceptions]
        return Heldout(folder / held.images.path, folder / held.labels.path, manifest.classes, held.identity)

    def champion_model(self) -> ServedModel | None:
        """Download the champion's model; ``None`` if there is none, or it cannot be used.

        The champion is called with its own serving signature, which may differ from the challenger's.
        """
        if self.champion is None:
            return None
        target = self.scratch / "champion"
        try:
            expected = recorded_signature(self.storage, JobDir(self.champion.job_dir)) or self.rules.expected
            export = resolve(self.storage, self.champion.model_uri)
            if export.fingerprint != self.champion.fingerprint:
                log.warning("champion %s cannot be run: its files changed after publication", self.champion.job_id)
                return None
            download(self.storage, export, target)
            return ServedModel.read(target, expected)
        except ModelError as error:
            log.warning("champion %s cannot be run: %s", self.champion.job_id, error.message)
            return None

    def champion_predictions(self) -> tuple[int, ...] | None:
        """The champion's predictions: measured now, or else stored with its report for the same rows."""
        if self.champion is None or self.rows is None or not self.measured.predictions:
            return None
        if self.measured.baseline_predictions:
            return self.measured.baseline_predictions
        if self.measured.baseline.get("error"):
            log.warning("champion %s could not be run: %s", self.champion.job_id, self.measured.baseline["error"])
        kept = load_predictions(self.storage, JobDir(self.champion.job_dir))
        if kept is None or kept.heldout != self.rows.digest or kept.labels != self.measured.labels:
            return None
        return kept.classes

    def report(self, verdict: Verdict) -> Report:
        comparison: dict[str, Any] = {}
        if self.paired is not None:
            low, high = self.paired.interval(self.rules.thresholds.confidence)
            paired = self.paired
            comparison = {"difference": paired.difference, "low": low, "high": high, "p_value": paired.p_value}
            comparison |= paired.to_json()
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
            baseline=self.measured.baseline,
            comparison=comparison,
            lineage=self.job.lineage,
            usage=self.job.usage,
            environment=self.measured.environment,
            mistakes=self.measured.mistakes,
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            serving_signature=self.rules.expected.to_json(),
            extra_checks=self.rules.extra_check_records,
            require_comparison=self.rules.require_comparison,
        )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def _size(size: int, maximum: int | None) -> Check:
    if maximum is None:
        return Check.skip("size", f"The model has {_mib(size)}; no maximum is set.")
    text = f"The model has {_mib(size)}; the maximum is {_mib(maximum)}."
    return Check("size", size, f"≤ {_mib(maximum)}", passed=size <= maximum, message=text)


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB" if size >= 100_000 else f"{size} bytes"
