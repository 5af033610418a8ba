"""``make lint``: keep home-made words out of what people read. ``python -m scripts.prose [--count] [PATH …]``.

Reads docstrings, comments, string literals and defined names of Python and JavaScript files, the text of Markdown files
without code blocks, the text of HTML files and templates, and the comments of CSS files. ``scripts/prose.toml`` lists
each pattern with the standard term. A line that must keep a word, such as a quotation, ends with ``prose: ok`` in a
comment.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bootstrap import ROOT

RULES = ROOT / "scripts" / "prose.toml"
_CHECKED = ("plugins", "dags", "trainer", "examples", "scripts", "benchmarks", "tests", "docs", "deploy")
_TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
_EXEMPT = ("scripts/prose.py", "tests/unit/scripts/test_prose.py")
_KEEP = "prose: ok"


@dataclass(frozen=True)
class Rule:
    """One home-made word and what to write instead.

    :param pattern: a regular expression, matched without regard to case.
    :param use: the standard term.
    """

    pattern: re.Pattern[str]
    use: str


@dataclass(frozen=True)
class Finding:
    """One use of a home-made word."""

    path: Path
    line: int
    found: str
    use: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: “{self.found}”: write {self.use}"


def main(argv: Sequence[str]) -> int:
    """Print each finding, or with ``--count`` the findings per 1,000 lines of each top folder. Exit code: 1 if any."""
    paths = [Path(arg) for arg in argv if not arg.startswith("-")] or [ROOT]
    files = sorted({file for path in paths for file in _files(path.resolve())})
    found = list(check(files, load_rules()))
    if "--count" in argv:
        sys.stdout.write(_counts(files, found))
    else:
        sys.stdout.writelines(f"{finding}\n" for finding in found)
    sys.stdout.write(f"{len(found)} findings in {len(files)} files\n")
    return 1 if found else 0


@dataclass(frozen=True)
class Rules:
    """The content of ``prose.toml``: rules for text, and rules for each word of a name."""

    prose: list[Rule]
    names: list[Rule]


def load_rules(path: Path = RULES) -> Rules:
    """Read the rules."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    return Rules(_rules(raw["prose"]), _rules(raw["names"]))


def _rules(table: Mapping[str, Sequence[str]]) -> list[Rule]:
    return [Rule(re.compile(pattern, re.IGNORECASE), use) for use, patterns in table.items() for pattern in patterns]


def check(files: Iterable[Path], rules: Rules) -> Iterator[Finding]:
    """Each match of a rule in ``files``."""
    known: dict[str, list[str]] = {}
    for file in files:
        source = file.read_text(encoding="utf-8")
        keep = {number for number, line in enumerate(source.splitlines(), 1) if _KEEP in line}
        prose, names = _READERS[file.suffix]
        found = [*_in_prose(prose(source), rules.prose), *_in_names(names(source), rules.names, known)]
        yield from (Finding(_relative(file), line, text, use) for line, text, use in sorted(found) if line not in keep)


def _in_prose(prose: Iterable[tuple[int, str]], rules: Sequence[Rule]) -> Iterator[tuple[int, str, str]]:
    # One search with all patterns is faster than a search with each of them, and most texts match none.
    anything = re.compile("|".join(f"(?:{rule.pattern.pattern})" for rule in rules) or "(?!)", re.IGNORECASE)
    for first, text in prose:
        for rule in rules if anything.search(text) else ():
            for match in rule.pattern.finditer(text):
                yield first + text.count("\n", 0, match.start()), " ".join(match[0].split()), rule.use


def _in_names(
    names: Iterable[tuple[int, str]], rules: Sequence[Rule], known: dict[str, list[str]]
) -> Iterator[tuple[int, str, str]]:
    """:param known: the standard terms by name, filled here, as most names are defined many times."""
    for line, name in names:
        if name not in known:
            words = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)
            known[name] = [rule.use for rule in rules if any(rule.pattern.fullmatch(word) for word in words)]
        for use in known[name]:
            yield line, name, use


def defined_names(source: str) -> Iterator[tuple[int, str]]:
    """Functions, classes, parameters and variables, each where it is defined or assigned."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def python_prose(source: str) -> Iterator[tuple[int, str]]:
    """Comments and string literals, each with its first line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _PROSE_TOKENS:
            yield token.start[0], token.string


_PROSE_TOKENS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def markdown_prose(source: str) -> Iterator[tuple[int, str]]:
    """The text as one piece, with code blocks, code spans and link targets blanked."""
    blank = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), source, flags=re.DOTALL | re.MULTILINE)
    blank = re.sub(r"`[^`\n]*`", "``", blank)
    yield 1, re.sub(r"\]\([^)\n]*\)", "]()", blank)


# Comments and strings. An expression inside a template literal is read as part of its string.
_JAVASCRIPT = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`""", re.DOTALL)
_JAVASCRIPT_NAME = re.compile(r"\b(?:const|let|var|function|class)\s+([A-Za-z_$][\w$]*)")


def javascript_prose(source: str) -> Iterator[tuple[int, str]]:
    """Comments, strings and template literals, each with its first line."""
    for match in _JAVASCRIPT.finditer(source):
        yield _line_of(source, match.start()), match[0]


def javascript_names(source: str) -> Iterator[tuple[int, str]]:
    """Functions, classes and variables, each where it is declared. Parameters are not read."""
    for match in _JAVASCRIPT_NAME.finditer(source):
        yield _line_of(source, match.start()), match[1]


def html_prose(source: str) -> Iterator[tuple[int, str]]:
    """The text as one piece, attributes included, with styles, scripts and template expressions blanked."""
    hidden = r"\{\{.*?\}\}|\{%.*?%\}|<style\b.*?</style>|<script\b.*?</script>"
    yield 1, re.sub(hidden, lambda match: " " + "\n" * match[0].count("\n"), source, flags=re.DOTALL)


def css_prose(source: str) -> Iterator[tuple[int, str]]:
    """Comments, each with its first line."""
    for match in re.finditer(r"/\*.*?\*/", source, re.DOTALL):
        yield _line_of(source, match.start()), match[0]


def _line_of(source: str, offset: int) -> int:
    return source.count("\n", 0, offset) + 1


def _no_names(_source: str) -> Iterator[tuple[int, str]]:
    return iter(())


_Reader = Callable[[str], Iterator[tuple[int, str]]]
# File extension → the functions that read a file's prose and the names that it defines.
_READERS: dict[str, tuple[_Reader, _Reader]] = {
    ".py": (python_prose, defined_names),
    ".md": (markdown_prose, _no_names),
    ".js": (javascript_prose, javascript_names),
    ".html": (html_prose, _no_names),
    ".jinja": (html_prose, _no_names),
    ".css": (css_prose, _no_names),
}


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    tops = [path / name for name in (*_CHECKED, *_TOP)] if path == ROOT else [path]
    for top in tops:
        if top.is_file():
            yield top
        for file in top.rglob("*") if top.is_dir() else ():
            name = _relative(file).as_posix()
            if file.suffix in _READERS and name not in _EXEMPT and "tests/trainers/" not in name:
                yield file


def _relative(file: Path) -> Path:
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


def _counts(files: Sequence[Path], found: Sequence[Finding]) -> str:
    lines: dict[str, int] = {}
    hits: dict[str, int] = {}
    for file in files:
        group = _group(_relative(file))
        lines[group] = lines.get(group, 0) + len(file.read_text(encoding="utf-8").splitlines())
    for finding in found:
        group = _group(finding.path)
        hits[group] = hits.get(group, 0) + 1
    rows = (f"{hits.get(name, 0) * 1000 / lines[name]:8.1f}  {name}\n" for name in sorted(lines))
    return "per 1,000 lines\n" + "".join(rows)


def _group(path: Path) -> str:
    parts = path.parts
    return "/".join(parts[:3] if parts[:2] == ("plugins", "mlengine") and len(parts) > 3 else parts[:1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
