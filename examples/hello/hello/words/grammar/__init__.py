"""A sub-package of a sub-package, which the `--package-path` of older tools would have omitted."""

from __future__ import annotations

from importlib.resources import files


def greeting(number: int, name: str) -> str:
    """One of several greetings, for ``name``."""
    greetings = files("hello.words").joinpath("data/greetings.txt").read_text(encoding="utf-8").split()
    return f"{greetings[number % len(greetings)]}, {name}!"
