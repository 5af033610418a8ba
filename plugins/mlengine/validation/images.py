"""Converts small gray images to PNG for the report, and to ASCII art for a terminal, with the standard library only."""

from __future__ import annotations

import struct
import zlib


def png(pixels: bytes, *, width: int) -> bytes:
    """A gray image as a PNG. ``pixels`` has one byte for each pixel, row by row; 0 is black."""
    height = len(pixels) // width
    rows = b"".join(b"\0" + pixels[at * width : (at + 1) * width] for at in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def ascii_art(pixels: bytes, *, width: int, shades: str = " .:-=+*#%@") -> list[str]:
    """A gray image as ASCII art. A character is two pixels high, so the image keeps its proportions in a terminal."""
    rows = [pixels[at : at + width] for at in range(0, len(pixels), width)]
    found = []
    for upper, lower in zip(rows[::2], [*rows[1::2], bytes(width)], strict=False):
        level = [(a + b) // 2 * len(shades) // 256 for a, b in zip(upper, lower, strict=True)]
        found.append("".join(shades[at] for at in level).rstrip())
    return found
