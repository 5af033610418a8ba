"""The documentation names the options, faults and methods that exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from mlengine.backends.vertex.options import VertexOptions
from mlengine.cli import emulator
from mlengine.cli.jobs import train
from mlengine.emulator.faults import ACTIONS

DOCS = Path(__file__).parents[3] / "docs"


def rows(name: str, heading: str) -> list[list[str]]:
    text = (DOCS / name).read_text("utf-8").partition(heading)[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def flags(module: object) -> set[str]:
    parser = argparse.ArgumentParser()
    module.register(parser.add_subparsers())  # type: ignore[attr-defined]
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    (command,) = commands.choices.values()
    return set(command._option_string_actions)


def test_every_flag_of_the_table_exists() -> None:
    known, found = flags(train), 0
    for gcloud, here, _ in rows("gcloud-flags.md", "every backend."):
        kept = gcloud if here in {"same", "read"} else here if here.startswith("`--") else ""
        for flag in re.findall(r"--[a-z-]+", kept):
            found += 1
            assert flag in known, flag
    assert found > 20


def test_every_option_and_fault_is_documented() -> None:
    named = {name for row in rows("vertex.md", "## Options") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(VertexOptions.names())
    assert {row[0].strip("`") for row in rows("emulator.md", "## Scripted faults")} == set(ACTIONS)


@pytest.mark.parametrize("flag", ["--port", "--grpc-port", "--state-dir", "--faults", "--backend", "--set", "--bucket"])
def test_the_command_has_the_options_that_its_document_names(flag: str) -> None:
    assert flag in flags(emulator)
