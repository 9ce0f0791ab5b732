"""Captcha images that the tests can read back, whatever became of them on the way.

Every image carries a strip of coloured cells that spells its serial number. A file is known by
its digest; a screenshot of it, or an SVG drawn to PNG, is other bytes and is known by the strip.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import threading
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

ALPHABET = "ACDEFHJKLMNPQRTUVWXY34679"  # no letter that could be taken for another
HEIGHT = 50
_FONT = ImageFont.load_default(size=30)
_CELL = 4
_BITS = 8  # cells of three bits each
_FIRST, _LAST = (255, 128, 0), (0, 128, 255)  # no other pixel of an image has these colours


class Gallery:
    """All images drawn so far and what is written on them."""

    def __init__(self) -> None:
        self._serials = itertools.count(1)
        self._texts: dict[str | int, str] = {}
        self._lock = threading.Lock()
        self.newest_svg: str | None = None

    def png(self, text: str, format: str = "PNG") -> bytes:
        """`text` as a raster image: noisy, and of bytes that no other image has."""
        image = Image.new("RGB", (24 * len(text) + 20, HEIGHT), "#f4f4f0")
        draw = ImageDraw.Draw(image)
        for _ in range(4):
            points = [random.randrange(image.width) for _ in range(4)]
            draw.line([(points[0], points[1] % HEIGHT), (points[2], points[3] % HEIGHT)], "#c0c8c0")
        for place, letter in enumerate(text):
            at = (12 + 24 * place + random.randint(-2, 2), random.randint(6, 12))
            draw.text(at, letter, "#203060", font=_FONT)
        serial = self._register(text)
        for x, colour in enumerate(_strip(serial)):
            left = 2 + x * _CELL
            draw.rectangle((left, 2, left + _CELL - 1, 1 + _CELL), colour)
        file = io.BytesIO()
        image.save(file, format, **({"compress_level": 1} if format == "PNG" else {}))
        with self._lock:
            self._texts[hashlib.sha256(file.getvalue()).hexdigest()] = text
        return file.getvalue()

    def svg(self, text: str, size: bool = True) -> str:
        """`text` as an <svg> of paths; `size=False`: viewBox only, no width and height."""
        width = 24 * len(text) + 20
        paths = [
            f'<path fill="#444" d="{_outline(letter, 12 + 24 * place, random.randint(10, 14))}"/>'
            for place, letter in enumerate(text)
        ]
        a, b, c, d = (random.randrange(10, HEIGHT) for _ in range(4))
        paths.append(f'<path d="M4 {a} C40 {b},80 {c},{width} {d}" stroke="#999" fill="none"/>')
        for x, colour in enumerate(_strip(self._register(text))):
            fill = "#{:02x}{:02x}{:02x}".format(*colour)
            box = f'x="{2 + x * _CELL}" y="2" width="{_CELL}" height="{_CELL}"'
            paths.append(f'<rect {box} fill="{fill}"/>')
        self.newest_svg = text
        given = f'width="{width}" height="{HEIGHT}" ' if size else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {given}viewBox="0,0,{width},{HEIGHT}">'
            f'<rect width="100%" height="100%" fill="#f4f4f0"/>{"".join(paths)}</svg>'
        )

    def answer(self, image: bytes) -> str | None:
        """What is written on an image file or a screenshot; None for anything else.

        An SVG as such is not known: the API is only documented for raster images.
        """
        known = self._texts.get(hashlib.sha256(image).hexdigest())
        if known:
            return known
        try:
            pixels = Image.open(io.BytesIO(image)).convert("RGB")
        except Exception:  # Pillow raises half a dozen kinds for what is not an image
            return None
        return self._texts.get(_read_strip(pixels))

    def _register(self, text: str) -> int:
        with self._lock:
            serial = next(self._serials)
            self._texts[serial] = text
            return serial


def _strip(serial: int) -> list[tuple[int, int, int]]:
    cells = [(serial >> 3 * place) & 7 for place in range(_BITS)]
    colours = [(cell // 4 * 255, cell // 2 % 2 * 255, cell % 2 * 255) for cell in cells]
    return [_FIRST, *colours, _LAST]


def _read_strip(image: Image.Image) -> int:
    """The serial number, or 0. The strip may have moved and may be larger than it was drawn."""
    raw, row = image.tobytes(), image.width * 3
    first = _find_pixel(raw, _FIRST, 0)
    last = _find_pixel(raw, _LAST, first) if first >= 0 else -1
    if last < 0 or first // row != last // row:
        return 0
    y, left = first // row, first % row // 3
    cell = (last % row // 3 - left) / (_BITS + 1)
    serial = 0
    for place in range(_BITS):
        x = int(left + (place + 1.5) * cell)
        at = (y + int(cell / 2)) * row + x * 3
        bits = [level > 127 for level in raw[at : at + 3]]
        serial |= (bits[0] * 4 + bits[1] * 2 + bits[2]) << 3 * place
    return serial


def _find_pixel(raw: bytes, colour: tuple[int, int, int], start: int) -> int:
    """Byte offset of the first pixel of this colour, or -1."""
    at = raw.find(bytes(colour), start)
    while at >= 0 and at % 3:
        at = raw.find(bytes(colour), at + 1)
    return at


def _outline(letter: str, left: int, top: int) -> str:
    return "".join(f"M{left + x} {top + y}h{run}v1h-{run}z" for x, y, run in _runs(letter))


@lru_cache
def _runs(letter: str) -> list[tuple[int, int, int]]:
    """The letter's dark pixels as (x, y, length) of horizontal runs."""
    tile = Image.new("1", (30, 40), 0)
    ImageDraw.Draw(tile).text((2, 0), letter, 1, font=_FONT)
    runs = []
    for y in range(tile.height):
        x = 0
        line = [bool(tile.getpixel((column, y))) for column in range(tile.width)]
        for dark, group in itertools.groupby(line):
            length = len(list(group))
            if dark:
                runs.append((x, y, length))
            x += length
    return runs
