"""The result of a publication, and the arguments of a forced one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlengine.champions.history import Champion
from mlengine.core.errors import PublishError


class PublishDecision(StrEnum):
    """The result of a publication. The value is the same in the log, XCom and the manual."""

    PUBLISHED = "published"
    ALREADY_CHAMPION = "already_champion"
    SUPERSEDED = "superseded"  # it was champion before; running the task again does not make it champion again
    REJECTED = "rejected"
    OLDER_DATASET = "older_dataset"
    OLDER_RUN = "older_run"  # dataset versions cannot be compared, and the champion belongs to a later run
    NOT_COMPARED = "not_compared"  # a required comparison with the champion was not made, and is not possible now
    WORSE = "worse"  # the champion changed after the validation, and the model is worse than the new one


@dataclass(frozen=True)
class Outcome:
    """The result of a publication.

    :param reason: why, as a message.
    :param champion: the current champion; ``None`` if there is none.
    :param swapped: whether this call, or an earlier try of the same task, made the job the current champion. An earlier
        try may have crashed before it reported that.
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
    """Publish although a rule prevents it. Does not apply to a damaged model.

    :param by: who forces the publication.
    :param why: the reason. Both are stored in the history.
    """

    by: str
    why: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.why.strip():
            raise PublishError(
                "a forced publication or rollback needs a name and a reason",
                hint="set both; they are stored in the champion's history",
            )
