"""The check that keeps home-made words out of code and docs."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import prose

RULES = prose.load_rules()


def findings(tmp_path: Path, name: str, source: str) -> list[tuple[int, str]]:
    file = tmp_path / name
    file.write_text(source)
    return [(finding.line, finding.found) for finding in prose.check([file], RULES)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('log.info("it was looked at")\n', [(1, "was looked"), (1, "looked at")]),
        ('"""One.\n\nWhoever reads it.\n"""\n', [(3, "Whoever")]),
        ("x = 1  # nobody knows\n", [(1, "nobody")]),
        ('f"the remedy of {x}"\n', [(1, "remedy")]),
        ("def bury(): ...\n", [(1, "bury")]),
        ("def f(next_look: int): ...\n", [(1, "next_look")]),
        ("class LeaseTaken: ...\n", [(1, "LeaseTaken")]),
        ('raise E("…", remedy="do it")\n', []),
        ("overlook = outlook = 1\n", []),
        ('x = "stands on a lease"  # prose: ok\n', []),
    ],
)
def test_python_strings_and_names_are_checked(tmp_path: Path, source: str, expected: list[tuple[int, str]]) -> None:
    assert sorted(findings(tmp_path, "a.py", source)) == sorted(expected)


def test_code_in_markdown_is_not_checked(tmp_path: Path) -> None:
    source = "# A title\n\n```\nnobody\n```\n\nThe `remedy` of [x](beside.md)\nis made anew.\n"
    assert findings(tmp_path, "a.md", source) == [(8, "anew")]


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("a.js", "const a = 1; // nobody knows\n", [(1, "nobody")]),
        ("a.js", '\nel("p", {}, "looking at the bucket");\n', [(2, "looking at")]),
        ("a.js", "/* one\n   knob */\n", [(2, "knob")]),
        ("a.js", "const s = `the ${x}\nremedy`;\n", [(2, "remedy")]),
        ("a.js", "function tell() {}\nlet nextLook = 1;\n", [(1, "tell"), (2, "nextLook")]),
        ("a.js", 'const url = "https://x/y"; row.settled && body.remedy;\n', []),
        ("a.html.jinja", "<p>\nmade of {{ check.settled }}</p>\n", [(2, "made of")]),
        ("a.html.jinja", "{% if settled %}\n<img alt='a knob'>{# nobody #}\n", [(2, "knob"), (2, "nobody")]),
        ("a.html", "<style>.settled{color:red}</style>\n<p title='settled'>\n", [(2, "settled")]),
        ("a.css", ".settled{}\n/* settled */\n", [(2, "settled")]),
    ],
)
def test_scripts_templates_and_styles_are_checked(
    tmp_path: Path, name: str, source: str, expected: list[tuple[int, str]]
) -> None:
    assert sorted(findings(tmp_path, name, source)) == sorted(expected)


def test_a_finding_names_file_line_word_and_term(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("one\na knob\n")
    assert [str(finding) for finding in prose.check([file], RULES)] == [
        f"{file}:2: “knob”: write setting or option (knob)"
    ]
