"""Untrusted text can neither control a terminal nor imitate another line."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from mlengine.core import plaintext

HOSTILE = "ok\x1b[2J\x1b]0;title\x07\nchief-0 | forged\r\n\u202eevil\x9b31m"


def test_lines_are_split_and_control_characters_are_escaped() -> None:
    assert plaintext.lines(HOSTILE) == ["ok", "chief-0 | forged", "\\x202eevil\\x9b31m"]
    assert plaintext.lines("") == [""]
    assert plaintext.line(HOSTILE).count("\n") == 0


def test_the_states_of_a_progress_bar_are_shown_one_by_one() -> None:
    assert plaintext.lines("epoch 1\n\r 10 %\r 20 %\r\x1b[K\r30 %\r") == ["epoch 1", " 10 %", " 20 %", "30 %"]
    many = "\r".join(str(number) for number in range(101))
    assert plaintext.states(many) == [str(number) for number in range(1, 101, 11)]
    assert plaintext.states("") == plaintext.states("\r \r") == [""]


def test_long_lines_are_cut_but_listings_are_not() -> None:
    assert plaintext.line("x" * 5000).endswith("[1000 characters cut]")
    assert plaintext.visible("x" * 5000) == "x" * 5000
    assert plaintext.visible("a\tb\nc") == "a\tb\nc"


@given(st.text())
def test_no_terminal_control_sequence_is_left(text: str) -> None:
    for shown in (plaintext.visible(text), plaintext.line(text), *plaintext.lines(text)):
        assert not {character for character in shown if unicodedata.category(character) == "Cc"} - {"\t", "\n"}
        assert unicodedata.bidirectional("\u202e") not in {unicodedata.bidirectional(character) for character in shown}
