"""Sanitise text of unknown origin before it is shown in a log, a terminal or a page.

A trainer's log, a service's message or a name in the bucket may contain terminal escapes, carriage returns,
bidirectional marks or line breaks. To keep it from hiding or forging output, escapes are removed and other control
characters are made visible.
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 4000
MOST_STATES = 10

_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
# Control characters and bidirectional marks, except tab and line feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """``text`` without terminal escapes and with visible control characters. It may have several lines."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", _ESCAPE.sub("", text.replace("\r\n", "\n")))


def line(text: str) -> str:
    """``text`` as one line of limited length; line breaks are made visible."""
    text = _ESCAPE.sub("", text).rstrip("\r")
    # Keep the last state of a progress bar.
    text = escaped(text.rsplit("\r", 1)[-1])
    if len(text) > MOST_CHARACTERS:
        return f"{text[:MOST_CHARACTERS]} [{len(text) - MOST_CHARACTERS} characters cut]"
    return text


def escaped(text: str) -> str:
    """``text`` sanitised by :func:`visible`, as one line of any length."""
    return visible(text).replace("\n", "\\x0a")


def joined(text: str) -> str:
    """``text`` sanitised by :func:`visible`, as one line of any length, with spaces instead of line breaks."""
    return " ".join(visible(text).split())


def states(text: str) -> list[str]:
    """The successive states of a line that a progress bar overwrote with carriage returns; at least one.

    If there are more than :data:`MOST_STATES`, that many are returned, evenly spaced and including the last.
    """
    shown = [state for state in _ESCAPE.sub("", text).split("\r") if state.strip()]
    step = -(-len(shown) // MOST_STATES) or 1
    return shown[::-1][::step][::-1] or [""]


def overwritten(rest: bytes) -> int:
    """The length of the overwritten states of an incomplete line, which is the offset of its current state."""
    end = rest.rfind(b"\r")
    while end >= 0 and rest[end + 1 : end + 2] in {b"", b"\r", b"\n"}:
        end = rest.rfind(b"\r", 0, end)
    return end + 1 if rest[: end + 1].strip() else 0


def lines(text: str) -> list[str]:
    """The lines of a message, with all states of each line; at least one."""
    return [line(state) for one in text.rstrip("\n").split("\n") for state in states(one)]
