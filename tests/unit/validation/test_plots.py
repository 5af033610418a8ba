"""The plots of the report: their content, which must stay inside the frame."""

from __future__ import annotations

import re

import pytest

from mlengine.validation.plots import Frame, grid, histogram, lines, round_span

FRAME = Frame("loss", (0.0, 100.0), (0.0, 5.0), "step", "value")


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_a_line_stays_inside_its_frame() -> None:
    svg = lines(FRAME, {"train_loss": ((0.0, 5.0), (100.0, 1.0)), "test_loss": ((50.0, 3.0),)})
    points = [pair.split(",") for pair in svg.split('points="')[1].split('"')[0].split()]
    assert points == [["60.0", "30.0"], ["386.0", "182.0"]]
    assert "<circle" in svg, "a line of one point would be invisible"
    assert {"loss", "step", "value", "train loss", "test loss"} <= set(texts(svg))


def test_one_line_has_no_legend() -> None:
    assert "train loss" not in texts(lines(FRAME, {"train_loss": ((0.0, 5.0), (100.0, 1.0))}))


def test_bars_of_a_histogram_have_the_height_of_their_rows() -> None:
    svg = histogram("Residuals", [-2.0, -1.0, 0.0, 1.0], [1, 4, 2], "predicted minus actual")
    heights = [float(height) for height in re.findall(r'height="([0-9.]+)" fill="var', svg)]
    assert heights == pytest.approx([heights[1] / 4, heights[1], heights[1] / 2], abs=0.1)
    assert "-1 to 0: 4 rows" in svg
    assert "stroke-dasharray" in svg, "the line at 0 must be drawn"
    assert "stroke-dasharray" not in histogram("Residuals", [1.0, 2.0, 3.0], [1, 4], "x")


def test_a_grid_draws_the_cells_with_rows() -> None:
    svg = grid("Predicted against actual", (0.0, 100.0), [[4, 0], [1, 0]], "actual", "predicted")
    assert svg.count("<rect") == 2
    assert "actual 75, predicted 25: 1 row<" in svg
    assert 'fill-opacity="1.00"' in svg


@pytest.mark.parametrize(
    ("values", "span"),
    [
        ([0.0, 1.0], (0.0, 1.0)),
        ([0.13, 0.96], (0.0, 1.0)),
        ([34_058.0, 37_806.0], (34_000.0, 38_000.0)),
        ([5.0], (4.94, 5.06)),
        ([0.0], (-0.6, 0.6)),
        ([], (0.0, 1.0)),
    ],
)
def test_an_axis_begins_and_ends_with_a_tick(values: list[float], span: tuple[float, float]) -> None:
    assert round_span(values) == pytest.approx(span)


def test_ticks_of_large_numbers_are_short() -> None:
    shown = texts(Frame("", (0.0, 1_200_000.0), (-163_800.0, 178_400.0)).svg([]))
    assert {"500k", "1000k", "-100k", "0", "100k"} <= set(shown)
    assert all(len(text) <= 7 for text in shown)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 0.9999999999999999],
        [123456.78, 123456.78000000001],
        [0.0, 5e-324],
        [-1e300, 1e300],
        [0.98761, 0.98769],
        [2_000_001.0, 2_000_009.0],
    ],
)
def test_values_of_any_size_and_distance_can_be_drawn(values: list[float]) -> None:
    frame = Frame("auc", (0.0, 1.0), round_span(values))
    svg = lines(frame, {"auc": tuple(enumerate(values))})
    labels = re.findall(r'<text x="54"[^>]*>([^<]+)<', svg)
    assert len(labels) == len(set(labels)) > 2
    assert not re.search(r"\b(nan|inf)\b", svg)


@pytest.mark.parametrize("words", ["", "_mean_absolute_error_of_the_delay"])
def test_the_key_overlaps_neither_the_title_nor_the_edge(words: str) -> None:
    names = [f"{prefix}_loss{words}" for prefix in ("train", "val", "test")]
    svg = lines(Frame(f"loss{words}", (0.0, 1.0), (0.0, 5.0)), dict.fromkeys(names, ((0.0, 5.0), (1.0, 1.0))))
    _, top, width, height = map(float, svg.split('viewBox="')[1].split('"')[0].split())
    assert (top + height, top < 0) == (270.0, bool(words))
    title_end = 8 + 7 * len(f"loss{words}")
    marks = [(float(x), float(y)) for x, y in re.findall(r'<rect x="(\d+)" y="(-?\d+)" width="12"', svg)]
    assert len(marks) == 3
    for (x, y), name in zip(marks, names, strict=True):
        assert top < y
        assert x + 16 + 6.5 * len(name) <= width
        assert y < 0 or x >= title_end


def test_titles_are_escaped() -> None:
    assert "<b>" not in lines(Frame("<b>", (0, 1), (0, 1), "<b>", "<b>"), {"<b>": ((0, 0),), "a": ((1, 1),)})
