"""The result of a validation: checks, their thresholds, and the verdict.

The rules for the verdict:

1. A check has a value, a threshold and a message. It passed, failed, or was skipped.
2. A failed check rejects the model. Its message is the reason.
3. Without a champion, only the comparisons are skipped: the first model must pass all other checks. If it does, the
   verdict is ``first``.
4. With a champion, the quality of the model must have been compared with it, by :data:`NOT_WORSE` or by a user's check
   with ``comparison=True``. If it was not, the verdict is ``not_compared``, unless no comparison is required.
5. Otherwise the verdict is ``accepted``.

:mod:`mlengine.validation` measures the values, and :mod:`mlengine.promotion` publishes accepted models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from mlengine.core.errors import MlengineError

# The check that compares the quality of a model with the champion's.
NOT_WORSE = "not worse than champion"
# Comparisons of latency and size, which do not count as comparisons of quality.
LATENCY_RATIO, SIZE_RATIO = "latency ratio", "size ratio"


class Decision(StrEnum):
    """The verdict. Log, XCom, report, champion record and UI use these values."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FIRST = "first"
    NOT_COMPARED = "not_compared"  # all checks passed, but a required comparison with the champion is missing

    @property
    def publishable(self) -> bool:
        """Whether the model may be published without force."""
        return self in {Decision.ACCEPTED, Decision.FIRST}


class WhenUndecided(StrEnum):
    """What to do if the held-out set is too small to distinguish the model from the champion."""

    REJECT = "reject"
    ACCEPT = "accept"


@dataclass(frozen=True)
class Check:
    """One check of a model, and its result.

    :param value: the measured value; ``None`` if it could not be measured.
    :param bound: the threshold as a string: ``"≥ 0.97"``.
    :param comparison: whether it compares the model with the champion; such a check is skipped for a first model.
    """

    name: str
    value: float | int | str | None
    bound: str
    passed: bool
    sentence: str
    skipped: bool = False
    comparison: bool = False

    @classmethod
    def skip(cls, name: str, why: str, *, bound: str = "", comparison: bool = False) -> Self:
        """A check that could not be made. It has no effect on the verdict."""
        return cls(name, None, bound, passed=True, sentence=why, skipped=True, comparison=comparison)

    @property
    def mark(self) -> str:
        """``ok``, ``FAILED`` or ``skipped``, for tables."""
        return "skipped" if self.skipped else "ok" if self.passed else "FAILED"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{item.name: data[item.name] for item in fields(cls) if item.name in data})


@dataclass(frozen=True)
class Thresholds:
    """What a model must reach. ``None`` disables a check.

    :param accuracy: minimum accuracy on the held-out rows, from 0 to 1.
    :param per_class: minimum accuracy within each class.
    :param tolerance: how much lower than the champion's the accuracy may be. The model passes if, with ``confidence``,
        the difference is smaller than that: at 0.005 on 10,000 rows, an equal model passes about 19 times in 20, and
        one that is 0.005 worse about once in 20.
    :param undecided: what to do if the held-out set is too small to decide.
    :param latency_ms: maximum median time of a call with one row, in milliseconds, on the machine that validates.
    :param latency_ratio: maximum ratio of that time to the champion's, measured alternately in one process.
    :param size_bytes: maximum size of all files, in bytes.
    :param size_ratio: maximum ratio of that size to the champion's.
    """

    accuracy: float | None = 0.97
    per_class: float | None = 0.90
    tolerance: float | None = 0.005
    confidence: float = 0.95
    undecided: WhenUndecided = WhenUndecided.REJECT
    latency_ms: float | None = None
    latency_ratio: float | None = 3.0
    size_bytes: int | None = 2_000_000_000
    size_ratio: float | None = 3.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "undecided": self.undecided.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self:
        """Numbers may be strings, as trigger forms and templates give them. ``""`` and ``"None"`` mean ``None``.

        :raises MlengineError: a name is unknown, or a value is not a number in its range.
        """
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(data or {}) - known)
        if unknown:
            raise MlengineError(
                f"unknown threshold: {', '.join(unknown)}", hint=f"use some of: {', '.join(sorted(known))}"
            )
        return cls(**{name: _threshold(name, value) for name, value in (data or {}).items()})


def _threshold(name: str, value: object) -> Any:
    if name == "undecided":
        try:
            return WhenUndecided(str(value))
        except ValueError:
            raise MlengineError(f"threshold undecided is {value!r}", hint="write reject or accept") from None
    if value is None or (isinstance(value, str) and value.strip() in {"", "None", "none", "null"}):
        if name == "confidence":
            raise MlengineError("threshold confidence must be a number", hint="write a number like 0.95")
        return None
    try:
        number = float(str(value))
    except ValueError:
        raise MlengineError(f"threshold {name} is not a number: {value!r}", hint=f"write {name}: 0.97") from None
    share = name in {"accuracy", "per_class", "tolerance"}
    if not number >= 0 or (share and number > 1) or (name == "confidence" and not 0.5 < number < 1):
        raise MlengineError(
            f"threshold {name} is out of range: {value!r}",
            hint="accuracy, per_class and tolerance are between 0 and 1, confidence is between 0.5 and 1, and no "
            "threshold is negative",
        )
    return int(number) if name == "size_bytes" else number


@dataclass(frozen=True)
class Verdict:
    """The decision, its reasons, and all checks."""

    decision: Decision
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.decision.value,
            "reasons": list(self.reasons),
            "checks": [check.to_json() for check in self.checks],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """:raises MlengineError: the data is not a verdict."""
        try:
            return cls(
                Decision(data["verdict"]),
                tuple(str(reason) for reason in data["reasons"]),
                tuple(Check.from_json(check) for check in data.get("checks", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MlengineError(f"not a verdict: {error!r}", hint="run the validation again") from error


def judge(checks: Sequence[Check], *, champion: str | None, require_comparison: bool = True) -> Verdict:
    """Apply the rules of this module to the results of the checks.

    :param champion: the champion's job id; ``None`` if there is no champion to compare with.
    :param require_comparison: whether the quality of the model must have been compared with the champion's.
    :raises MlengineError: no check was made: a model must not be accepted without any.
    """
    asked = [check for check in checks if not check.skipped]
    if not asked:
        raise MlengineError("the validation made no checks", hint="use at least validation_level='files'")
    failed = [check for check in asked if not check.passed]
    if failed:
        return Verdict(Decision.REJECTED, tuple(check.sentence for check in failed), tuple(checks))
    counted = f"all {len(asked)} checks passed"
    if champion is None:
        return Verdict(Decision.FIRST, (f"There is no champion yet; {counted}.",), tuple(checks))
    compared = [check.sentence for check in asked if check.comparison]
    if any(check.comparison and check.name not in {LATENCY_RATIO, SIZE_RATIO} for check in asked):
        return Verdict(Decision.ACCEPTED, (f"{counted.capitalize()}.", *compared), tuple(checks))
    why = next((check.sentence for check in checks if check.name == NOT_WORSE), "no check compares them.")
    missing = f"The model was not compared with the champion {champion}: {why}"
    if require_comparison:
        reasons = (missing, f"Otherwise, {counted}. To publish without a comparison, set require_comparison to false.")
        return Verdict(Decision.NOT_COMPARED, reasons, tuple(checks))
    accepted = (f"{counted.capitalize()}.", *compared, f"{missing} No comparison is required.")
    return Verdict(Decision.ACCEPTED, accepted, tuple(checks))


def table(checks: Sequence[Check]) -> list[str]:
    """The checks as aligned lines of text, for a log or a terminal; the result is the first column."""
    rows = [("", "check", "value", "threshold")] + [
        (check.mark, check.name, _show(check.value), check.bound or "-") for check in checks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * min(max(len(line) for line in lines), 100))
    return lines


def _show(value: float | int | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.4f}"
    return str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..."
