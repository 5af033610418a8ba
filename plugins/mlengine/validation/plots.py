"""Small drawings for the report's page: line plots and bars as SVG, images as PNG. Standard library only."""

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
    """A plot of values over steps."""
    everything = [point for points in series.values() for point in points]
    xs, ys = _round_span([x for x, _ in everything]), _round_span([y for _, y in everything])
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


def bars(mine: Sequence[float | None], theirs: Sequence[float | None], floor: float | None) -> str:
    """Bars of the accuracy per class, with the champion's if there is one. The axis starts below the lowest value."""
    shown = [value for value in (*mine, *theirs, floor) if value is not None]
    ys = (max(0.0, math.floor((min(shown, default=0.0) - 0.01) * 25) / 25), 1.0)
    width = 960
    step = (width - _LEFT - _RIGHT) / max(len(mine), 1)
    body = [_grid(ys, width)]
    for at, value in enumerate(mine):
        left = _LEFT + at * step
        other = theirs[at] if at < len(theirs) else None
        body.append(_bar(left + step * 0.18, step * 0.3, value, ys, _COLOURS[0]))
        body.append(_bar(left + step * 0.5, step * 0.3, other, ys, _COLOURS[1]))
        body.append(f'<text x="{left + step / 2:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{at}</text>')
    if floor is not None:
        y = _y(floor, ys)
        body.append(f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--bad)"/>')
    names = ("this model", "the champion") if any(value is not None for value in theirs) else ("this model",)
    body += [_key(at, name, _LEFT + at * 110) for at, name in enumerate(names)]
    if floor is not None:
        body.append(f'<text x="{_LEFT + len(names) * 110}" y="14">line: the floor, {floor:g}</text>')
    return _svg(width, _HEIGHT, "accuracy per class", body)


def png(pixels: bytes, *, width: int) -> bytes:
    """Bytes of grey, row by row, as a PNG; 0 is black."""
    height = len(pixels) // width
    rows = b"".join(b"\0" + pixels[at * width : (at + 1) * width] for at in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def ascii_art(pixels: bytes, *, width: int, shades: str = " .:-=+*#%@") -> list[str]:
    """A grey image as ASCII art. A character is two pixels high, so the image keeps its shape in a terminal."""
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


def _round_span(values: Sequence[float]) -> tuple[float, float]:
    """A span around all values whose quarters are round numbers."""
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
