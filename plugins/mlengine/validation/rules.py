"""What a model is asked: the scope, the thresholds, the serving signature, and extra checks.

A report records its rules. So a later validation of the same job can use them again, a report is kept where it answers
the same questions, and a validation that would ask less does not replace it unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mlengine.core.errors import MlengineError
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Thresholds
from mlengine.storage.client import Storage
from mlengine.validation.extra_checks import ExtraCheck, check_digest, check_name
from mlengine.validation.report import Report, find_report
from mlengine.validation.runner import Limits
from mlengine.validation.signature import Expectation

# The thresholds that matter without running the model.
_FILE_THRESHOLDS = ("size_bytes", "size_ratio")


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
                f"unknown validation_level: {text!r}", hint=f"write one of {', '.join(item.value for item in cls)}"
            ) from None

    def includes(self, other: Scope) -> bool:
        """Whether a validation of this scope makes all checks of one of the ``other``."""
        order = list(Scope)
        return order.index(self) <= order.index(other)


@dataclass(frozen=True)
class Rules:
    """What a model is asked, and what it is held to.

    :param require_comparison: whether a model that was not compared with the champion in quality is ``not_compared``,
        and so not published. A ``tolerance`` of ``None`` asks for no comparison either.
    :param own: extra checks, by any Python: each gets the folder with the model's files and the figures measured so
        far. They run in this process, so they must not import TensorFlow; one that raises has failed.
    """

    scope: Scope = Scope.ALL
    thresholds: Thresholds = field(default_factory=Thresholds)
    expected: Expectation = field(default_factory=Expectation)
    limits: Limits = field(default_factory=Limits)
    own: Sequence[ExtraCheck] = ()
    require_comparison: bool = True

    @property
    def comparison_required(self) -> bool:
        return self.require_comparison and self.thresholds.tolerance is not None

    @property
    def extra_checks(self) -> tuple[dict[str, str], ...]:
        """The extra checks as a report records them."""
        return tuple({"name": check_name(check), "digest": check_digest(check)} for check in self.own)


def recorded_expectation(storage: Storage, job_dir: JobDir) -> Expectation | None:
    """How the job's model is called, as its report says; ``None`` if it has no report about its signature.

    :raises ModelError: what it says is not readable.
    """
    report = find_report(storage, job_dir)
    if report is None or report.checks == Scope.FILES or not report.serving_signature:
        return None
    return Expectation.from_json(report.serving_signature)


def answers(report: Report, rules: Rules, dataset_uri: str = "") -> bool:
    """Whether ``report`` answers every question of ``rules``, by the same thresholds.

    :param dataset_uri: the dataset version to validate on, if the caller names one.
    """
    scope = Scope.parse(report.checks)
    mine = [check["digest"] for check in rules.extra_checks]
    theirs = {check.get("digest") for check in report.extra_checks}
    return (
        scope.includes(rules.scope)
        and report.require_comparison == rules.require_comparison
        and _thresholds(report.thresholds, rules.scope) == _thresholds(rules.thresholds, rules.scope)
        and (rules.scope is Scope.FILES or report.serving_signature == rules.expected.to_json())
        and (rules.scope is not Scope.ALL or dataset_uri in {"", report.dataset.get("uri")})
        and all(digest and digest in theirs for digest in mine)
    )


def lost_questions(report: Report, rules: Rules) -> list[str]:
    """What ``report`` was asked and a validation by ``rules`` would not ask.

    Other thresholds, and other arguments of the same extra check, lose nothing.
    """
    lost = []
    if not rules.scope.includes(Scope.parse(report.checks)):
        lost.append(f"validation_level {report.checks!r}, now {rules.scope.value!r}")
    default = Expectation().to_json()
    known = report.checks != Scope.FILES and report.serving_signature not in ({}, default)
    if known and rules.scope is not Scope.FILES and rules.expected.to_json() == default:
        lost.append("the serving signature it was given; now the default one")
    mine = {_function(check_name(check)) for check in rules.own}
    lost += [f"extra check {check['name']}" for check in report.extra_checks if _function(check["name"]) not in mine]
    return lost


def _function(name: str) -> str:
    """``has_words(5)`` → ``has_words``."""
    return name.partition("(")[0]


def _thresholds(thresholds: Thresholds, scope: Scope) -> Mapping[str, Any]:
    bounds = thresholds.to_json()
    return bounds if scope is Scope.ALL else {name: bounds[name] for name in _FILE_THRESHOLDS}
