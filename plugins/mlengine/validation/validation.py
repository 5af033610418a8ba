"""One validation from beginning to end: the cheap questions first, and nothing of the model runs until they are passed.

1. files: the export is complete and whole (its manifest, sizes, checksums), and not too large
2. signature: names, dtypes and shapes; no device of the cluster; no op that reaches outside the graph
3. probe: the trainer's environment, a process with limits, the held-out set; the champion beside it
4. verdict; ``report.json``, ``report.html`` and ``predictions.json`` in the job dir

What is wrong with the model becomes a failed check. What is wrong around it (no bucket, no dataset, no environment)
is raised: it says nothing about the model.
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
from mlengine.core.verdict import Check, Verdict, judge
from mlengine.storage.client import Storage
from mlengine.validation.curves import read_curves
from mlengine.validation.export import Export, download, resolve
from mlengine.validation.extra_checks import run_check
from mlengine.validation.paired_test import Paired
from mlengine.validation.quality import Rival, class_scores, comparison_checks, declared_columns, value_checks
from mlengine.validation.report import Predictions, Report, find_report, load_predictions, store
from mlengine.validation.report_page import render
from mlengine.validation.rules import Rules, Scope, lost_questions, recorded_expectation
from mlengine.validation.runner import Heldout, Measured, ServedModel, run_probe
from mlengine.validation.signature import check_wire
from mlengine.validation.subject import Subject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a validation finds what it needs on this machine.

    :param python: makes the trainer's environment, and keeps it while its interpreter is used; entered only if the
        model is run.
    :param datasets: where dataset versions are kept between runs.
    """

    python: Callable[[], AbstractContextManager[Path]]
    datasets: Path


def validate(storage: Storage, subject: Subject, rules: Rules, place: Place, *, replace_report: bool = False) -> Report:
    """Judge the model of ``subject`` and keep the report in its job dir.

    Safe to repeat: it judges anew, against whoever is champion then.

    :param replace_report: replace the job's report though it answers questions that these rules do not ask.
    :raises ModelError: there is such a report.
    :raises DatasetError: no held-out set.
    :raises EnvironmentBuildError: no environment to run the model in.
    :raises StorageError: the bucket refused.
    """
    if not replace_report:
        _refuse_to_lose(storage, subject, rules)
    champion = current(storage, subject.bucket, subject.model)
    with tempfile.TemporaryDirectory(prefix="mlengine-gate-") as scratch:
        validation = _Validation(storage, subject, rules, place, champion, Path(scratch))
        validation.ask()
    name = None if champion is None else champion.job_id
    report = validation.report(judge(validation.checks, champion=name, require_comparison=rules.comparison_required))
    kept = None
    if validation.measured.predictions:
        measured = validation.measured
        kept = Predictions(str(report.dataset["heldout"]), measured.labels, measured.predictions)
    store(storage, report, kept, render(report, read_curves(storage, subject.job_dir)))
    return report


def _refuse_to_lose(storage: Storage, subject: Subject, rules: Rules) -> None:
    """:raises ModelError: the model has a report that answers what ``rules`` do not ask."""
    report = find_report(storage, subject.job_dir)
    lost = lost_questions(report, rules) if report else []
    if report is None or not lost:
        return
    try:
        export = resolve(storage, subject.job_dir.model, graph=report.checks != Scope.FILES)
    except ModelError:
        return
    if export.fingerprint == report.fingerprint:  # otherwise it is about files that are no longer there
        raise ModelError(
            f"the report of {report.job_id} ({report.verdict.decision.value}, {report.created}) answers questions that"
            f" this validation does not ask: {'; '.join(lost)}",
            hint="ask them too: run the task `validate` again; or replace the report all the same:"
            " models validate --replace-report, ValidateModelOperator(replace_report=True)",
        )


@dataclass
class _Validation:
    """The state of one validation."""

    storage: Storage
    subject: Subject
    rules: Rules
    place: Place
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
    def good(self) -> bool:
        return all(check.passed for check in self.checks)

    def ask(self) -> None:
        with self.timed("files"):
            self.ask_files()
        if self.good and self.rules.scope is not Scope.FILES:
            self.checks += check_wire(self.model, self.rules.expected)
        if self.good and self.rules.scope is Scope.ALL:
            self.run()
        if self.good or self.measured.predictions:
            self.compare()
        if self.export.files:
            self.checks += [run_check(check, self.model, self.measured.figures) for check in self.rules.own]

    def ask_files(self) -> None:
        bound = "whole"
        try:
            export = resolve(self.storage, self.subject.job_dir.model, graph=self.rules.scope is not Scope.FILES)
            size = _size(export.size, self.rules.thresholds.size_bytes)
            if size.passed:  # what is too large is not even fetched
                self.digest = download(self.storage, export, self.model)
        except ModelError as error:
            self.checks.append(Check("files", "broken", bound, passed=False, sentence=f"{error.message}."))
            return
        self.export = export
        kind = "checked against their manifest" if export.manifest else "there is no manifest to check them against"
        text = f"All {len(export.files)} files of the model are there; {kind}."
        self.checks += [Check("files", len(export.files), bound, passed=True, sentence=text), size]

    def run(self) -> None:
        with self.timed("dataset"):
            self.rows = rows = self.heldout()
        model = ServedModel.read(self.model, self.rules.expected)
        columns = declared_columns(model.signature.outputs[self.rules.expected.scores])
        if columns is not None and columns != rows.classes:  # known without running it
            self.checks.append(class_scores(columns, rows.classes, self.rules.expected.scores))
            return
        baseline = self.champion_model()
        work = self.scratch / "probe"
        work.mkdir()
        with ExitStack() as stack:
            with self.timed("environment"):
                python = stack.enter_context(self.place.python())
            with self.timed("probe"):
                limits = self.rules.limits
                self.measured = run_probe(python, model, rows, work=work, baseline=baseline, limits=limits)
        self.checks += value_checks(self.measured, self.rules.thresholds, self.rules.expected, rows.classes)

    def compare(self) -> None:
        """With the champion, as far as both models are known. Without one, a model that was run says so."""
        if self.champion is None and self.rules.scope is not Scope.ALL:
            return
        rival = None
        if self.champion is not None:
            rival = Rival(self.champion.job_id, self.champion.size, self.champion_predictions())
        checks, self.paired = comparison_checks(
            self.measured,
            self.export.size,
            rival,
            self.rules.thresholds,
            not_run=f"With validation_level={self.rules.scope.value!r} the model is not run.",
        )
        self.checks += checks

    def heldout(self) -> Heldout:
        from mlengine.datasets import Manifest, fetch

        uri = self.subject.dataset_uri
        if not uri:
            raise DatasetError(
                f"no dataset to validate {self.subject.job_dir.job_id} on",
                hint="pass dataset=, or validate with validation_level='signature' or 'files'",
            )
        folder = fetch(self.storage, uri, self.place.datasets)
        manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes(), uri)
        held = manifest.heldout
        self.dataset = {
            "uri": uri,
            "name": manifest.name,
            "version": manifest.version,
            "digest": manifest.digest,
            "heldout": held.identity,
            "rows": held.rows,
            "shape": list(manifest.schema.column("image").shape),
        }
        if manifest.exceptions:
            self.dataset["exceptions"] = [item.to_json() for item in manifest.exceptions]
        images, labels = (folder / held.file_of(column).path for column in ("image", "label"))
        return Heldout(images, labels, len(manifest.schema.classes or ()), held.identity)

    def champion_model(self) -> ServedModel | None:
        """The champion's model, if there is one, and it is still there as it was published.

        It is called by its own signature, which need not be the challenger's.
        """
        if self.champion is None:
            return None
        target = self.scratch / "champion"
        try:
            expected = recorded_expectation(self.storage, JobDir(self.champion.job_dir)) or self.rules.expected
            export = resolve(self.storage, self.champion.model_uri)
            if export.fingerprint != self.champion.fingerprint:
                log.warning("champion %s cannot be run: its files changed since", self.champion.job_id)
                return None
            download(self.storage, export, target)
            return ServedModel.read(target, expected)
        except ModelError as error:
            log.warning("champion %s cannot be run: %s", self.champion.job_id, error.message)
            return None

    def champion_predictions(self) -> tuple[int, ...] | None:
        """As measured beside the challenger; else as kept with its own report, if that was about the same rows."""
        if self.champion is None or self.rows is None or not self.measured.predictions:
            return None
        if self.measured.baseline_predictions:
            return self.measured.baseline_predictions
        if self.measured.baseline.get("error"):
            log.warning("champion %s did not run here: %s", self.champion.job_id, self.measured.baseline["error"])
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
            model=self.subject.model,
            job_id=self.subject.job_dir.job_id,
            job_dir=self.subject.job_dir.uri,
            model_uri=self.export.uri or self.subject.job_dir.model.rstrip("/"),
            verdict=verdict,
            thresholds=self.rules.thresholds,
            checks=self.rules.scope.value,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=self.export.fingerprint,
            digest=self.digest,
            size=self.export.size,
            step=self.export.step,
            dataset=self.dataset or dict(self.subject.dataset),
            champion={} if self.champion is None else self.champion.brief(),
            figures=self.measured.figures,
            baseline=self.measured.baseline,
            comparison=comparison,
            lineage=self.subject.lineage,
            took=self.subject.took,
            environment=self.measured.environment,
            mistakes=self.measured.mistakes,
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            serving_signature=self.rules.expected.to_json(),
            extra_checks=self.rules.extra_checks,
            require_comparison=self.rules.require_comparison,
        )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def _size(size: int, ceiling: int | None) -> Check:
    if ceiling is None:
        return Check.skip("size", f"The model has {_mib(size)}; no ceiling was set.")
    text = f"The model has {_mib(size)}; the ceiling is {_mib(ceiling)}."
    return Check("size", size, f"≤ {_mib(ceiling)}", passed=size <= ceiling, sentence=text)


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB" if size >= 100_000 else f"{size} bytes"
