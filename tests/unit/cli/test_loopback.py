"""Servers that a command starts listen on loopback only, unless the user asks otherwise."""

from __future__ import annotations

from scripts.reference import _leaves

from mlengine.cli import build_parser


def test_every_listening_command_binds_to_loopback_by_default() -> None:
    found = {}
    for name, parser in _leaves(build_parser()):
        for action in parser._actions:
            if "--host" in action.option_strings:
                found[name] = action.default
    assert set(found) == {"emulator", "jobs tensorboard"}
    assert set(found.values()) == {"127.0.0.1"}
