"""``mlengine predict`` and ``mlengine models`` as a person types them, on a real model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlengine.champions.history import current
from mlengine.cli import main
from mlengine.core.job import JobRecord
from mlengine.promotion.publish import publish
from mlengine.validation.report import load_report
from mlengine.validation.rules import Rules, Scope
from tests.integration.gate_lab import PACKAGE, Lab

pytestmark = pytest.mark.integration
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(lab: Lab, gate_state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(gate_state))
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", lab.bucket)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def quick(lab: Lab, model: str, job_id: str = "") -> None:
    """Publish without running the model."""
    report = lab.judge(model, Rules(scope=Scope.SIGNATURE, require_comparison=False), job_id=job_id)
    publish(lab.storage, lab.bucket, report, by="test")


def test_ten_held_out_digits_from_the_champion_by_name(lab: Lab, run: Run) -> None:
    quick(lab, "good")
    code, out, err = run("predict", "mnist", "--draw")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{lab.bucket}/mnist/mnist_good/model"
    table = [line.split() for line in lines if re.match(r"^ +\d+ +\d", line)]
    # The first ten digits of MNIST's test set.
    assert [row[2] for row in table] == list("7210414959")
    assert [row[0] for row in table] == [str(key) for key in range(10)]
    right = sum(row[1] == row[2] for row in table)
    assert right >= 8
    assert all(0 < float(row[3]) <= 1 for row in table)
    assert lines[-1] == f"{right} of 10 right"
    drawn = [line for line in lines if "@" in line]
    assert len(drawn) > 50


def test_a_jobs_own_model(lab: Lab, run: Run) -> None:
    job_dir = lab.job("good", "job_1")
    record = JobRecord(
        key="k",
        job_id="job_1",
        model="mnist",
        backend="local",
        spec={"package_uris": [PACKAGE]},
        inputs={"dataset": {"uri": lab.dataset(), "version": "2026-11-01"}},
    )
    lab.storage.write(job_dir.claim, record.to_bytes())
    code, out, _ = run("predict", "mnist", "--job", "job_1", "--count", "2", "--first", "9998")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["9998", "9999"]


def test_what_cannot_be_predicted_is_said(lab: Lab, run: Run) -> None:
    code, _, err = run("predict", "mnist")
    assert code == 1
    assert "mnist has no champion" in err
    quick(lab, "good")
    lab.storage.write(f"{lab.bucket}/mnist/mnist_good/model/saved_model.pb", b"something else")
    code, _, err = run("predict", "mnist")
    assert code == 1
    assert "the model of mnist_good is not whole" in err
    lab.job("writes", "evil")
    code, _, err = run("predict", "mnist", "--job", "evil", "--dataset", lab.dataset(), "--package", PACKAGE)
    assert code == 1
    assert "WriteFile" in err
    lab.job("good", "unknown")
    code, _, err = run("predict", "mnist", "--job", "unknown")
    assert code == 1
    assert "not known what unknown was trained on" in err


def test_the_gate_by_hand(lab: Lab, run: Run) -> None:
    job_dir = lab.job("good", "a")
    code, out, err = run("models", "validate", "mnist", "a", "--validation-level", "signature")
    assert (code, err) == (0, "")
    assert re.search(r"^ok +signature ", out, re.M)
    assert out.splitlines()[-2:] == ["verdict: first", "  There is no champion yet; all 5 checks passed."]
    kept = lab.storage.read(job_dir.report)
    less = ("models", "validate", "mnist", job_dir.uri, "--validation-level", "files", "--threshold", "size_bytes=9")
    code, _, err = run(*less)
    assert code == 1
    assert "answers questions that this validation does not ask: validation_level 'signature', now 'files'" in err
    assert "--replace-report" in err
    assert lab.storage.read(job_dir.report) == kept
    code, out, _ = run(*less, "--replace-report")
    assert code == 1
    assert "verdict: rejected" in out
    code, _, err = run("models", "validate", "mnist", "a", "--threshold", "accurcy=1")
    assert code == 1
    assert "unknown threshold: accurcy" in err


def test_how_a_model_is_called_is_kept_with_the_job(lab: Lab, run: Run) -> None:
    """The DAG knows it; whoever validates or predicts at a terminal need not."""
    expectation = {
        "inputs": {"sepal-length": "float32[-1,784]"},
        "outputs": {"output_0": "float32[-1,10]"},
        "key": None,
        "features": "sepal-length",
        "scores": "output_0",
    }
    job_dir = lab.job("keras", "a")
    record = JobRecord(
        key="k",
        job_id="a",
        model="mnist",
        backend="local",
        spec={"package_uris": [PACKAGE]},
        inputs={"dataset": {"uri": lab.dataset(), "version": "2026-11-01"}},
    )
    lab.storage.write(job_dir.claim, record.to_bytes())
    code, out, _ = run("models", "validate", "mnist", "a", "--validation-level", "signature")
    assert code == 1
    assert out.splitlines()[-1].startswith("The default serving signature was expected; --serving-signature says")
    given = (
        "--validation-level",
        "signature",
        "--no-require-comparison",
        "--serving-signature",
        json.dumps(expectation),
    )
    code, out, err = run("models", "validate", "mnist", "a", *given)
    assert (code, err) == (0, ""), out
    code, out, err = run("models", "validate", "mnist", "a")
    assert (code, err) == (0, ""), out
    assert "validation_level=signature" in out
    report = load_report(lab.storage, job_dir)
    assert report.serving_signature["features"] == "sepal-length"
    assert not report.require_comparison
    code, out, err = run("predict", "mnist", "--job", "a", "--count", "3")
    assert (code, err) == (0, ""), out
    assert [line.split()[2] for line in out.splitlines()[2:5]] == ["7", "2", "1"]
    code, _, err = run("models", "validate", "mnist", "a", "--serving-signature", "@/nowhere/at/all")
    assert code == 1
    assert "--serving-signature @/nowhere/at/all" in err


def test_champions_by_hand(lab: Lab, run: Run) -> None:
    assert "no model" in run("models", "list")[1]
    assert "no champion yet" in run("models", "show", "mnist")[1]
    quick(lab, "good", "a")
    quick(lab, "good", "b")
    code, out, _ = run("models", "list")
    assert code == 0
    assert re.search(r"^mnist +2 .* published .* 2026-11-01 +b by test$", out, re.M)
    code, out, err = run("models", "rollback", "mnist", "--reason", "b is slow", "--by", "anna")
    assert (code, err) == (0, "")
    assert "a is the champion of mnist again" in out
    code, out, _ = run("models", "show", "mnist")
    assert "champion of mnist: a" in out
    assert "rolled_back" in out
    assert "b is slow" in out
    code, out, _ = run("models", "publish", "mnist", "b")
    assert code == 1
    assert "superseded" in out
    code, _, err = run("models", "publish", "mnist", "b", "--force", "--by", "anna")
    assert code == 1
    assert "needs a name and a reason" in err
    code, out, _ = run("models", "publish", "mnist", "b", "--force", "--by", "anna", "--reason", "it was the disk")
    assert code == 0
    champion = current(lab.storage, lab.bucket, "mnist")
    assert champion is not None
    assert (champion.job_id, champion.by, champion.why) == ("b", "anna", "it was the disk")
    code, out, _ = run("models", "show", "mnist", "--json")
    assert '"action": "forced"' in out
    code, _, err = run("models", "publish", "mnist", "nobody")
    assert code == 1
    assert "validate the model first" in err
