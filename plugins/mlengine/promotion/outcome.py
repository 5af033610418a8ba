"""What a publication came to, and what a forced one must say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlengine.champions.history import Champion
from mlengine.core.errors import PublishError


class Word(StrEnum):
    """What a publication came to; the same word in log, XCom and docs."""

    PUBLISHED = "published"
    ALREADY_CHAMPION = "already_champion"
    SUPERSEDED = "superseded"  # it was champion before; a repeated task does not bring it back
    REJECTED = "rejected"
    OLDER_DATASET = "older_dataset"
    OLDER_RUN = "older_run"  # no dataset version tells which is newer, and the champion belongs to a later run
    NOT_COMPARED = "not_compared"  # a required comparison with the champion was not made, and cannot be made now
    WORSE = "worse"  # … and compared with the new one it does not hold


@dataclass(frozen=True)
class Outcome:
    """What became of a publication, and who is champion now (``None`` only if there is none at all).

    :param swapped: whether this call, or an earlier try of the same publisher, made the job the champion that it is
        now. An earlier try may have died before it could tell anybody.
    """

    word: Word
    sentence: str
    champion: Champion | None
    swapped: bool = False

    @property
    def published(self) -> bool:
        """Whether the job that asked is the champion."""
        return self.word in {Word.PUBLISHED, Word.ALREADY_CHAMPION}


@dataclass(frozen=True)
class Force:
    """Publish in spite of everything but a broken model. Both are kept in the history."""

    by: str
    why: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.why.strip():
            raise PublishError("force needs a name and a reason", hint="say who forces it, and why; both are kept")
