"""The grammar of the Logging query language, and the messages of its errors."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.logging_query.syntax import FALSE, TRUE, And, Comparison, Node, Not, Or, Text, parse

A, B, C, D = (Text(letter) for letter in "abcd")
LETTERS = st.sampled_from([A, B, C, D])
NODES: st.SearchStrategy[Node] = st.recursive(
    LETTERS,
    lambda inner: st.one_of(
        inner.filter(lambda node: not isinstance(node, Not)).map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=8,
)


def shown(node: Node, *, within: str = "") -> str:
    """The source of the tree, with parentheses only where the precedence requires them."""
    match node:
        case Text():
            return node.value
        case Not():
            return f"NOT {shown(node.part, within='NOT')}"
        case Or():
            text = " OR ".join(shown(part, within="OR") for part in node.parts)
            return f"({text})" if within in {"NOT", "OR"} else text
        case And():
            text = " AND ".join(shown(part, within="AND") for part in node.parts)
            return f"({text})" if within else text
    raise AssertionError(node)


@given(NODES)
def test_not_binds_tightest_then_or_then_and(node: Node) -> None:
    assert parse(shown(node)) == node
    assert parse(shown(node).replace(" AND ", "\n  ")) == node, "AND must be optional"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", TRUE),
        (" \n ", TRUE),
        ("-- all of them", TRUE),
        # The example in Google's documentation.
        ('"a" OR NOT "b" AND NOT "c" OR "d"', And((Or((A, Not(B))), Or((Not(C), D))))),
        ("a b OR c", And((A, Or((B, C))))),
        ("a and b", And((A, Text("and"), B))),
        ("-a OR b", Or((Not(A), B))),
        ("- a", Not(A)),
        ("-(a OR b)", Not(Or((A, B)))),
        ("NOT NOT a", A),
        ("NOT -a", A),
        ("((a))", A),
        ("a -- b\n c", And((A, C))),
        ("severity>=ERROR", Comparison(("severity",), ">=", "ERROR")),
        ("resource.labels.job_id = '7'", Comparison(("resource", "labels", "job_id"), "=", "7")),
        ('labels."a.b/c" != x', Comparison(("labels", "a.b/c"), "!=", "x")),
        ("jsonPayload.loss<-1.5", Comparison(("jsonPayload", "loss"), "<", "-1.5")),
        ('textPayload =~ "step \\d+"', Comparison(("textPayload",), "=~", "step \\d+")),
        (r'textPayload:"say \"hi\"\n"', Comparison(("textPayload",), ":", 'say "hi"\n')),
        ("jsonPayload.message:*", Comparison(("jsonPayload", "message"), ":", "*")),
        (
            "severity=(ERROR OR NOT INFO)",
            Or((Comparison(("severity",), "=", "ERROR"), Not(Comparison(("severity",), "=", "INFO")))),
        ),
        (
            'insertId=("A" OR "B") severity=INFO',
            And(
                (
                    Or((Comparison(("insertId",), "=", "A"), Comparison(("insertId",), "=", "B"))),
                    Comparison(("severity",), "=", "INFO"),
                )
            ),
        ),
        # According to the documentation, these are not the same.
        ('insertId="A" OR "B"', Or((Comparison(("insertId",), "=", "A"), Text("B")))),
    ],
)
def test_filters_are_parsed_into_trees(text: str, tree: Node) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Reported by users of the service: a timestamp lost its quotation marks.
        ("timestamp>=2026-06-12T03:23:45Z", "syntax error at line 1, column 25, token ':'"),
        ("insertId = abc:def", "syntax error at line 1, column 15, token ':'"),
        ("a AND\n = b", "syntax error at line 2, column 2, token '='"),
        ("a =", "syntax error at line 1, column 4, token '<EOF>'"),
        ("(a", "token '<EOF>'"),
        ("a)", r"token '\)'"),
        ("()", r"token '\)'"),
        ("AND", "token 'AND'"),
        ("a AND", "token '<EOF>'"),
        ("a OR OR b", "token 'OR'"),
        ("a = = b", "column 5, token '='"),
        ("a.=b", "token 'a.'"),
        ("a..b=c", "token 'a..b'"),
        ('"open', "token '\"'"),
        ("a=(b OR c=d)", "token '='"),
        ("a=b,c", "token ','"),
        ("logName =~ x", "regular expressions must begin and end with '\"' at line 1, column 12, token 'x'"),
        ('SEARCH("x")', r"does not support the function SEARCH\(\)"),
        ("NOT sample(insertId, 0.1)", r"does not support the function sample\(\)"),
        ("(" * 5000, "nested too deeply"),
    ],
)
def test_an_invalid_filter_is_rejected(text: str, message: str) -> None:
    with pytest.raises(EmulatorApiError, match=f"^Unparseable filter: .*{message}"):
        parse(text)


def test_the_length_of_a_filter_is_limited() -> None:
    assert parse("a" * 20_000) != FALSE
    with pytest.raises(EmulatorApiError, match="20000 characters"):
        parse("a" * 20_001)


@given(st.text() | st.text(alphabet="abANDORT =:<>!~()\"'-.*\\\n", max_size=40))
def test_any_string_is_parsed_or_rejected(text: str) -> None:
    with contextlib.suppress(EmulatorApiError):
        parse(text)
