"""The manual as tests read it: pages, code blocks, commands, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))])
RUN = "<!-- run -->"  # above a Python block: the tests run the block as it is
_COMMAND = re.compile(r"(?:^|\$ )(mlengine [a-z].*)")


@dataclass(frozen=True)
class Block:
    """A code block. ``place`` is ``page:line``."""

    page: Path
    line: int
    language: str
    text: str
    run: bool

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    begin: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        above = lines[begin - 1].strip() if begin else ""
        text = "\n".join(lines[begin + 1 : number]) + "\n"
        yield Block(page, begin + 1, lines[begin][3:].strip(), text, above == RUN)
        begin = None


BLOCKS = [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> Iterator[str]:
    """The ``mlengine …`` commands in a block, without comments on the same line."""
    for line in re.sub(r"\s*\\\n\s*", " ", block.text).splitlines():
        for part in re.split(r" {3,}|  (?=\$)", line.strip()):
            match = _COMMAND.search(part.strip())
            if match:
                yield match[1]


def words(command: str) -> tuple[list[str], bool]:
    """The words of a command as a shell splits them, and whether the manual omits part of it (``…``, ``[--json]``)."""
    elided = "…" in command or "[" in command
    bare = re.sub(r"[\[\]]|…", " ", command) if elided else command
    return shlex.split(bare, comments=True)[1:], elided


COMMANDS = [(block, command) for block in BLOCKS for command in commands(block)]
