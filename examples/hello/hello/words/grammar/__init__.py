"""A sub-package of a sub-package, which `--package-path` of old would have lost."""

from __future__ import annotations

from importlib.resources import files


def greeting(number: int, name: str) -> str:
    """One greeting of many, for ``name``."""
    greetings = files("hello.words").joinpath("data/greetings.txt").read_text(encoding="utf-8").split()
    return f"{greetings[number % len(greetings)]}, {name}!"
