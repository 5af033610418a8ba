"""The samples in the manual work: commands, job files, settings and Python code."""

from __future__ import annotations

import argparse
import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlengine.cli import build_parser
from mlengine.core.job_file import parse
from mlengine.settings import SETTINGS
from tests.support.manual import BLOCKS, COMMANDS, PAGES, ROOT, Block, words

PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN = [block for block in PYTHON if block.run]


def test_the_manual_has_samples() -> None:
    assert len(PAGES) > 15
    assert len(COMMANDS) > 25
    assert len(RUN) > 3


def test_shown_files_equal_those_in_the_repository() -> None:
    shown = [
        (ROOT / path, text)
        for page in PAGES
        for path, text in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(shown) >= 3
    for path, text in shown:
        assert text == path.read_text(), f"show {path} as it is"


@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=[f"{b.place} {c[:40]}" for b, c in COMMANDS])
def test_commands_are_valid(block: Block, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    given, elided = words(command)
    given = given[: given.index("--")] if "--" in given else given
    parser = build_parser()
    try:
        parser.parse_args(given)
    except SystemExit as end:
        output = capsys.readouterr().err
        if end.code and not (elided and "required" in output):
            pytest.fail(f"{block.place}: {output}")
    assert flags(parser, given) >= {word.partition("=")[0] for word in given if word.startswith("--")}, block.place


def flags(parser: argparse.ArgumentParser, given: list[str]) -> set[str]:
    """All options of the command, including those that the parser had not reached when it failed."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            name = next((word for word in given if word in action.choices), None)
            if name is not None:
                found |= flags(action.choices[name], given[given.index(name) + 1 :])
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_commands_in_text_exist(page: Path) -> None:
    """Commands in running text exist. They may lack required arguments, as in `mlengine jobs reap`."""
    text = " ".join(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE).split())
    parser = build_parser()
    for command in re.findall(r"`mlengine ([a-z][^`]*)`", text):
        given = [word.strip("[]…") for word in command.partition(" -- ")[0].split()]
        unknown = unknown_words(parser, [word for word in given if word and "|" not in word])
        assert not unknown, f"`mlengine {command}`: {unknown}"


def unknown_words(parser: argparse.ArgumentParser, given: list[str]) -> list[str]:
    """The first subcommand that does not exist, and the options that do not exist."""
    options = {word.partition("=")[0] for word in given if word.startswith("-")}
    unknown = sorted(options - flags(parser, given))
    for word in given:
        below = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
        if below is None or word.startswith("-"):
            break
        if word not in below.choices:
            return [word, *unknown]
        parser = below.choices[word]
    return unknown


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in {"yaml", "json"}], ids=lambda block: block.place)
def test_job_files_are_valid(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    elif re.search(r"^(trainingInput|workerPoolSpecs|jobSpec):", block.text, re.MULTILINE):
        assert parse.load(block.text).pools


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "ini"], ids=lambda block: block.place)
def test_settings_exist(block: Block) -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(block.text)
    secrets = {f"{one.name}_{suffix}" for one in SETTINGS.values() if one.sensitive for suffix in ("cmd", "secret")}
    assert set(config["mlengine"]) <= SETTINGS.keys() | secrets, block.place


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_samples_compile(block: Block) -> None:
    text = re.sub(r",?\s*…", "", block.text)  # marks omissions in the manual
    compile(text + "    pass\n" * text.rstrip().endswith(":"), block.place, "exec")


def test_complete_python_samples_run(tmp_path: Path) -> None:
    """Complete samples run, all in one interpreter but each in its own namespace.

    This creates the DAGs, and operators with their arguments.
    """
    program = (
        "import json, sys, types\n"
        "for place, text in json.load(sys.stdin):\n"
        "    sys.modules['sample'] = module = types.ModuleType('sample')\n"  # dataclasses look their module up
        "    module.__file__ = sys.argv[1] + '/sample.py'\n"
        "    try:\n"
        "        exec(compile(text, place, 'exec'), module.__dict__)\n"
        "        for name, thing in list(vars(module).items()):\n"
        "            if name.startswith('test_') and not thing.__code__.co_argcount:\n"
        "                thing()\n"
        "    except BaseException as error:\n"
        "        raise SystemExit(f'{place}: {error!r}')\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLENGINE"))}
    env |= {
        "AIRFLOW_HOME": str(tmp_path),
        "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}",
        "AIRFLOW__MLENGINE__BUCKET": "gs://b",
    }
    samples = json.dumps([(block.place, block.text) for block in RUN])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        input=samples,
        env=env,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_in_the_manual_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+(?: [a-z0-9-]+)*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for target in targets for name in target.split()}
    asked = set(re.findall(r"`make ([a-z-]+)|^\$? ?make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert {one or other for one, other in asked} <= known
