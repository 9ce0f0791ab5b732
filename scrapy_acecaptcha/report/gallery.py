"""The report's gallery: the newest calls and their images."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterable
from tempfile import TemporaryFile
from typing import TextIO

from scrapy_acecaptcha.page.images import RASTER, image_format
from scrapy_acecaptcha.recognition.journal_file import OUTCOMES, Call
from scrapy_acecaptcha.report.charts import cut

_MAX_IMAGE = 256_000  # bytes of one image that is put on the page
_MAX_IMAGES = 96_000_000  # bytes of all of them
_IMAGES_PER_BLOCK = 64
# Why an image is not on the page. An SVG is a document, which is never put there.
_NO_IMAGE = ("not a raster image", "too large to show", "left out: too many images")


def write_gallery(file: TextIO, calls: Iterable[Call], total: int, script: str) -> None:
    """Write the calls, the script that shows them, and the images.

    The images come last, as they are by far the most: the page works before all of them are there.
    """
    hosts, spiders = _Numbers(), _Numbers()
    with TemporaryFile("w+", encoding="ascii") as store:
        images = _Images(store)
        rows = [_row(call, hosts, spiders, images.add(call)) for call in calls]
        images.close()
        data = {
            "calls": rows,
            "hosts": list(hosts),
            "spiders": list(spiders),
            "outcomes": OUTCOMES,
            "total": total,
            "images_per_block": _IMAGES_PER_BLOCK,
            "no_image": _NO_IMAGE,
        }
        file.write(f'<script type="application/json" id="data">{_script_json(data)}</script>\n')
        file.write(f"<script>{script}</script>\n")
        store.seek(0)
        shutil.copyfileobj(store, file)


def _row(call: Call, hosts: _Numbers, spiders: _Numbers, image: int) -> tuple[object, ...]:
    """What the script has to know of a call, in the order in which it takes it apart."""
    return (
        round(call.time, 3),
        OUTCOMES.index(call.outcome),
        hosts[cut(call.host)],
        spiders[cut(call.spider)],
        cut(call.url),
        call.answer and cut(call.answer),
        call.seconds and round(call.seconds, 4),
        call.code and cut(call.code),
        call.trace_id and cut(call.trace_id),
        image,
    )


def _script_json(data: object) -> str:
    """JSON that cannot end the <script> around it; ASCII only, so U+2028 is escaped as well."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Numbers(dict[str, int]):
    """Gives each text the next number."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


class _Images:
    """Writes images as text that a browser leaves alone until a page of the gallery needs it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._places: dict[str, int] = {}
        self._bytes = 0

    def add(self, call: Call) -> int:
        """Return the image's place, or -1, -2 ... for the reason in _NO_IMAGE why it has none."""
        kind = image_format(call.image)
        if kind not in RASTER:
            return -1
        if len(call.image) > _MAX_IMAGE:
            return -2
        place = self._places.get(call.sha256)
        if place is None:
            if self._bytes + len(call.image) > _MAX_IMAGES:
                return -3
            self._bytes += len(call.image)
            place = self._places[call.sha256] = len(self._places)
            self._write(place, f"image/{kind};base64,{base64.b64encode(call.image).decode()}")
        return place

    def _write(self, place: int, line: str) -> None:
        if place % _IMAGES_PER_BLOCK:
            self._file.write(f"\n{line}")
            return
        if place:
            self.close()
        self._file.write(f'<script type="text/plain" class="images">{line}')

    def close(self) -> None:
        """End the last block."""
        if self._places:
            self._file.write("</script>\n")
