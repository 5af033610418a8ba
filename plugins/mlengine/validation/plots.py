"""Plots for the report: line plots and bar charts as SVG, images as PNG. Uses the standard library only."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 32
_COLOURS = ("var(--a)", "var(--b)")

Points = Sequence[tuple[float, float]]


def lines(title: str, series: Mapping[str, Points]) -> str:
    """A line plot of values over steps, as SVG.

    :param series: the points ``(step, value)`` of each line, by its name.
    """
    all_points = [point for points in series.values() for point in points]
    xs, ys = _nice_range([x for x, _ in all_points]), _nice_range([y for _, y in all_points])
    body = [_axes(title, xs, ys)]
    for at, (name, points) in enumerate(series.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        path = " ".join(f"{_x(x, xs):.1f},{_y(y, ys):.1f}" for x, y in points)
        if len(points) == 1:
            body.append(
                f'<circle cx="{_x(points[0][0], xs):.1f}" cy="{_y(points[0][1], ys):.1f}" r="3" fill="{colour}"/>'
            )
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(_key(at, name.replace("_", " "), _LEFT + 70 + at * 110))
    return _svg(_WIDTH, _HEIGHT, title, body)


def bars(model: Sequence[float | None], champion: Sequence[float | None], threshold: float | None) -> str:
    """A bar chart of the accuracy of each class, as SVG. The axis begins just below the lowest value.

    :param champion: the champion's accuracies; empty without a champion.
    :param threshold: drawn as a line.
    """
    shown = [value for value in (*model, *champion, threshold) if value is not None]
    ys = (max(0.0, math.floor((min(shown, default=0.0) - 0.01) * 25) / 25), 1.0)
    width = 960
    step = (width - _LEFT - _RIGHT) / max(len(model), 1)
    body = [_grid(ys, width)]
    for at, value in enumerate(model):
        left = _LEFT + at * step
        other = champion[at] if at < len(champion) else None
        body.append(_bar(left + step * 0.18, step * 0.3, value, ys, _COLOURS[0]))
        body.append(_bar(left + step * 0.5, step * 0.3, other, ys, _COLOURS[1]))
        body.append(f'<text x="{left + step / 2:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{at}</text>')
    if threshold is not None:
        y = _y(threshold, ys)
        body.append(f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--bad)"/>')
    names = ("this model", "champion") if any(value is not None for value in champion) else ("this model",)
    body += [_key(at, name, _LEFT + at * 110) for at, name in enumerate(names)]
    if threshold is not None:
        body.append(f'<text x="{_LEFT + len(names) * 110}" y="14">red line: threshold {threshold:g}</text>')
    return _svg(width, _HEIGHT, "Accuracy per class", body)


def png(pixels: bytes, *, width: int) -> bytes:
    """A greyscale image as PNG.

    :param pixels: one byte per pixel, row by row; 0 is black.
    """
    height = len(pixels) // width
    rows = b"".join(b"\0" + pixels[at * width : (at + 1) * width] for at in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def ascii_art(pixels: bytes, *, width: int, shades: str = " .:-=+*#%@") -> list[str]:
    """A greyscale image as lines of characters. A character shows two rows, to keep the proportions in a terminal.

    :param pixels: one byte per pixel, row by row.
    :param shades: characters from dark to light.
    """
    rows = [pixels[at : at + width] for at in range(0, len(pixels), width)]
    found = []
    for upper, lower in zip(rows[::2], [*rows[1::2], bytes(width)], strict=False):
        level = [(a + b) // 2 * len(shades) // 256 for a, b in zip(upper, lower, strict=True)]
        found.append("".join(shades[at] for at in level).rstrip())
    return found


def _svg(width: int, height: int, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(body)}</svg>'
    )


def _key(at: int, name: str, left: int) -> str:
    colour = _COLOURS[at % len(_COLOURS)]
    mark = f'<rect x="{left}" y="8" width="12" height="4" fill="{colour}"/>'
    return f'{mark}<text x="{left + 17}" y="14">{escape(name)}</text>'


def _axes(title: str, xs: tuple[float, float], ys: tuple[float, float]) -> str:
    parts = [_grid(ys, _WIDTH), f'<text x="{_LEFT}" y="14">{escape(title)}</text>']
    for at in range(5):
        x = xs[0] + (xs[1] - xs[0]) * at / 4
        anchor = "end" if at == 4 else "middle"
        parts.append(f'<text x="{_x(x, xs):.1f}" y="{_HEIGHT - 12}" text-anchor="{anchor}">{x:.0f}</text>')
    return "".join(parts)


def _grid(ys: tuple[float, float], width: int) -> str:
    parts = []
    for at in range(5):
        value = ys[0] + (ys[1] - ys[0]) * at / 4
        y = _y(value, ys)
        parts.append(
            f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    return "".join(parts)


def _bar(left: float, width: float, value: float | None, ys: tuple[float, float], colour: str) -> str:
    if value is None:
        return ""
    top, bottom = _y(max(value, ys[0]), ys), _y(ys[0], ys)
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}" fill="{colour}">'
        f"<title>{value:.4f}</title></rect>"
    )


def _nice_range(values: Sequence[float]) -> tuple[float, float]:
    """A range around all values whose four parts begin at round numbers."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    size = 10.0 ** math.floor(math.log10((high - low) / 4))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = size * factor
        start = math.floor(low / step) * step
        if start + 4 * step >= high:
            return start, start + 4 * step
    return low, high


def _x(value: float, span: tuple[float, float]) -> float:
    return _LEFT + (value - span[0]) / (span[1] - span[0]) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, span: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (value - span[0]) / (span[1] - span[0]) * (_HEIGHT - _TOP - _BOTTOM)
