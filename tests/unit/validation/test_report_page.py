"""The report's page: its content depends on the task, and no external value becomes markup."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, Decision, Verdict
from mlengine.validation.curves import Curves
from mlengine.validation.report import Report
from mlengine.validation.report_page import render
from tests.support import sample_reports
from tests.support.sample_reports import SAMPLES

EVIL = "<script>alert(1)</script>\"'&"
NO_CURVES = Curves({})
REPORT = cache(sample_reports.opaque)()


class Reader(HTMLParser):
    """A parser that collects tags and text. Incorrectly nested tags are an error."""

    void = frozenset({"meta", "img", "br", "rect", "line", "circle", "polyline"})

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page.decode())
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in {"src", "href"} or str(value).startswith("data:image/png;base64,")
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.void:
            raise AssertionError(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def text_of(report: Report, curves: Curves = NO_CURVES) -> str:
    """The page's text, with single spaces."""
    return " ".join(" ".join(Reader(render(report, curves)).words).split())


@pytest.mark.parametrize("name", SAMPLES)
def test_each_task_has_a_valid_page_without_scripts(name: str) -> None:
    page = Reader(render(SAMPLES[name](), sample_reports.CURVES))
    assert "script" not in page.tags
    text = " ".join(page.words)
    assert "digit" not in text
    if not name.startswith("multiclass") and not name.startswith("binary"):
        assert "accuracy" not in text


def test_the_page_of_a_binary_model() -> None:
    text = text_of(sample_reports.binary())
    for words in (
        "Rejected with roc_auc 0.7985",
        "Task binary, target arr_late. The model (keras) was run on 2,000 held-out rows.",
        "challenger champion 3 better by interval roc_auc 0.7985 0.7765 +0.02199 +0.01",
        "log_loss lower is better 0.4314 0.4666 +0.03522",
        "ROC curve",
        "Precision/recall",
        "Calibration",
        "The positive class is “late”.",
        "threshold precision recall F1 predicted positive 0.1 0.346 0.850 0.492 50.7 %",
        "row actual predicted confidence carrier distance 1656 late on time 0.998902 AA 408",
    ):
        assert words in text, words
    assert "undefined: all 54 rows are of one class" in text


def test_failing_slices_are_first_then_those_with_the_most_errors() -> None:
    found = sample_reports.regression()
    text = text_of(found)
    part = text[text.index("slice rows challenger champion better by") :]
    gains = [float(word.replace(",", "")) for word in part.split()[: 8 * 20] if word[0] in "+-" and len(word) > 1]
    rows = [int(word) for at, word in enumerate(part.split("district=district ")[1:21]) for word in [word.split()[1]]]
    harm = [-gain * count for gain, count in zip(gains, rows, strict=False)]
    assert harm[:3] == sorted(harm[:3], reverse=True), "three slices are above the threshold"
    assert harm[3:] == sorted(harm[3:], reverse=True)
    assert "Threshold: ≤ 60,000, for slices with at least 15 rows." in text
    assert "19 more are in report.json" in text


def test_the_page_of_a_model_without_a_champion_has_no_comparison() -> None:
    text = text_of(sample_reports.binary(champion=False))
    assert "There was no champion to compare with." in text
    assert "better by" not in text.replace("value all rows better by", "")
    assert "slice rows value all rows better by" in text


def test_the_page_of_a_multiclass_model() -> None:
    page = Reader(render(sample_reports.multiclass(), NO_CURVES))
    text = " ".join(" ".join(page.words).split())
    assert page.tags.count("img") == 24
    assert "Confusion matrix Rows: the actual class. Columns: the predicted class. 0 1 2 3 4 5 6 7 8 9 recall" in text
    assert "8 → 3 (0.77)" in text


def test_the_confusion_matrix_shows_at_most_thirty_classes() -> None:
    text = text_of(sample_reports.multiclass([f"sort_{at}" for at in range(45)], images=False))
    matrix = text[text.index("Columns: the predicted class.") : text.index("Largest errors")]
    assert sum(f"sort_{at} " in matrix for at in range(45)) == 30
    assert "others recall" in matrix
    assert "Classes with fewer rows are added up as “others”." in matrix


def test_the_page_of_a_regression() -> None:
    page = Reader(render(sample_reports.regression(), NO_CURVES))
    text = " ".join(" ".join(page.words).split())
    for words in (
        "with mean_absolute_error 34,058",
        "The model (prices.serve:load) was run",
        "Residuals",
        "Predicted against actual",
        "row actual predicted error district area description 1 344,300 2,150,5",
    ):
        assert words in text, words
    assert page.tags.count("svg") == 2
    assert "e+" not in text


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (sample_reports.opaque(), "Only the files of the model and the extra checks were checked."),
        (replace(sample_reports.opaque(), checks="signature"), "Only the files, the signature and the extra checks"),
        (sample_reports.without_task(), "The dataset has no task, so its predictions have no metrics."),
        (replace(sample_reports.without_task(), task="binary"), "has no metrics: it was not run"),
        (sample_reports.opaque(), "The quality of champion 3 ( words_1 ) was not compared."),
    ],
)
def test_the_page_without_metrics_lists_the_checks(report: Report, words: str) -> None:
    text = text_of(report)
    assert words in text
    assert "Confusion" not in text


def test_an_undefined_metric_has_a_reason() -> None:
    report = sample_reports.binary()
    why = "all rows are of one class"
    changed = replace(
        report,
        metrics={**report.metrics, "roc_auc": None},
        undefined={"roc_auc": why},
        comparison={"roc_auc": {"gain": None, "low": None, "high": None, "undefined": "too few rows"}},
    )
    text = text_of(changed)
    assert f"roc_auc undefined: {why} 0.7765 - cannot be compared: too few rows" in text
    assert "Rejected with" not in text


def test_metrics_written_by_the_trainer_are_plotted() -> None:
    page = Reader(render(REPORT, sample_reports.CURVES))
    assert page.tags.count("svg") == 2
    assert {"loss", "auc", "train loss", "val loss", "step"} <= set(page.words)


def test_the_page_shows_usage_and_cost_of_the_job() -> None:
    cloud = {"attempts": 2, "queued_seconds": 61.0, "seconds": 3723.4, "usd_per_hour": 1.5, "usd": 1.5514}
    text = " ".join(Reader(render(replace(REPORT, usage=cloud), Curves({}))).words)
    assert "61.0 s job waited for machines" in text
    assert "3,723.4 s job ran, 2 attempts together" in text
    assert "1.55 USD job cost of that time, by list prices of 1.50 USD an hour" in text
    here = {"attempts": 1, "queued_seconds": 0.5, "seconds": 10.0, "cores": 2, "core_seconds": 20.0}
    text = " ".join(Reader(render(replace(REPORT, usage=here), Curves({}))).words)
    assert "20.0 core seconds job of this machine's 2 cores, at most" in text
    assert "USD" not in text
    Reader(render(replace(REPORT, usage={"seconds": EVIL, "usd": EVIL, "attempts": [EVIL]}), Curves({})))


def test_external_text_is_escaped() -> None:
    binary = sample_reports.binary()
    evil = replace(
        binary,
        model=EVIL,
        job_id=EVIL,
        model_uri=EVIL,
        created=EVIL,
        verdict=Verdict(Decision.REJECTED, (EVIL,), (Check(EVIL, EVIL, EVIL, passed=False, message=EVIL),)),
        dataset={"name": EVIL, "version": EVIL, "uri": EVIL, "digest": EVIL, "target": EVIL, "classes": ["a", EVIL]},
        champion={"serial": EVIL, "job_id": EVIL, "dataset_version": EVIL},
        lineage={EVIL: EVIL, "args": [EVIL], "events": [{"time": 1, "event": EVIL, EVIL: EVIL}]},
        environment={EVIL: EVIL},
        digest=EVIL,
        scorer=EVIL,
        metrics={"roc_auc": None},
        undefined={"roc_auc": EVIL},
        slices={EVIL: [{"name": EVIL, "rows": 1, "value": {"number": None, "undefined": EVIL}, "champion": None}]},
        worst_rows=({"row": EVIL, "target": EVIL, "prediction": EVIL, "error": 0.5, "columns": {EVIL: EVIL}},),
    )
    page = Reader(render(evil, Curves({EVIL: ((1.0, 1.0), (2.0, 2.0)), "test_loss": ((1.0, 1.0),)})))
    assert "script" not in page.tags
    assert sum(EVIL in words for words in page.words) > 20
    matrix = {"classes": [0, 1], "others": False, "rows": [[1, 0], [0, 1]]}
    several = replace(evil, task="multiclass", curves={"confusion": matrix}, metrics={})
    assert "script" not in Reader(render(several, NO_CURVES)).tags


def test_a_report_about_files_only_has_a_page() -> None:
    bare = Report(
        model="m",
        job_id="j",
        job_dir="gs://bucket/m/j",
        model_uri="gs://bucket/m/j/model",
        verdict=Verdict(Decision.FIRST, ("There is no champion yet.",)),
        thresholds=Thresholds(),
        checks="files",
        created="now",
    )
    assert "Accepted as the first" in text_of(bare)
