"""The checks of a dataset version that were run when it was registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from mlengine.core.dataset.fields import Fields


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    :param value: the value that was found.
    :param threshold: the value that was allowed.
    :param message: a description of both for people.
    """

    name: str
    passed: bool
    value: str
    threshold: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": self.passed,
            "value": self.value,
            "threshold": self.threshold,
            "message": self.message,
        }

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = Fields(data, where)
        text = {name: str(fields.value(name)) for name in ("value", "threshold", "message")}
        return cls(fields.text("name"), fields.flag("passed"), **text)


@dataclass(frozen=True)
class CheckException:
    """A failed check that was accepted at registration.

    :param found: the check's message.
    :param reason: why the failure is acceptable, in the words of the person who registered the version.
    """

    check: str
    found: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"check": self.check, "found": self.found, "reason": self.reason}

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = Fields(data, where)
        return cls(fields.text("check"), fields.text("found"), fields.text("reason"))
