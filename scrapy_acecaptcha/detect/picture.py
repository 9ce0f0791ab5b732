"""What a page says of one picture: its names, its address, its size."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from functools import cached_property
from itertools import islice
from urllib.parse import unquote_plus, urljoin, urlsplit

from parsel import Selector

from scrapy_acecaptcha.detect.document import Document, Mark, attributes
from scrapy_acecaptcha.detect.vocabulary import (
    Match,
    names_captcha,
    names_loading,
    path_words,
    spelled_apart,
    widget,
)
from scrapy_acecaptcha.errors import CaptchaImageError
from scrapy_acecaptcha.page.image_address import image_address
from scrapy_acecaptcha.page.images import decode_data_uri

MAX_PATH = 500  # characters of an address that may have words
BOXES = 6  # that stand around a picture and may belong to a widget

_SCRIPT_MADE = re.compile(
    r"\.(?:php\d?|aspx?|ashx|axd|jspx?|do|action|cgi|pl|cfm|seam|jsf|xhtml|html?|svc|srv|py)$|"
    r"(?:^|/)[^./]*$",
    re.IGNORECASE,
)
_CHANGING = re.compile(r"\d{5,}|0\.\d{3,}|(?<![0-9a-f])(?=[a-f]*\d)[0-9a-f]{8,}", re.IGNORECASE)
_PX = r"(?:^|[;\s]){}\s{{0,9}}:\s{{0,9}}(\d{{1,6}})(?:\.\d{{1,9}})?px"


class Picture:
    """A picture of a page.

    :param mark: where it stands
    """

    def __init__(self, document: Document, mark: Mark) -> None:
        self.mark = mark
        self.element = mark.element
        self._document = document

    # Names

    @cached_property
    def own_names(self) -> list[str]:
        """What the page's author called it."""
        return attributes(self.element, "id", "name", "class")

    @cached_property
    def description(self) -> list[str]:
        """What its readers are told of it."""
        return attributes(self.element, "alt", "title", "aria-label")

    @cached_property
    def named(self) -> Match | None:
        """What of its names, address and description speaks for a captcha."""
        described = self.description[:2]
        return names_captcha(spelled_apart([*self.own_names, *described, *self.path_words]))

    @property
    def is_named(self) -> bool:
        """Whether it is called a captcha outright."""
        return self.named is not None and self.named.is_sure

    @cached_property
    def box_named(self) -> str | None:
        """The captcha's name of the box around it."""
        for box in islice(self.element.iterancestors(), 2):
            if box.tag in ("form", "body"):
                break
            said = names_captcha(spelled_apart(attributes(box, "id", "class")))
            if said and said.is_sure:
                return said.words
        return None

    @cached_property
    def widget(self) -> str | None:
        """The widget of another kind that it is part of."""
        around = [self.element, *islice(self.element.iterancestors(), BOXES)]
        said = [value for one in around for value in attributes(one, "id", "class")]
        source = attributes(self.element, "src")[0]
        return next(filter(None, map(widget, [*said, "" if self.is_data else source])), None)

    @cached_property
    def loading(self) -> str | None:
        """The spinner that it is or belongs to."""
        around = [self.element, *islice(self.element.iterancestors(), 3)]
        said = [value for one in around for value in attributes(one, "id", "class")]
        return names_loading(spelled_apart(said))

    # Its address

    @cached_property
    def address(self) -> str:
        """The image's address as it stands in the page; empty where there is none."""
        with suppress(CaptchaImageError):
            match = Selector(root=self.element, type="html")
            return (image_address(match, self._document.page) or "").strip()
        return ""

    def absolute_address(self, base_url: str) -> str:
        """The image's address or data: URI; empty where there is none."""
        with suppress(ValueError):  # not an address, though it stands there as one
            return self.address if self.is_data else urljoin(base_url, self.address)
        return ""

    @property
    def is_data(self) -> bool:
        """Whether the image stands in the page itself."""
        return self.address[:5].lower() == "data:"

    @cached_property
    def _parts(self) -> tuple[str, str]:
        """Path and query of the address, as far as they may have words."""
        if not self.is_data:
            with suppress(ValueError):
                parts = urlsplit(self.address)
                path = re.sub(r";.*", "", parts.path[-MAX_PATH:])
                return unquote_plus(path), unquote_plus(parts.query[:MAX_PATH])
        return "", ""

    @cached_property
    def path_words(self) -> list[str]:
        """The words of the address, a string for each segment of path and query."""
        return [*path_words(self._parts[0]), *path_words(self._parts[1])]

    @property
    def file(self) -> str:
        """The last segment of the address's path."""
        return self._parts[0].rpartition("/")[2]

    @property
    def is_script_made(self) -> bool:
        """Whether a program on the server seems to make the image."""
        return bool(self.address) and not self.is_data and bool(_SCRIPT_MADE.search(self._parts[0]))

    @property
    def is_changing(self) -> bool:
        """Whether the address has a number as if by chance."""
        path, query = self._parts
        return bool(_CHANGING.search(query or path))

    @property
    def is_file(self) -> bool:
        """Whether it looks like one of the site's own files."""
        has_address = bool(self.address) and not self.is_data
        return has_address and not (self._parts[1] or self.is_script_made or self.is_changing)

    # Its size

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, as far as the page says."""
        sides = [self._side("width"), self._side("height")]
        if None in sides and self.is_data:
            return _size_of_data(self.address)
        return (sides[0], sides[1]) if sides[0] and sides[1] else None

    def _side(self, name: str) -> int | None:
        own, style = attributes(self.element, name, "style")
        found = re.fullmatch(r"\s{0,9}(\d{1,6})\s{0,9}(?:px)?\s{0,9}", own)
        found = found or re.search(_PX.format(name), style)
        return int(found[1]) if found else None


def _size_of_data(uri: str) -> tuple[int, int] | None:
    with suppress(CaptchaImageError, struct.error):
        data = decode_data_uri(uri)
        if data.startswith(b"\x89PNG"):
            return struct.unpack(">II", data[16:24])
        if data.startswith(b"GIF8"):
            return struct.unpack("<HH", data[6:10])
    return None
