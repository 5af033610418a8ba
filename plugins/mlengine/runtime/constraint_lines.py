"""Parses a constraints file into lines that pip and uv interpret alike.

``pip freeze``, ``pip-compile``, ``uv export`` and ``poetry export`` write such files, each in its own way, and pip and
uv accept different parts of them. Hashes, extras and comments are removed, and so are lines about the packages that
are installed themselves. Lines that only make sense on the author's machine are refused.

This module uses the standard library only, and nothing newer than Python 3.8, because the start command of a container
includes this source.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))

_REQUIREMENT = re.compile(
    r"""(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?) \s* (?:\[[^\]]*\])? \s*
    (?P<version>@ \s* \S+
      | \(? \s* (?:(?:===|==|~=|!=|<=|>=|<|>) \s* (?:\d+!)? [^\s,;()<>=!~]+ \s* ,? \s*)* \)?) \s*
    (?:; \s* (?P<marker>.+))?""",
    re.VERBOSE,
)
_PIN = re.compile(r"==\s*(\d+(?:\.\d+)*)")
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")
# The comment of pip freeze above an editable package that is not in a repository.
_EDITABLE = re.compile(r"#\s*Editable .*\(([A-Za-z0-9._-]+)==")
# Options of a line about one package that check a download but do not select a version.
_LINE_OPTIONS = re.compile(r"\s--[a-z-]+[=\s].*")
_SHORT = {"-i": "--index-url", "--pypi-url": "--index-url", "-f": "--find-links", "-e": "--editable"}
_SHORT.update({"-r": "--requirement", "-c": "--constraint"})
_PLACES = ("--index-url", "--extra-index-url", "--find-links")
_KEPT = (*_PLACES, "--trusted-host", "--no-binary", "--only-binary")
_KEPT_FLAGS = ("--no-index", "--pre")
_DROPPED_FLAGS = ("--require-hashes", "--prefer-binary")
_DROPPED = ("--use-feature",)
FREEZE = "'pip list --format=freeze > constraints.txt' writes names and versions only"


class ConstraintsError(ValueError):
    """A line or file that cannot be used. ``hint`` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(re.sub(r"(?<=://)[^/\s@]+@", "***@", message))
        self.hint = hint


class File(NamedTuple):
    """The content of one ``constraints.txt``, and its name in error messages."""

    where: str
    content: bytes


class Line(NamedTuple):
    """One effective line. Two lines with the same subject must not contradict each other."""

    text: str
    subject: str
    value: str
    where: str


def parse(file: File, installed: set[str], notes: list[str]) -> Iterator[Line]:
    """The effective lines of a file.

    :param installed: normalized names of the packages that are installed themselves.
    :param notes: receives a message for each ignored line.
    :raises ConstraintsError: a line cannot be used; the message names file and line.
    """
    for number, comment, text in _logical_lines(_decoded(file)):
        where = f"{file.where}:{number}"
        editable = _EDITABLE.match(comment)
        if editable is not None and normal_name(editable[1]) in installed:
            continue
        if text.startswith("-"):
            yield from _options(text, where, installed, notes)
        else:
            line = _requirement(text, where, installed)
            if line is not None:
                yield line


def normal_name(name: str) -> str:
    """The normalized name of a project."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _decoded(file: File) -> str:
    """The decoded text of a file. PowerShell on Windows writes redirected output as UTF-16."""
    encoding = next((name for bom, name in _BOMS if file.content.startswith(bom)), "utf-8")
    try:
        return file.content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConstraintsError(f"{file.where} is not {encoding} text: {error}", "save it as UTF-8") from error


def _logical_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """The logical lines without comments, each with its number and the comment above it."""
    parts: list[str] = []
    first, comment = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        first = first if parts else number
        if line.lstrip().startswith("#"):
            comment = line.strip()
            parts.append("")
        elif line.rstrip().endswith("\\"):
            parts.append(line.rstrip()[:-1])
            continue
        else:
            parts.append(line)
        joined = re.sub(r"(^|\s+)#.*$", "", " ".join(parts)).strip()
        parts = []
        if joined:
            yield first, comment, joined
            comment = ""


def _requirement(text: str, where: str, installed: set[str]) -> Line | None:
    """The effective line for a line about one package; ``None`` if the package is installed itself."""
    match = _REQUIREMENT.fullmatch(_LINE_OPTIONS.sub("", text).strip())
    if match is None:
        if _is_own_path(text, installed):
            return None
        raise ConstraintsError(f"{where} is not a name and a version: {text}", FREEZE)
    name = normal_name(match["name"])
    if name in installed:
        return None
    version, marker = match["version"].strip(), match["marker"] or ""
    if version.startswith("@") and not re.match(r"@\s*https?://", version):
        raise ConstraintsError(
            f"{where} takes {match['name']} from a source that a job cannot reach: {text}",
            f"pin its version (numpy==2.0.1), or package it with the trainer; {FREEZE}",
        )
    version = re.sub(r"^@\s*", "@ ", version) if version.startswith("@") else version.strip("() ")
    pin = _PIN.fullmatch(version)
    line = f"{match['name']} {version}" if version.startswith("@") else f"{match['name']}{version}"
    value = re.sub(r"(\.0)+$", "", pin[1]) if pin else ""
    return Line(f"{line} ; {marker}" if marker else line, f"{name};{marker}", value, where)


def _options(text: str, where: str, installed: set[str], notes: list[str]) -> Iterator[Line]:
    """The effective lines for a line with options: package sources are kept, includes of other files are refused."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConstraintsError(f"{where} is not readable: {text}", str(error)) from error
    while words:
        name, equals, value = words.pop(0).partition("=")
        name = _SHORT.get(name, name)
        if name in _KEPT_FLAGS:
            yield Line(name, name, "", where)
        elif name not in _DROPPED_FLAGS:
            value = value if equals else " ".join(words[:1])
            del words[: 0 if equals else 1]
            yield from _option(name, value, where, installed, notes)


def _option(name: str, value: str, where: str, installed: set[str], notes: list[str]) -> Iterator[Line]:
    """The effective line for one option with a value, if it has an effect."""
    if name in _PLACES and not re.match(r"https?://|\$", value):
        notes.append(f"{where}: {name} {value} is a local directory: ignored")
    elif name in _KEPT:
        yield Line(f"{name} {value}", name, value if name == "--index-url" else "", where)
    elif name == "--editable":
        if not _is_own_path(value, installed):
            raise ConstraintsError(
                f"{where} installs an editable package: -e {value}",
                "package it with the trainer (a list of sources), and remove the line; "
                "uv export --no-emit-workspace leaves such lines out",
            )
    elif name in ("--requirement", "--constraint"):
        raise ConstraintsError(
            f"{where} includes another file, which a job does not have: {name} {value}", "copy its lines into this one"
        )
    elif name not in _DROPPED:
        raise ConstraintsError(f"{where} has an unsupported option: {name}", "remove it")


def _is_own_path(text: str, installed: set[str]) -> bool:
    """Whether a path or repository is that of an installed package, by ``egg=`` or by its name."""
    egg = _EGG.search(text)
    if egg is not None:
        return normal_name(egg[1]) in installed
    path = re.split(r"[\s;]", re.sub(r"\[[^\]]*\]$", "", text.strip()))[0].rstrip("/")
    return path in ("", ".", "file:.") or ("/" in path and normal_name(path.rpartition("/")[2]) in installed)
