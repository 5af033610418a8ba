"""``mlengine datasets``: register, list, compare, verify and download dataset versions."""

from __future__ import annotations

from importlib import import_module

from mlengine.cli.options import Commands, add_noun

_COMMANDS = ("catalog", "registration", "comparison", "download")


def register(commands: Commands) -> None:
    """Add the noun and its commands."""
    verbs = add_noun(commands, "datasets", "register, list, compare, verify and download dataset versions")
    for name in _COMMANDS:
        import_module(f"mlengine.cli.datasets.{name}").register(verbs)
