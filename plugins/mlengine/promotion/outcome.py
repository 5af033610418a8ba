"""The result of a publication, and the arguments of a forced publication."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlengine.champions.history import Champion
from mlengine.core.errors import PublishError


class PublishDecision(StrEnum):
    """The kind of result of a publication. The log, the XCom and the documentation use the same values."""

    PUBLISHED = "published"
    ALREADY_CHAMPION = "already_champion"
    SUPERSEDED = "superseded"  # the model is a former champion; running its task again does not restore it
    REJECTED = "rejected"
    OLDER_DATASET = "older_dataset"
    OLDER_RUN = "older_run"  # dataset versions cannot be compared, and the champion belongs to a later run
    NOT_COMPARED = "not_compared"  # a required comparison with the champion is missing, and is not possible now
    WORSE = "worse"  # the champion changed after the validation, and the model is worse than the new champion


@dataclass(frozen=True)
class Outcome:
    """The result of a publication.

    :param reason: a message that gives the reason for the decision.
    :param champion: the current champion; ``None`` if there is none.
    :param swapped: whether this call, or an earlier try of the same task, made the job the current champion. An earlier
        try may have crashed before it reported the publication.
    """

    decision: PublishDecision
    reason: str
    champion: Champion | None
    swapped: bool = False

    @property
    def published(self) -> bool:
        """Whether the job is the champion now."""
        return self.decision in {PublishDecision.PUBLISHED, PublishDecision.ALREADY_CHAMPION}


@dataclass(frozen=True)
class Force:
    """Force a publication that a rule prevents. A damaged model is not published even with force.

    Both fields are stored in the champion's history.

    :param by: the person who forces the publication.
    :param why: the reason.
    """

    by: str
    why: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.why.strip():
            raise PublishError(
                "a forced publication or rollback requires a name and a reason",
                hint="set both; they are stored in the champion's history",
            )
