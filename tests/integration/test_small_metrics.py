"""Values of metrics that four decimals cannot show, such as the squared error of a target in small units."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.champions.history import current
from mlengine.cli import main
from mlengine.core.layout import JobDir
from mlengine.promotion.outcome import Force
from mlengine.promotion.publish import publish
from mlengine.promotion.registries import description
from mlengine.validation.export import resolve
from mlengine.validation.report import load_report, store
from tests.support.sample_jobs import NOW, SampleJobs

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("value", "text"), [(3.2e-6, "3.2e-06"), (34_058.1234, "34,058"), (0.98123, "0.9812")])
def test_a_metric_is_shown_with_four_digits(
    sample_jobs: SampleJobs, capsys: pytest.CaptureFixture[str], tmp_path: Path, value: float, text: str
) -> None:
    metric = "mean_squared_error"
    storage, bucket = sample_jobs.storage, sample_jobs.bucket
    job_dir: JobDir = sample_jobs.job("mnist_1", metric=metric, metric_value=value, began=NOW)
    storage.write(job_dir.model + "saved_model.pb", b"model")
    report = load_report(storage, job_dir)
    report = type(report).from_json({**report.to_json(), "fingerprint": resolve(storage, job_dir.model).fingerprint})
    store(storage, report, None, None)
    published = publish(storage, bucket, report, by="a_dag", force=Force("a_dag", "a test"))
    assert f"with {metric} {text}, serial 1" in published.reason
    champion = current(storage, bucket, "mnist")
    assert champion is not None
    assert f", {metric} {text}" in description(champion)
    for command in ("jobs list", "models list", "models show mnist"):
        options = ["--state-dir", str(tmp_path)] if command == "jobs list" else []
        assert main([*command.split(), "--bucket", bucket, *options]) == 0
        assert text in capsys.readouterr().out, command
