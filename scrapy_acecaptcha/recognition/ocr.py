"""ddddocr, an offline recogniser: one model of each kind in memory, for all who read with it."""

from __future__ import annotations

import io
import threading
from functools import cache
from typing import Any

try:
    import ddddocr
    from PIL import Image
except ImportError as error:
    raise ImportError(
        f"ddddocr needs its extra ({error}): pip install 'scrapy-acecaptcha[local]'"
    ) from error

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises
SIDES = range(8, 4097)  # pixels; ddddocr scales to a height of 64, a flat image would grow huge


class UnfitSize(ValueError):
    """An image that is too small to read, or too large."""


def on_white(data: bytes) -> Image.Image:
    """Draw an image as a browser shows it: of an animation its first frame.

    :raises UnfitSize: its sides are not within SIDES
    :raises Exception: one of DAMAGED: it is no image
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width not in SIDES or image.height not in SIDES:
            raise UnfitSize(
                f"{image.width} x {image.height} pixels; each side must have "
                f"{SIDES.start} to {SIDES.stop - 1}"
            )
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")


def read(image: Image.Image) -> str:
    """Return what ddddocr reads; it knows Chinese as well, the API does not."""
    return _model(beta=False).read(image).encode("ascii", "ignore").decode()


def read_if_sure(data: bytes) -> str | None:
    """Return the text on which both models agree, None where they do not, or for no image."""
    try:
        image = on_white(data)
    except DAMAGED:
        return None
    text = _model(beta=False).read(image)
    sure = text and text.isascii() and text == _model(beta=True).read(image)
    return text if sure else None


class _Model:
    def __init__(self, beta: bool) -> None:
        self._ocr: Any = ddddocr.DdddOcr(beta=beta, show_ad=False)  # no advertisement on stdout
        self._lock = threading.Lock()  # it rewrites its table of characters on every call

    def read(self, image: Image.Image) -> str:
        with self._lock:
            text: str = self._ocr.classification(image)
        return text


_loading = threading.Lock()


def _model(beta: bool) -> _Model:
    with _loading:  # or two threads that come together would load it twice
        return _load(beta)


@cache
def _load(beta: bool) -> _Model:
    return _Model(beta)
