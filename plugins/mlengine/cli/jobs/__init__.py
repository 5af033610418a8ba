"""``mlengine jobs``: list, show, submit, cancel and clean up jobs. One module per command."""

from __future__ import annotations

from importlib import import_module

from mlengine.cli.options import Commands, add_noun

_COMMANDS = ("listing", "status", "logs", "cancel", "train", "rerun", "reap", "prune", "tensorboard")


def register(commands: Commands) -> None:
    """Add the noun and its commands."""
    verbs = add_noun(commands, "jobs", "list, show, submit, cancel and clean up training jobs")
    for name in _COMMANDS:
        import_module(f"mlengine.cli.jobs.{name}").register(verbs)
