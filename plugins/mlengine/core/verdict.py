"""The verdict of a validation: its checks and the decision that follows from them.

1. A check has a value, a threshold and a message. It passed, failed or was skipped.
2. One failed check rejects the model. Its message is the reason.
3. Without a champion, only the comparisons are skipped: the first model must still reach every threshold. If it does,
   the decision is ``first``.
4. With a champion, the model must have been compared with it in quality, by :data:`NOT_WORSE` or by an extra check
   with ``comparison=True``. Otherwise the decision is ``not_compared``, unless no comparison is required.
5. Otherwise the decision is ``accepted``.

:mod:`mlengine.validation` measures, and :mod:`mlengine.promotion` publishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from mlengine.core.errors import MlengineError

# The check that compares the quality of a model with that of the champion.
NOT_WORSE = "not worse than champion"
# Comparisons with the champion that say nothing about quality.
LATENCY_RATIO, SIZE_RATIO = "latency ratio", "size ratio"


class Decision(StrEnum):
    """The result of a validation. The value is the same in the log, XCom, the report, ``champion.json`` and the UI."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FIRST = "first"
    NOT_COMPARED = "not_compared"  # every check passed, but a required comparison with the champion was not made

    @property
    def publishable(self) -> bool:
        """Whether the model may become the champion without force."""
        return self in {Decision.ACCEPTED, Decision.FIRST}


@dataclass(frozen=True)
class Check:
    """One check of a model and its result.

    :param value: the measured value; ``None`` if there is none.
    :param threshold: the required value, for display: ``"≥ 0.97"``.
    :param message: the result as a complete statement for people.
    :param comparison: whether the check compares the model with the champion. Such checks are skipped for the first
        model.
    """

    name: str
    value: float | int | str | None
    threshold: str
    passed: bool
    message: str
    skipped: bool = False
    comparison: bool = False

    @classmethod
    def skip(cls, name: str, why: str, *, threshold: str = "", comparison: bool = False) -> Self:
        """A check that was not made. It does not affect the decision."""
        return cls(name, None, threshold, passed=True, message=why, skipped=True, comparison=comparison)

    @property
    def mark(self) -> str:
        """The result as ``ok``, ``FAILED`` or ``skipped``, for tables."""
        return "skipped" if self.skipped else "ok" if self.passed else "FAILED"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a check. Version 0.1 wrote ``bound`` and ``sentence`` for ``threshold`` and ``message``."""  # prose: ok
        data = {_OLD_FIELDS.get(name, name): value for name, value in data.items()}
        return cls(**{item.name: data[item.name] for item in fields(cls) if item.name in data})


_OLD_FIELDS = {"bound": "threshold", "sentence": "message"}  # prose: ok


@dataclass(frozen=True)
class Verdict:
    """The decision, the reasons for it, and all checks."""

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
        """Read a verdict.

        :raises MlengineError: the object is not a verdict.
        """
        try:
            return cls(
                Decision(data["verdict"]),
                tuple(str(reason) for reason in data["reasons"]),
                tuple(Check.from_json(check) for check in data.get("checks", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MlengineError(f"not a verdict: {error!r}", hint="run the validation again") from error


def decide(checks: Sequence[Check], *, champion: str | None, require_comparison: bool = True) -> Verdict:
    """Derive the verdict from the checks.

    :param champion: the champion's job id; ``None`` if there is no champion to compare with.
    :param require_comparison: whether a model that was not compared with the champion in quality may be published.
    :raises MlengineError: every check was skipped. A validation without checks must not accept a model.
    """
    made = [check for check in checks if not check.skipped]
    if not made:
        raise MlengineError("the validation made no check", hint="validate with at least validation_level='files'")
    failed = [check for check in made if not check.passed]
    if failed:
        return Verdict(Decision.REJECTED, tuple(check.message for check in failed), tuple(checks))
    counted = "the check passed" if len(made) == 1 else f"all {len(made)} checks passed"
    if champion is None:
        return Verdict(Decision.FIRST, (f"There is no champion yet; {counted}.",), tuple(checks))
    compared = [check.message for check in made if check.comparison]
    # Includes every metric that could not be compared, even if others were.
    not_compared = {check.name: check.message for check in checks if check.skipped and check.name.startswith(NOT_WORSE)}
    by_metric = [message for name, message in not_compared.items() if name != NOT_WORSE]
    if any(check.comparison and check.name not in {LATENCY_RATIO, SIZE_RATIO} for check in made):
        return Verdict(Decision.ACCEPTED, (f"{counted.capitalize()}.", *compared, *by_metric), tuple(checks))
    why = " ".join(not_compared.values()) or "No check compares them."
    missing = f"The model was not compared with the champion {champion}: {why}"
    if require_comparison:
        reasons = (missing, f"Otherwise {counted}. To publish without a comparison, set require_comparison to false.")
        return Verdict(Decision.NOT_COMPARED, reasons, tuple(checks))
    accepted = (f"{counted.capitalize()}.", *compared, f"{missing} No comparison is required.")
    return Verdict(Decision.ACCEPTED, accepted, tuple(checks))


def table(checks: Sequence[Check]) -> list[str]:
    """The checks as aligned lines for a log or a terminal. The result is the first column, which is never cut off."""
    rows = [("", "check", "value", "threshold")] + [
        (check.mark, check.name, _show(check.value), check.threshold or "-") for check in checks
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
