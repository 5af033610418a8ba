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

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlengine.champions.history import current
from mlengine.core.dataset import Manifest
from mlengine.core.errors import DatasetError, ModelError
from mlengine.core.verdict import Check, Verdict, decide
from mlengine.storage.client import Storage
from mlengine.validation.champion_model import ChampionModel
from mlengine.validation.curves import read_curves
from mlengine.validation.environment import ValidationEnvironment
from mlengine.validation.evaluation import Evaluation
from mlengine.validation.extra_checks import run_check
from mlengine.validation.heldout import Heldout, check_schema, find_version, read_heldout
from mlengine.validation.job import FinishedJob
from mlengine.validation.measured import Measured
from mlengine.validation.metrics.bootstrap import Difference
from mlengine.validation.metrics.curves import curves
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.model_files import ModelFiles
from mlengine.validation.model_kind import SCORER
from mlengine.validation.quality import error_text, run_checks
from mlengine.validation.report import Report, store
from mlengine.validation.report_page import render
from mlengine.validation.rules import Rules, Scope, refuse_to_drop_checks
from mlengine.validation.scored_model import ScoredModel
from mlengine.validation.scoring_process import ScoringProcess
from mlengine.validation.worst_rows import worst_rows

MOST_NAMES = 1000  # the number of classes whose names a report keeps
MOST_SLICES = 200  # the number of slices that a report keeps for each threshold


def validate(
    storage: Storage,
    job: FinishedJob,
    rules: Rules,
    environment: ValidationEnvironment,
    *,
    replace_report: bool = False,
) -> Report:
    """Validate the model of ``job`` and store the report in the job directory.

    The call can be repeated: the model is then validated again, against the current champion.

    :param replace_report: replace the job's report even if it has checks that ``rules`` do not include.
    :raises ModelError: the job has such a report, and ``replace_report`` is false.
    :raises DatasetError: there is no held-out set.
    :raises EnvironmentBuildError: the trainer's environment cannot be built.
    :raises StorageError: the storage service failed or denied access.
    """
    if not replace_report:
        refuse_to_drop_checks(storage, job, rules)
    published = current(storage, job.bucket, job.model)
    name = None if published is None else published.job_id
    with tempfile.TemporaryDirectory(prefix="mlengine-validation-") as folder:
        scratch, evaluation = Path(folder), Evaluation(rules.thresholds)
        champion = None if published is None else ChampionModel(storage, published, scratch / "champion")
        files = ModelFiles(storage, job, rules, rules.scorer or job.scorer, scratch / "model")
        validation = _Validation(storage, job, rules, environment, champion, scratch, files, evaluation)
        validation.run()
        required = rules.require_comparison and evaluation.comparable
        report = validation.report(decide(validation.checks, champion=name, require_comparison=required))
    store(storage, report, evaluation.predictions, render(report, read_curves(storage, job.job_dir)))
    return report


@dataclass
class _Validation:
    """The state of a validation."""

    storage: Storage
    job: FinishedJob
    rules: Rules
    environment: ValidationEnvironment
    champion: ChampionModel | None
    scratch: Path
    files: ModelFiles
    evaluation: Evaluation
    checks: list[Check] = field(default_factory=list)
    dataset: dict[str, Any] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    model_kind: str = ""
    heldout: Heldout | None = None
    unavailable: str = ""  # the reason why the champion has no predictions
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def run(self) -> None:
        with self.timed("files"):
            self.checks += self.files.check()
        if self.passed and self.rules.scope is not Scope.FILES:
            self.checks += self.files.check_signature()
        if self.passed and self.rules.scope is Scope.ALL:
            self.run_model()
        if self.evaluation.outcomes is not None:
            with self.timed("metrics"):
                self.checks += self.evaluation.measure(self.evaluation.outcomes, self.champion_outcomes())
        if self.passed or self.evaluation.outcomes is not None:
            with self.timed("comparison"):
                self.compare()
        if self.files.export.files:
            context = self.evaluation.context(self.measured)
            self.checks += [run_check(check, self.files.folder, context) for check in self.rules.extra_checks]

    def run_model(self) -> None:
        manifest = self.find_version()
        slices = [name for item in self.rules.thresholds.slices for name in item.by]
        check_schema(manifest.schema, self.rules.task or manifest.task, slices)
        classes = tuple(manifest.schema.classes or ())
        try:
            model = ScoredModel.read(self.files.folder, self.rules.expected, scorer=self.files.scorer, classes=classes)
        except ModelError as error:
            self.checks.append(Check("runs", "no", "loads and runs", passed=False, message=error_text(error)))
            return
        self.model_kind = model.kind
        self.unavailable = self.champion.may_know(manifest) if self.champion else ""
        baseline = self.champion.read(classes) if self.champion and not self.unavailable else None
        rows, work = self.scratch / "rows", self.scratch / "scoring"
        rows.mkdir()
        work.mkdir()
        with ExitStack() as stack:
            with self.timed("environment"):
                python = stack.enter_context(self.environment.python())
            process = ScoringProcess(python, model, rows, work=work, baseline=baseline, limits=self.rules.limits)
            stack.enter_context(process)  # imports the framework while the rows are read
            with self.timed("dataset"):
                self.heldout = self.read_heldout(manifest, rows)
            with self.timed("scoring"):
                self.measured = process.measure()
        self.checks += run_checks(self.measured, self.rules.thresholds)
        if self.measured.outputs is not None:
            activation = self.rules.expected.activation
            self.checks += self.evaluation.fit(self.heldout, self.measured.outputs, activation)

    def champion_outcomes(self) -> Outcomes | None:
        if self.champion is None or self.heldout is None or self.unavailable:
            return None
        found, self.unavailable = self.champion.outcomes(self.measured, self.heldout, self.evaluation.predictions)
        return found

    def compare(self) -> None:
        """Compare the model with the champion by all values that were measured for both."""
        scope, champion = self.rules.scope, self.champion
        if champion is None and scope is not Scope.ALL:
            return
        baseline = champion.baseline(self.evaluation.champion_outcomes, self.unavailable) if champion else None
        not_run = "" if scope is Scope.ALL else f"The model is not run with validation_level={scope.value!r}."
        self.checks += self.evaluation.compare(self.measured, self.files.export.size, baseline, not_run=not_run)

    def find_version(self) -> Manifest:
        uri = self.job.dataset_uri
        if not uri:
            raise DatasetError(
                f"no dataset version to validate {self.job.job_dir.job_id} on",
                hint="pass dataset=, or validate with validation_level='signature' or 'files'",
            )
        manifest = find_version(self.storage, uri)
        self.dataset = {
            "uri": uri,
            "name": manifest.name,
            "version": manifest.version,
            "digest": manifest.digest,
            "heldout": manifest.heldout.identity,
            "rows": manifest.heldout.rows,
            "task": self.rules.task or manifest.task,
            "target": manifest.schema.target,
            "classes": [str(one) for one in (manifest.schema.classes or ())[:MOST_NAMES]],
        }
        if manifest.exceptions:
            self.dataset["exceptions"] = [item.to_json() for item in manifest.exceptions]
        return manifest

    def read_heldout(self, manifest: Manifest, folder: Path) -> Heldout:
        cache, task = self.environment.datasets, self.rules.task
        heldout = read_heldout(self.storage, manifest, self.job.dataset_uri, cache, folder, task=task)
        self.dataset["rows"] = heldout.rows  # for some formats, rows are not counted at registration
        return heldout

    def report(self, verdict: Verdict) -> Report:
        evaluation = self.evaluation
        outcomes, values = evaluation.outcomes, evaluation.values
        task = outcomes.task if outcomes is not None else str(self.dataset.get("task") or "")
        main = self.rules.thresholds.main_metric(task) if task else ""
        return Report(
            model=self.job.model,
            job_id=self.job.job_dir.job_id,
            job_dir=self.job.job_dir.uri,
            model_uri=self.files.export.uri or self.job.job_dir.model.rstrip("/"),
            verdict=verdict,
            thresholds=self.rules.thresholds,
            checks=self.rules.scope.value,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=self.files.export.fingerprint,
            digest=self.files.digest,
            size=self.files.export.size,
            step=self.files.export.step,
            dataset=self.dataset or dict(self.job.dataset),
            champion={} if self.champion is None else self.champion.champion.brief(),
            figures=self.measured.figures,
            baseline=evaluation.champion_figures(self.measured),
            comparison={name: _finite(item) for name, item in evaluation.differences.items()},
            lineage=self.job.lineage,
            usage=self.job.usage,
            environment=self.measured.environment,
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            serving_signature=self.rules.expected.to_json(),
            extra_checks=self.rules.extra_check_records,
            require_comparison=self.rules.require_comparison,
            task=task,
            model_kind=self.model_kind,
            scorer=self.files.scorer if self.model_kind == SCORER else "",
            metrics={name: value.number for name, value in values.items()},
            undefined={name: value.undefined for name, value in values.items() if value.number is None},
            main_metric=main,
            curves=curves(outcomes) if outcomes is not None else {},
            slices={name: [asdict(one) for one in parts[:MOST_SLICES]] for name, parts in evaluation.slices.items()},
            worst_rows=tuple(worst_rows(self.heldout, outcomes)) if self.heldout and outcomes else (),
        )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def _finite(difference: Difference) -> dict[str, Any]:
    """A difference as JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in asdict(difference).items()}  # noqa: PLR0124
