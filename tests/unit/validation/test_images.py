"""Images in the report and in a terminal."""

from __future__ import annotations

import struct
import zlib

from mlengine.validation.images import ascii_art, png

PIXELS = bytes(range(256)) * 3 + bytes(16)


def test_the_png_contains_the_pixels() -> None:
    data = png(PIXELS, width=28)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (28, 28)
    length = struct.unpack(">I", data[33:37])[0]
    assert data[37:41] == b"IDAT"
    rows = zlib.decompress(data[41 : 41 + length])
    assert b"".join(rows[at * 29 + 1 : at * 29 + 29] for at in range(28)) == PIXELS


def test_ascii_art_has_dark_and_light_characters() -> None:
    assert ascii_art(bytes([0, 255, 0, 255]) + bytes([0, 255, 0, 255]), width=4) == [" @ @"]
