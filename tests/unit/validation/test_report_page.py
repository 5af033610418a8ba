"""The report's page: nothing of others' words becomes markup, and its drawings are what they say."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser

from mlengine.core.verdict import Check, Decision, Thresholds, Verdict
from mlengine.validation.curves import Curves, parse_curves
from mlengine.validation.plots import ascii_art, lines, png
from mlengine.validation.report import Report
from mlengine.validation.report_page import render

EVIL = "<script>alert(1)</script>\"'&"
PIXELS = bytes(range(256)) * 3 + bytes(16)
REPORT = Report(
    model="mnist",
    job_id="mnist_1",
    job_dir="gs://bucket/mnist/mnist_1",
    model_uri="gs://bucket/mnist/mnist_1/model",
    verdict=Verdict(Decision.ACCEPTED, ("fine",), (Check("a", 1, "b", passed=True, message="c"),)),
    thresholds=Thresholds(),
    checks="all",
    created="2026-11-23T12:00:00+00:00",
    dataset={"name": "mnist", "version": "2026-11-01", "shape": [28, 28]},
    champion={"serial": 3, "job_id": "mnist_0", "accuracy": 0.98, "dataset_version": "2026-10-01"},
    figures={"accuracy": 0.981, "per_class": [0.97, 0.99, None], "confusion": [[9, 1], [0, 10]], "latency_ms": 2.0},
    baseline={"accuracy": 0.98, "per_class": [0.96, 0.98, 0.9], "latency_ms": 2.0, "challenger_latency_ms": 1.5},
    comparison={"rows": 20, "gained": 2, "lost": 1, "difference": 0.05, "low": -0.01, "high": 0.1, "p_value": 0.5},
    mistakes=({"row": 1, "label": 3, "predicted": 5, "score": 0.9, "pixels": base64.b64encode(PIXELS).decode()},),
)


class Reader(HTMLParser):
    """Collects tags and text; a page that does not nest is an error."""

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


def test_the_page_shows_what_the_report_says() -> None:
    page = Reader(render(REPORT, Curves({"test_accuracy": ((1, 0.5), (2, 0.9))})))
    text = " ".join(page.words)
    for words in (
        "Accepted",
        "with accuracy 0.9810",
        "Champion 3: mnist_0",
        "1.50 ms",
        "+5.00 percentage points",
        "3 → 5 (0.90)",
    ):
        assert words in text
    assert page.tags.count("img") == 1
    assert page.tags.count("svg") == 2
    assert "script" not in page.tags


def test_the_usage_and_the_cost_of_the_job() -> None:
    cloud = {"attempts": 2, "queued_seconds": 61.0, "seconds": 3723.4, "usd_per_hour": 1.5, "usd": 1.5514}
    text = " ".join(Reader(render(replace(REPORT, usage=cloud), Curves({}))).words)
    assert "job waiting for machines 61.0 s" in text
    assert "job running, 2 attempts in total 3,723.4 s" in text
    assert "job estimated cost, at list prices of 1.50 USD per hour 1.55 USD" in text
    here = {"attempts": 1, "queued_seconds": 0.5, "seconds": 10.0, "cores": 2, "core_seconds": 20.0}
    text = " ".join(Reader(render(replace(REPORT, usage=here), Curves({}))).words)
    assert "job CPU time on 2 cores, upper limit 20.0 core-seconds" in text
    assert "USD" not in text
    Reader(render(replace(REPORT, usage={"seconds": EVIL, "usd": EVIL, "attempts": [EVIL]}), Curves({})))


def test_everything_from_elsewhere_is_escaped() -> None:
    evil = replace(
        REPORT,
        model=EVIL,
        job_id=EVIL,
        model_uri=EVIL,
        created=EVIL,
        verdict=Verdict(Decision.REJECTED, (EVIL,), (Check(EVIL, EVIL, EVIL, passed=False, message=EVIL),)),
        dataset={"name": EVIL, "version": EVIL, "uri": EVIL, "digest": EVIL, "shape": [28, 28]},
        champion={"serial": EVIL, "job_id": EVIL, "dataset_version": EVIL},
        lineage={EVIL: EVIL, "args": [EVIL], "events": [{"time": 1, "event": EVIL, EVIL: EVIL}]},
        environment={EVIL: EVIL},
        digest=EVIL,
        mistakes=(
            {"row": EVIL, "label": EVIL, "predicted": EVIL, "score": 0.5, "pixels": REPORT.mistakes[0]["pixels"]},
        ),
    )
    page = Reader(render(evil, Curves({EVIL: ((1.0, 1.0), (2.0, 2.0)), "test_loss": ((1.0, 1.0),)})))
    assert "script" not in page.tags
    assert sum(EVIL in words for words in page.words) > 10


def test_a_report_of_files_only_has_a_page_too() -> None:
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
    text = " ".join(Reader(render(bare, Curves({}))).words)
    assert "Accepted as the first" in text
    assert "Confusion" not in text


def test_the_png_holds_the_pixels() -> None:
    data = png(PIXELS, width=28)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (28, 28)
    length = struct.unpack(">I", data[33:37])[0]
    assert data[37:41] == b"IDAT"
    rows = zlib.decompress(data[41 : 41 + length])
    assert b"".join(rows[at * 29 + 1 : at * 29 + 29] for at in range(28)) == PIXELS


def test_a_plot_stays_inside_its_frame() -> None:
    svg = lines("loss", {"a": ((0.0, 5.0), (100.0, 1.0)), "b": ((50.0, 3.0),)})
    points = [pair.split(",") for pair in svg.split('points="')[1].split('"')[0].split()]
    assert all(52 <= float(x) <= 468 and 26 <= float(y) <= 228 for x, y in points)
    assert lines("flat", {"a": ((1.0, 2.0),)})


def test_ascii_art_draws_dark_and_light() -> None:
    assert ascii_art(bytes([0, 255, 0, 255]) + bytes([0, 255, 0, 255]), width=4) == [" @ @"]


def test_metrics_of_any_kind_give_curves_or_nothing() -> None:
    text = "\n".join(
        [
            '{"step": 1, "train_loss": 2.0, "test_accuracy": 0.5}',
            "not json",
            '{"step": 2, "train_loss": NaN, "test_accuracy": "high"}',
            '{"step": true, "train_loss": 1.0}',
            "[1, 2]",
            '{"step": 3, "train_loss": 1.0}',
        ]
    )
    assert parse_curves(text).series == {"train_loss": ((1.0, 2.0), (3.0, 1.0)), "test_accuracy": ((1.0, 0.5),)}
    assert not parse_curves("")
    many = "\n".join(f'{{"step": {step}, "train_loss": 1}}' for step in range(9999))
    thinned = parse_curves(many).series["train_loss"]
    assert len(thinned) <= 2001
    assert thinned[-1][0] == 9998
