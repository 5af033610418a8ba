"""Tests ``mlengine models predict`` and ``mlengine models`` with a real model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlengine.backends import Submission, register
from mlengine.champions.history import current
from mlengine.cli import main
from mlengine.cli.documents import ChampionDocument, PredictionDocument, ValidationDocument
from mlengine.cli.exit_codes import ExitCode
from mlengine.core.job import Failure, FailureCause, JobHandle, JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.promotion.publish import publish
from mlengine.testing.backend import MemoryBackend, MemoryJob
from mlengine.validation.report import load_report
from mlengine.validation.rules import Rules, Scope
from tests.support.validation_env import PACKAGE, RULES, ValidationEnv

pytestmark = pytest.mark.integration
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    validation_env: ValidationEnv,
    validation_state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(validation_state_dir))
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", validation_env.bucket)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def quick(validation_env: ValidationEnv, model: str, job_id: str = "") -> None:
    """Publish a model without running it."""
    rules = Rules(scope=Scope.SIGNATURE, require_comparison=False, expected=RULES.expected)
    report = validation_env.validate(model, rules, job_id=job_id)
    publish(validation_env.storage, validation_env.bucket, report, by="test")


def test_the_champion_predicts_ten_held_out_digits(validation_env: ValidationEnv, run: Run) -> None:
    quick(validation_env, "good")
    code, out, err = run("models", "predict", "mnist", "--draw")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{validation_env.bucket}/mnist/mnist_good/model"
    table = [line.split() for line in lines[2:12]]
    # The first ten digits of MNIST's test set.
    assert lines[1].split() == ["ROW", "PREDICTION", "PROBABILITY", "TARGET"]
    assert [row[3] for row in table] == list("7210414959")
    assert [row[0] for row in table] == [str(row) for row in range(10)]
    right = sum(row[1] == row[3] for row in table)
    assert right >= 8
    assert all(0 < float(row[2]) <= 1 for row in table)
    assert lines[-1] == f"{right} of 10 correct"
    code, out, _ = run("models", "predict", "mnist", "--count", "2", "--json")
    document = json.loads(out)
    assert (code, document["model_uri"], len(document["rows"])) == (
        0,
        f"{validation_env.bucket}/mnist/mnist_good/model",
        2,
    )
    assert set(document) == set(PredictionDocument.__annotations__)
    drawn = [line for line in lines if "@" in line]
    assert len(drawn) > 50


def test_predict_uses_the_model_of_a_given_job(validation_env: ValidationEnv, run: Run) -> None:
    job_dir = validation_env.job("good", "job_1")
    record = JobRecord(
        key="k",
        job_id="job_1",
        model="mnist",
        backend="local",
        spec={"package_uris": [PACKAGE]},
        inputs={"dataset": {"uri": validation_env.dataset(), "version": "2026-11-01"}},
    )
    validation_env.storage.write(job_dir.claim, record.to_bytes())
    code, _, err = run("models", "predict", "mnist", "--job", "job_1")
    assert code == 1
    assert "no column for input 'key'" in err, "the job has no report with the serving signature"
    quick(validation_env, "good", "job_1")
    code, out, _ = run("models", "predict", "mnist", "--job", "job_1", "--count", "2", "--first", "9998")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["9998", "9999"]


def test_predict_reports_its_errors(validation_env: ValidationEnv, run: Run) -> None:
    code, _, err = run("models", "predict", "mnist")
    assert code == 1
    assert "mnist has no champion" in err
    quick(validation_env, "good")
    validation_env.storage.write(f"{validation_env.bucket}/mnist/mnist_good/model/saved_model.pb", b"something else")
    code, _, err = run("models", "predict", "mnist")
    assert code == 1
    assert "the model of mnist_good is incomplete" in err
    validation_env.job("writes", "evil")
    code, _, err = run(
        "models", "predict", "mnist", "--job", "evil", "--dataset", validation_env.dataset(), "--package", PACKAGE
    )
    assert code == 1
    assert "WriteFile" in err
    validation_env.job("good", "unknown")
    code, _, err = run("models", "predict", "mnist", "--job", "unknown")
    assert code == 1
    assert "the dataset of unknown is unknown" in err


def test_models_validate_works_on_the_command_line(validation_env: ValidationEnv, run: Run) -> None:
    job_dir = validation_env.job("good", "a")
    code, out, err = run("models", "validate", "mnist", "a", "--validation-level", "signature")
    assert (code, err) == (0, "")
    assert re.search(r"^ok +signature ", out, re.M)
    assert out.splitlines()[-2:] == ["verdict: first", "  There is no champion yet; all 5 checks passed."]
    report = validation_env.storage.read(job_dir.report)
    fewer = ("models", "validate", "mnist", job_dir.uri, "--validation-level", "files", "--threshold", "size_bytes=9")
    code, _, err = run(*fewer)
    assert code == 1
    assert "has checks that this validation does not make: validation_level 'signature', now 'files'" in err
    assert "--replace-report" in err
    assert validation_env.storage.read(job_dir.report) == report
    newer = json.dumps({**json.loads(report), "format": 2}).encode()
    validation_env.storage.write(job_dir.report, newer)
    code, _, err = run(*fewer)
    assert code == 1
    assert "report.json: report has format 2, not 1" in err
    assert "--replace-report" in err
    assert validation_env.storage.read(job_dir.report) == newer
    code, out, _ = run(*fewer, "--replace-report")
    assert code == ExitCode.NOT_ACCEPTED
    assert "verdict: rejected" in out
    code, _, err = run("models", "validate", "mnist", "a", "--threshold", "accurcy=1")
    assert code == ExitCode.USAGE
    assert "unknown metric or threshold: accurcy" in err


def test_a_job_that_does_not_exist_gets_no_report(validation_env: ValidationEnv, run: Run) -> None:
    code, out, err = run("models", "validate", "mnist", "typo")
    assert (code, out) == (1, "")
    assert f"there is no job in {validation_env.bucket}/mnist/typo: it has no job.json and no model" in err
    assert validation_env.storage.ls(f"{validation_env.bucket}/mnist/") == []


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (JobState.FAILED, FailureCause.TRAINER),
        (JobState.CANCELLED, FailureCause.CANCELLED),
        (JobState.RUNNING, None),
    ],
)
def test_a_job_that_has_not_succeeded_gets_no_report(
    validation_env: ValidationEnv, run: Run, state: JobState, cause: FailureCause | None
) -> None:
    memory = MemoryBackend()
    register("memory", lambda **_: memory)
    job_dir = validation_env.job("good", "a")
    handle = JobHandle("memory", "job-1", "a", 1, job_dir.uri)
    submission = Submission("k", "a", 1, job_dir.uri, TrainingSpec("trainer.task", (PACKAGE,)))
    memory.jobs.append(MemoryJob(submission, handle, state, Failure(cause, "ended") if cause else None))
    record = JobRecord(key="k", job_id="a", model="mnist", backend="memory", spec={}, name="job-1")
    validation_env.storage.write(job_dir.claim, record.to_bytes())
    validate = ("models", "validate", "mnist", "a", "--validation-level", "files")
    code, out, err = run(*validate)
    assert (code, out) == (1, "")
    assert f"job a is {state.value}, so its model was not validated" in err
    assert f"mlengine jobs status {job_dir.uri}" in err
    assert not validation_env.storage.exists(job_dir.report)
    code, out, _ = run(*validate, "--any-state")
    assert (code, out.splitlines()[-2]) == (0, "verdict: first")


def test_a_job_that_its_backend_has_lost_needs_a_complete_model(validation_env: ValidationEnv, run: Run) -> None:
    """As after its state dir was deleted."""
    job_dir = validation_env.job("good", "a")
    record = JobRecord(key="k", job_id="a", model="mnist", backend="local", spec={}, name="key-1")
    validation_env.storage.write(job_dir.claim, record.to_bytes())
    validate = ("models", "validate", "mnist", "a", "--validation-level", "files")
    assert run(*validate)[0] == 0
    other = JobDir.of(validation_env.bucket, "mnist", "b")
    validation_env.storage.write(other.claim, record.to_bytes())
    code, _, err = run("models", "validate", "mnist", "b")
    assert code == 1
    assert "there is no model in" in err
    assert not validation_env.storage.exists(other.report)


def test_the_serving_signature_is_recorded_with_the_job(validation_env: ValidationEnv, run: Run) -> None:
    """The DAG defines it; a user who validates or predicts in a terminal does not have to pass it."""
    expectation = {
        "inputs": {"sepal-length": "float32[-1,784]"},
        "outputs": {"output_0": "float32[-1,10]"},
        "columns": {"sepal-length": "image"},
    }
    job_dir = validation_env.job("keras", "a")
    record = JobRecord(
        key="k",
        job_id="a",
        model="mnist",
        backend="local",
        spec={"package_uris": [PACKAGE]},
        inputs={"dataset": {"uri": validation_env.dataset(), "version": "2026-11-01"}},
    )
    validation_env.storage.write(job_dir.claim, record.to_bytes())
    other = ("--serving-signature", '{"name": "predict"}')
    code, out, err = run("models", "validate", "mnist", "a", "--validation-level", "signature", *other)
    assert code == ExitCode.NOT_ACCEPTED
    assert "no signature 'predict'" in out
    given = (
        "--validation-level",
        "signature",
        "--no-require-comparison",
        "--serving-signature",
        json.dumps(expectation),
    )
    code, out, err = run("models", "validate", "mnist", "a", *given)
    assert code == 0, out
    code, out, err = run("models", "validate", "mnist", "a", "--json")
    assert code == 0, out
    assert set(json.loads(out)) == set(ValidationDocument.__annotations__)
    assert json.loads(out)["accepted"]
    assert "validation_level=signature" in err
    report = load_report(validation_env.storage, job_dir)
    assert report.serving_signature["columns"] == {"sepal-length": "image"}
    assert not report.require_comparison
    code, out, err = run("models", "predict", "mnist", "--job", "a", "--count", "3")
    assert (code, err) == (0, ""), out
    assert [line.split()[3] for line in out.splitlines()[2:5]] == ["7", "2", "1"]
    code, _, err = run("models", "validate", "mnist", "a", "--serving-signature", "@/nowhere/at/all")
    assert code == ExitCode.USAGE
    assert "--serving-signature @/nowhere/at/all" in err


def test_champions_are_listed_shown_and_rolled_back_on_the_command_line(
    validation_env: ValidationEnv, run: Run
) -> None:
    assert "no model" in run("models", "list")[1]
    code, out, err = run("models", "show", "mnist", "--json")
    assert (code, out) == (1, "")
    assert "mnist has no champion" in err
    assert json.loads(run("models", "list", "--json")[1]) == []
    quick(validation_env, "good", "a")
    quick(validation_env, "good", "b")
    code, out, _ = run("models", "list")
    assert code == 0
    assert re.search(r"^mnist +2 +\S+ \S+ .* 2026-11-01 +b$", out, re.M)
    code, out, err = run("models", "rollback", "mnist", "--reason", "b is slow", "--by", "anna")
    assert (code, err) == (0, "")
    assert "a is the champion of mnist again" in out
    code, out, _ = run("models", "show", "mnist")
    assert re.search(r"^job: +a$", out, re.M)
    assert "rolled_back" in out
    assert "b is slow" in out
    code, out, _ = run("models", "publish", "mnist", "b")
    assert code == ExitCode.NOT_ACCEPTED
    assert "superseded" in out
    code, _, err = run("models", "publish", "mnist", "b", "--force", "--by", "anna")
    assert code == ExitCode.USAGE
    assert "--force requires a reason" in err
    code, out, _ = run("models", "publish", "mnist", "b", "--force", "--by", "anna", "--reason", "it was the disk")
    assert code == 0
    champion = current(validation_env.storage, validation_env.bucket, "mnist")
    assert champion is not None
    assert (champion.job_id, champion.by, champion.why) == ("b", "anna", "it was the disk")
    assert json.loads(run("models", "show", "mnist", "--json")[1])["action"] == "forced"
    code, out, _ = run("models", "history", "mnist")
    assert [line.split()[0] for line in out.splitlines()] == ["NO.", "4", "3", "2", "1"]
    entries = json.loads(run("models", "history", "mnist", "--json")[1])
    assert [entry["action"] for entry in entries] == ["forced", "rolled_back", "published", "published"]
    assert set(entries[0]) == set(ChampionDocument.__annotations__)
    assert len(json.loads(run("models", "history", "mnist", "--json", "--limit", "1")[1])) == 1
    code, _, err = run("models", "publish", "mnist", "unknown")
    assert code == 1
    assert "validate the model first" in err
