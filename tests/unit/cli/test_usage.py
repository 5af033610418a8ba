"""Wrong usage exits with 2, a reason on stderr and nothing on stdout. The help lists the right exit codes."""

from __future__ import annotations

import re

import pytest
from scripts.reference import _leaves

from mlengine import cli
from mlengine.cli import build_parser, exit_codes
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.jobs import status
from mlengine.core.errors import JobFileError, MlengineError, StorageError, UsageError

ROOT = ("jobs", "datasets", "models", "vertex", "emulator")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "the following arguments are required: NOUN"),
        (["jobs"], "the following arguments are required: COMMAND"),
        (["train", "j", "--", "--x"], "there is no `mlengine train`: use `mlengine jobs train`"),
        (["status"], "there is no `mlengine status`: use `mlengine jobs list, or jobs status JOB`"),
        (["predict", "m"], "there is no `mlengine predict`: use `mlengine models predict`"),
        (["tarin"], "invalid choice: 'tarin'"),
        (["jobs", "list", "--state", "DONE"], "invalid choice: 'DONE'"),
        (["jobs", "list", "--limit", "0"], "must be 1 or more: 0"),
        (["jobs", "status", "j", "--backend", "nope"], "no backend named 'nope'; the backends are "),
        (["jobs", "prune", "--older-than", "0"], "argument --older-than: must be 1 or more: 0"),
        (["jobs", "prune", "--older-than", "a week"], "argument --older-than: not an integer: 'a week'"),
        (["jobs", "train", "j", "--set", "spot"], "argument --set: expected KEY=VALUE, got 'spot'"),
        (
            ["models", "register", "m", "--registry", "vertex", "--set", "=x"],
            "argument --set: expected KEY=VALUE, got '=x'",
        ),
        (["models", "validate", "m", "j", "--threshold", "0.9"], "argument --threshold: expected KEY=VALUE, got '0.9'"),
        (["models", "predict", "m", "--first", "-1"], "argument --first: must be 0 or more: -1"),
        (["models", "register", "m", "--registry", "bogus"], "no registry named 'bogus'; the registries are mlflow, "),
        (["models", "rollback", "m", "--reason", " "], "argument --reason: the reason must not be empty"),
        (
            ["models", "publish", "m", "j", "--force", "--reason", " "],
            "argument --reason: the reason must not be empty",
        ),
        (["jobs", "tensorboard", "j", "--every", "-5"], "argument --every: must be more than 0: -5"),
        (["jobs", "tensorboard", "j", "--every", "nan"], "argument --every: must be more than 0: nan"),
        (["emulator", "--port", "99999"], "argument --port: port 99999 is out of range"),
        (["emulator", "--port", "-1"], "argument --port: port -1 is out of range"),
    ],
)
def test_invalid_arguments_are_a_usage_error(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(command)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (ExitCode.USAGE, "")
    assert message in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["jobs", "train", "j", "--module-name", "a.b"], "no bucket is configured for the job"),
        (
            ["jobs", "train", "j", "--set", "spot=1", "--set", "spot=0", "--job-dir", "gs://bkt/j"],
            "spot is given twice",
        ),
        (
            ["datasets", "add", "d", "v1", "f.csv", "--bucket", "bkt", "--dtype", "x=int64", "--dtype", "x=float64"],
            "--dtype: x is given twice",
        ),
        (["jobs", "train", "1j", "--job-dir", "gs://bkt/j"], "JOB: is not a job id: '1j'"),
        (["jobs", "rerun", "j"], "JOB: invalid job dir: 'j'"),
        (["jobs", "rerun", "/j"], "JOB: invalid job dir: '/j'"),
        (["jobs", "list", "--backend", "local", "--bucket", "b"], "--bucket and --backend are mutually exclusive"),
        (["jobs", "tensorboard"], "pass either JOB or --model"),
        (["jobs", "tensorboard", "j", "--model", "m"], "pass either JOB or --model"),
        (["models", "publish", "m", "j", "--force"], "--force requires a reason"),
        (["datasets", "add", "d", "v", ".", "--limit", "bogus=1", "--bucket", "gs://bkt"], "has the limit 'bogus'"),
        (["datasets", "add", "d", "v", ".", "--limit", "drift=-1", "--bucket", "gs://bkt"], "the limit drift is -1"),
        (["datasets", "add", "d", "v", ".", "--dtype", "x=foo", "--bucket", "gs://bkt"], "x=foo: unknown type"),
        (
            ["datasets", "add", "d", "v", ".", "--license", "x", "--source", "x", "--allow", "duplicates"],
            "--allow requires",
        ),
    ],
)
def test_contradictory_arguments_are_a_usage_error(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__MLENGINE__BUCKET", raising=False)
    assert cli.main(command) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mlengine: ")
    assert message in err
    assert "What to do: " in err


@pytest.mark.parametrize("noun", ["jobs list", "jobs prune --older-than 9", "datasets list", "models list"])
def test_without_a_bucket_a_command_fails(
    noun: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__MLENGINE__BUCKET", raising=False)
    assert cli.main(noun.split()) == ExitCode.FAILED
    assert "--bucket" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MlengineError("x"), ExitCode.FAILED),
        (StorageError("x"), ExitCode.FAILED),
        (UsageError("x"), ExitCode.USAGE),
        (JobFileError("x"), ExitCode.USAGE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_errors_map_to_exit_codes(
    error: BaseException, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(status, "_status", fail)
    assert cli.main(["jobs", "status", "j"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(exit_codes.MEANINGS) == set(ExitCode)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {code:>3}  {meaning}" in shown for code, meaning in exit_codes.MEANINGS.items())
    assert max(map(len, shown.splitlines())) <= 80


def test_the_top_level_commands_and_renamed_ones_exist() -> None:
    names = {name for name, _ in _leaves(build_parser())}
    assert {name.split()[0] for name in names} == set(ROOT)
    for old, new in cli._ELSEWHERE.items():
        assert old not in ROOT
        assert re.split(r"[,]| JOB", new)[0] in names


def test_every_list_and_show_command_has_json_output() -> None:
    options = {
        name: {option for action in parser._actions for option in action.option_strings}
        for name, parser in _leaves(build_parser())
    }
    shown = {name for name in options if re.search(r" (list|show|history|status|verify|diff|predict|validate)$", name)}
    assert len(shown) >= 10
    assert {name for name in shown if "--json" not in options[name]} == set()
    assert {"jobs reap", "jobs prune", "models publish"} <= {name for name in options if "--json" in options[name]}


@pytest.mark.parametrize(("name", "parser"), list(_leaves(build_parser())), ids=lambda value: str(value)[:20])
def test_every_argument_has_a_help_text(name: str, parser: object) -> None:
    for action in parser._actions:  # type: ignore[attr-defined]
        assert action.help, f"{name}: {action.dest}"
