"""``$(VAR)``, as the container runtime of Vertex AI expands it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.expansion import escape, expand, expand_environment, substitute
from mlengine.emulator import replica

VARIABLES = {"A": "1", "B": "$(A)", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("--x=$(A)/$(A)", "--x=1/1"),
        ("$(B)", "$(A)"),
        ("[$(EMPTY)]", "[]"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$A ${A} $5 100$", "$A ${A} $5 100$"),
        ("a$$b", "a$b"),
        ("$(A", "$(A"),
        ("$($$A)", "$($$A)"),
        ("$", "$"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, VARIABLES) == expanded


texts = st.text("$()AB x", max_size=20)


@given(texts, st.dictionaries(st.text("AB$", max_size=2), texts, max_size=3))
def test_escaped_references_are_passed_unchanged(text: str, variables: dict[str, str]) -> None:
    assert expand(escape(text), variables) == text


@given(texts)
def test_substituting_some_and_expanding_the_rest_equals_expanding_all(text: str) -> None:
    first, rest = {"A": "$(B)$$"}, {"B": "2"}
    assert expand(substitute(text, first), rest) == expand(text, {**first, **rest})


def test_a_variable_can_refer_to_earlier_ones() -> None:
    own = {"X": "$(GIVEN)/$(Y)", "Y": "$(X)!", "Z": "$$(X)"}
    assert expand_environment(own, {"GIVEN": "g"}) == {"X": "g/$(Y)", "Y": "g/$(Y)!", "Z": "$(X)"}


@given(texts)
def test_the_emulator_uses_the_same_expansion_rules(text: str) -> None:
    """The emulator's replica runs in the trainer's environment and has a copy of the rules, which must stay equal."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "environ", VARIABLES)
        assert replica.expand(text) == expand(text, VARIABLES)
