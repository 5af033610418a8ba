"""Text of unknown origin, as it may be shown in a log, a terminal or a page.

A trainer's log, a service's message, a name from the bucket can hold what a terminal obeys (escapes, carriage returns,
bidirectional marks) or what looks like another line. None of it may hide or forge anything where it is shown: escapes
are taken out, other control characters are made visible.
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 4000
MOST_STATES = 10

_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
# All but tab and line feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """A text of many lines, of any length, that a terminal shows and does not obey."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", _ESCAPE.sub("", text.replace("\r\n", "\n")))


def line(text: str) -> str:
    """One line, and not an endless one: what would begin another is made visible."""
    text = _ESCAPE.sub("", text).rstrip("\r")
    # Of a progress bar, the last state is left standing.
    text = visible(text.rsplit("\r", 1)[-1]).replace("\n", "\\x0a")
    if len(text) > MOST_CHARACTERS:
        return f"{text[:MOST_CHARACTERS]} [{len(text) - MOST_CHARACTERS} characters cut]"
    return text


def states(text: str) -> list[str]:
    """What a line showed, one after the other: a progress bar returns to its beginning and writes over itself.

    Of more than :data:`MOST_STATES`, so many are left, evenly spaced; always the last. At least one.
    """
    shown = [state for state in _ESCAPE.sub("", text).split("\r") if state.strip()]
    step = -(-len(shown) // MOST_STATES) or 1
    return shown[::-1][::step][::-1] or [""]


def lines(text: str) -> list[str]:
    """The lines of a message, and the states of each; at least one."""
    return [line(state) for one in text.rstrip("\n").split("\n") for state in states(one)]
