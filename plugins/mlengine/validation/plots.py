"""Draws small plots for the report as SVG without a plotting library: lines, histograms, and counts on a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mlengine.core.metrics import format_value
from mlengine.core.plural import number_of

_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 30, 50
_COLOURS = ("var(--a)", "var(--b)", "var(--good)", "var(--bad)")
_EQUAL = 1e-6  # values with a smaller relative difference are drawn as equal
_SMALLEST = 1e-200  # smaller values are drawn as equal
_KEY_ROW = 18  # height of a row of the key in pixels
_CHARACTER, _MARK = 6.5, 26  # widths in pixels: of a character, and of the rest of an entry of the key

Points = Sequence[tuple[float, float]]
Span = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """The title, the axes and their labels.

    :param xs: the values at the left and the right end.
    :param ys: the values at the lower and the upper end.
    """

    title: str
    xs: Span
    ys: Span
    x_label: str = ""
    y_label: str = ""
    width: int = 400
    height: int = 270

    def x(self, value: float) -> float:
        return _LEFT + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        bottom = self.height - _BOTTOM
        return bottom - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (bottom - _TOP)

    def line(self, start: tuple[float, float], end: tuple[float, float], style: str) -> str:
        (x1, y1), (x2, y2) = start, end
        return (
            f'<line x1="{self.x(x1):.1f}" y1="{self.y(y1):.1f}" x2="{self.x(x2):.1f}" y2="{self.y(y2):.1f}" {style}/>'
        )

    def svg(self, body: Sequence[str], above: int = 0) -> str:
        """The plot. ``body`` is drawn over the grid, and has ``above`` pixels above the title."""
        parts = [f'<text class="title" x="8" y="15">{escape(self.title)}</text>', *self._axes(), *body]
        return (
            f'<svg viewBox="0 {-above} {self.width} {self.height + above}" '
            f'width="{self.width}" height="{self.height + above}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(parts)}</svg>'
        )

    def _axes(self) -> list[str]:
        parts, bottom = [], self.height - _BOTTOM + 17
        for y in _ticks(self.ys):
            parts.append(self.line((self.xs[0], y), (self.xs[1], y), 'stroke="var(--line)"'))
            text = _written(y, self.ys)
            parts.append(f'<text x="{_LEFT - 6}" y="{self.y(y) + 4:.1f}" text-anchor="end">{text}</text>')
        for x in _ticks(self.xs):
            # A label that is centred at the right end would be cut off.
            anchor = "end" if self.x(x) > self.width - _RIGHT - 12 else "middle"
            text = _written(x, self.xs)
            parts.append(f'<text x="{self.x(x):.1f}" y="{bottom}" text-anchor="{anchor}">{text}</text>')
        middle = (_TOP + self.height - _BOTTOM) / 2
        parts.append(
            f'<text x="{(_LEFT + self.width - _RIGHT) / 2:.0f}" y="{self.height - 10}" text-anchor="middle">'
            f"{escape(self.x_label)}</text>"
        )
        parts.append(
            f'<text x="0" y="0" transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y_label)}</text>"
        )
        return parts


SQUARE = {"width": 328, "height": 310}


def lines(
    frame: Frame,
    series: Mapping[str, Points],
    *,
    dots: Mapping[tuple[float, float], str] | None = None,
    under: str = "",
) -> str:
    """A plot with a line for each series, and a key if there are several.

    :param dots: points that are marked, each with a text that is shown when the pointer is over it.
    :param under: SVG that is drawn below the lines.
    """
    body = [under]
    places, above = _key(frame, [_plain(name) for name in series])
    for at, (name, points) in enumerate(series.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) == 1:
            body.append(_dot(frame, points[0], colour))
        if len(series) > 1:
            left, bottom = places[at]
            mark = f'<rect x="{left:.0f}" y="{bottom - 6}" width="12" height="4" fill="{colour}"/>'
            body.append(f'{mark}<text x="{left + 16:.0f}" y="{bottom}">{escape(_plain(name))}</text>')
    body += [_dot(frame, point, _COLOURS[0], text) for point, text in (dots or {}).items()]
    return frame.svg(body, above)


def _key(frame: Frame, names: Sequence[str]) -> tuple[list[tuple[float, int]], int]:
    """The places of the names of several series: next to the title or, if that is too narrow, in rows above it.

    :returns: the places, and the height of the rows above the title.
    """
    widths = [_CHARACTER * len(name) + _MARK for name in names]
    left = frame.width - _RIGHT - sum(widths)
    if len(names) <= 1 or left >= 8 + 7 * len(frame.title):
        return [(left + sum(widths[:at]), 15) for at in range(len(names))], 0
    row, left, found = 0, 8.0, []
    for width in widths:
        if left > 8 and left + width > frame.width:
            row, left = row + 1, 8.0
        found.append((left, row))
        left += width
    above = _KEY_ROW * (row + 1)
    return [(left, 15 - above + _KEY_ROW * row) for left, row in found], above


def histogram(title: str, edges: Sequence[float], rows: Sequence[int], x_label: str) -> str:
    """A plot with bars between ``edges``, and a line at 0 if 0 is between them."""
    frame = Frame(title, (edges[0], edges[-1]), round_span([0.0, max(rows)]), x_label, "rows", width=440)
    body = []
    for at, count in enumerate(rows):
        x, top = frame.x(edges[at]), frame.y(count)
        body.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{max(frame.x(edges[at + 1]) - x - 1, 0.5):.1f}" '
            f'height="{frame.y(0) - top:.1f}" fill="var(--a)">'
            f"<title>{format_value(edges[at])} to {format_value(edges[at + 1])}: {number_of(count, 'row')}</title>"
            "</rect>"
        )
    if edges[0] < 0 < edges[-1]:
        body.append(frame.line((0, 0), (0, frame.ys[1]), 'stroke="var(--ink)" stroke-dasharray="4 3"'))
    return frame.svg(body)


def grid(title: str, span: Span, rows: Sequence[Sequence[int]], x_label: str, y_label: str) -> str:
    """A plot of the counts of rows on a square grid, with its diagonal. The first index of ``rows`` is that of x."""
    frame = Frame(title, span, span, x_label, y_label, width=440, height=400)
    most = max((count for row in rows for count in row), default=0) or 1
    step = (span[1] - span[0]) / max(len(rows), 1)
    body = []
    for across, row in enumerate(rows):
        for up, count in enumerate(row):
            if not count:
                continue
            x, y = span[0] + across * step, span[0] + up * step
            width, height = frame.x(x + step) - frame.x(x), frame.y(y) - frame.y(y + step)
            body.append(
                f'<rect x="{frame.x(x):.1f}" y="{frame.y(y + step):.1f}" width="{width:.1f}" height="{height:.1f}" '
                f'fill="var(--a)" fill-opacity="{0.1 + 0.9 * math.sqrt(count / most):.2f}">'
                f"<title>{escape(x_label)} {format_value(x + step / 2)}, "
                f"{escape(y_label)} {format_value(y + step / 2)}: {number_of(count, 'row')}</title></rect>"
            )
    body.append(diagonal(frame))
    return frame.svg(body)


def diagonal(frame: Frame) -> str:
    """A dashed line from the lower left to the upper right corner."""
    return frame.line(
        (frame.xs[0], frame.ys[0]), (frame.xs[1], frame.ys[1]), 'stroke="var(--soft)" stroke-dasharray="4 3"'
    )


def round_span(values: Sequence[float]) -> Span:
    """A span around all values that begins and ends with a tick.

    Values that differ only by rounding errors are drawn as equal.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low <= _EQUAL * max(abs(low), abs(high), _SMALLEST):
        margin = abs(low) * 0.01 or 0.5
        low, high = low - margin, high + margin
    step = _step(low, high)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _ticks(span: Span) -> list[float]:
    """The round numbers from one end of the span to the other."""
    step = _step(*span)
    first, last = math.ceil(span[0] / step - 1e-9), math.floor(span[1] / step + 1e-9)
    return [at * step for at in range(first, last + 1)]


def _step(low: float, high: float) -> float:
    """A round number that divides the span into at most five parts."""
    size = 10.0 ** math.floor(math.log10((high - low) / 5))
    return next(size * factor for factor in (1, 2, 2.5, 5, 10, 20) if size * factor * 5 >= (high - low) * (1 - 1e-9))


def _dot(frame: Frame, point: tuple[float, float], colour: str, text: str = "") -> str:
    return (
        f'<circle cx="{frame.x(point[0]):.1f}" cy="{frame.y(point[1]):.1f}" r="3.5" fill="{colour}">'
        f"<title>{escape(text)}</title></circle>"
    )


def _written(value: float, span: Span) -> str:
    """A tick as a short number: ``0.25``, ``12.5k``, ``3M``."""
    largest = max(abs(span[0]), abs(span[1]))
    digits = max(4, math.floor(math.log10(largest)) - math.floor(math.log10(_step(*span))) + 2)
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= 10 * unit and value:
            return f"{value / unit:.{digits}g}{sign}"
    return f"{value:.{digits}g}"


def _plain(name: str) -> str:
    return name.replace("_", " ")
