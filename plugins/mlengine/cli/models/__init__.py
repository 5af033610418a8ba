"""``mlengine models``: list, show, validate and publish the models of jobs. One module per group of commands."""

from __future__ import annotations

from importlib import import_module

from mlengine.cli.options import Commands, add_noun

_COMMANDS = ("show", "validate", "publish", "registry", "predict")


def register(commands: Commands) -> None:
    """Add the noun and its commands."""
    verbs = add_noun(commands, "models", "list, validate, publish and roll back models")
    for name in _COMMANDS:
        import_module(f"mlengine.cli.models.{name}").register(verbs)
