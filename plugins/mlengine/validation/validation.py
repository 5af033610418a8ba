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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from mlengine.champions.history import Champion, current
from mlengine.core.errors import DatasetError, MlengineError, ModelError
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Check, Thresholds, Verdict, judge
from mlengine.storage.client import Storage
from mlengine.validation.curves import read_curves
from mlengine.validation.export import Export, download, resolve
from mlengine.validation.paired_test import Paired
from mlengine.validation.quality import Rival, comparison_checks, value_checks
from mlengine.validation.report import Predictions, Report, load_predictions, store
from mlengine.validation.report_page import render
from mlengine.validation.runner import Heldout, Limits, Measured, run_probe
from mlengine.validation.signature import Expectation, check_wire
from mlengine.validation.subject import Subject

log = logging.getLogger(__name__)

# A check of the user's own: given the model's files on this machine and the report's figures so far.
OwnCheck = Callable[[Path, Mapping[str, Any]], Check]


class Scope(StrEnum):
    """How far a validation goes."""

    ALL = "all"
    SIGNATURE = "signature"  # without running the model
    FILES = "files"  # for trainers whose model is no SavedModel

    @classmethod
    def parse(cls, text: str) -> Scope:
        """:raises MlengineError: it is none of the three."""
        try:
            return cls(text)
        except ValueError:
            raise MlengineError(
                f"unknown validation_level: {text!r}", remedy=f"write one of {', '.join(item.value for item in cls)}"
            ) from None


@dataclass(frozen=True)
class Rules:
    """What a model is asked, and what it is held to.

    :param own: further checks, by any Python: each gets the folder with the model's files and the figures measured so
        far. They run in this process, so they must not import TensorFlow; one that raises has failed.
    """

    scope: Scope = Scope.ALL
    thresholds: Thresholds = field(default_factory=Thresholds)
    expected: Expectation = field(default_factory=Expectation)
    limits: Limits = field(default_factory=Limits)
    own: Sequence[OwnCheck] = ()


@dataclass(frozen=True)
class Place:
    """Where a validation finds what it needs on this machine.

    :param python: makes the trainer's environment, and keeps it while its interpreter is used; entered only if the
        model is run.
    :param datasets: where dataset versions are kept between runs.
    """

    python: Callable[[], AbstractContextManager[Path]]
    datasets: Path


def validate(storage: Storage, subject: Subject, rules: Rules, place: Place) -> Report:
    """Judge the model of ``subject`` and keep the report in its job dir.

    Safe to repeat: it judges anew, against whoever is champion then.

    :raises DatasetError: no held-out set; :raises EnvironmentBuildError: no environment to run the model in.
    :raises StorageError: the bucket refused.
    """
    champion = current(storage, subject.bucket, subject.model)
    with tempfile.TemporaryDirectory(prefix="mlengine-gate-") as scratch:
        validation = _Validation(storage, subject, rules, place, champion, Path(scratch))
        validation.ask()
    report = validation.report(judge(validation.checks, champion=champion is not None))
    kept = None
    if validation.measured.predictions:
        measured = validation.measured
        kept = Predictions(str(report.dataset["heldout"]), measured.labels, measured.predictions)
    store(storage, report, kept, render(report, read_curves(storage, subject.job_dir)))
    return report


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
        if self.export.files:
            self.checks += [_own(check, self.model, self.measured.figures) for check in self.rules.own]

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
            heldout = self.heldout()
        rival = None if self.champion is None else Rival(self.champion.job_id, self.champion.size)
        baseline = self.champion_files()
        work = self.scratch / "probe"
        work.mkdir()
        with ExitStack() as stack:
            with self.timed("environment"):
                python = stack.enter_context(self.place.python())
            with self.timed("probe"):
                limits = self.rules.limits
                measured = run_probe(
                    python, self.model, heldout, self.rules.expected, work=work, baseline=baseline, limits=limits
                )
        self.measured = measured
        self.checks += value_checks(measured, self.rules.thresholds, self.rules.expected)
        if rival is not None:
            rival = replace(rival, predictions=self.champion_predictions(heldout))
        checks, self.paired = comparison_checks(measured, self.export.size, rival, self.rules.thresholds)
        self.checks += checks

    def heldout(self) -> Heldout:
        from mlengine.datasets import Manifest, fetch

        uri = self.subject.dataset_uri
        if not uri:
            raise DatasetError(
                f"no dataset to validate {self.subject.job_dir.job_id} on",
                remedy="pass dataset=, or validate with validation_level='signature' or 'files'",
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
            "shape": list(manifest.shape),
        }
        return Heldout(folder / held.images.path, folder / held.labels.path, held.identity)

    def champion_files(self) -> Path | None:
        """The champion's model, if there is one, and it is still there as it was published."""
        if self.champion is None:
            return None
        target = self.scratch / "champion"
        try:
            export = resolve(self.storage, self.champion.model_uri)
            if export.fingerprint != self.champion.fingerprint:
                log.warning("champion %s cannot be run: its files changed since", self.champion.job_id)
                return None
            download(self.storage, export, target)
        except ModelError as error:
            log.warning("champion %s cannot be run: %s", self.champion.job_id, error.message)
            return None
        return target

    def champion_predictions(self, heldout: Heldout) -> tuple[int, ...] | None:
        """As measured beside the challenger; else as kept with its own report, if that was about the same rows."""
        if self.champion is None:
            return None
        if self.measured.baseline_predictions:
            return self.measured.baseline_predictions
        if self.measured.baseline.get("error"):
            log.warning("champion %s did not run here: %s", self.champion.job_id, self.measured.baseline["error"])
        kept = load_predictions(self.storage, JobDir(self.champion.job_dir))
        if kept is None or kept.heldout != heldout.digest or kept.labels != self.measured.labels:
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


def _own(check: OwnCheck, model: Path, figures: Mapping[str, Any]) -> Check:
    """A check of the user's. Whatever it raises is its answer: no."""
    name = getattr(check, "__name__", type(check).__name__)
    try:
        result = check(model, figures)
    except Exception as error:  # other people's code, at the gate's edge
        log.warning("own check %s raised", name, exc_info=True)
        return Check(name, None, "passes", passed=False, sentence=f"{name} raised {type(error).__name__}: {error}")
    if not isinstance(result, Check):
        text = f"{name} returned {type(result).__name__}, not a mlengine.core.verdict.Check."
        return Check(name, None, "passes", passed=False, sentence=text)
    return result


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB" if size >= 100_000 else f"{size} bytes"
