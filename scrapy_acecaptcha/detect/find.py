"""Finds captchas on pages that no rule describes.

Every picture of a page is weighed together with the text field that would take its answer. What
speaks for a captcha adds up as independent chances do, 1 - (1 - a)(1 - b)...; what speaks against
one is a factor below 1. The weights were set by hand, and docs/detection.md tells how well they do.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import unquote_plus, urljoin, urlsplit

from lxml import etree
from parsel import Selector

from scrapy_acecaptcha.detect.vocabulary import (
    Said,
    asks_to_read,
    is_search,
    loads_another,
    names_another,
    names_captcha,
    offers_another,
    spelled,
    was_sent,
    widget,
    without_other_codes,
)
from scrapy_acecaptcha.errors import CaptchaImageError
from scrapy_acecaptcha.page.answer_field import answer_fields, matches_captcha
from scrapy_acecaptcha.page.forms import form_of, is_text, label_text
from scrapy_acecaptcha.page.image_address import background, image_address
from scrapy_acecaptcha.page.images import decode_data_uri
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import has_ascii_letters, select, to_xpath

AUTO_CONFIDENCE = 0.8
"""What `"image": "auto"` asks of a candidate; docs/detection.md explains the figure."""

WORTH_A_LOOK = 0.3
# Pages that have more of something are no captcha's, or mean harm: they shall not take our time.
MAX_PICTURES = 300  # those in forms come first
MAX_CANDIDATES = 10
MAX_FIELDS = 300
MAX_LEVELS = 12  # of boxes around an element that may help to name it
MAX_REFRESHERS = 300
MAX_BOXES = 10  # that may have a background
MAX_SAID = 500  # characters of what an element says of itself
NEARBY = 160  # characters of text around a field or a picture that are taken to speak of it
FAR = 3 * NEARBY  # characters between a picture and the field that do not belong together

_SILENT = {"script", "style", "noscript", "template", "title", "option", "textarea"}
_NAMING = ("class", "id", "src", "name")
_NOT_FOR_ANSWERS = {"password", "email", "url", "search", "date"}
_SCRIPT_MADE = re.compile(
    r"\.(?:php\d?|aspx?|ashx|axd|jspx?|do|action|cgi|pl|cfm|seam|jsf|xhtml|html?|svc|srv|py)$|"
    r"(?:^|/)[^./]*$",
    re.IGNORECASE,
)
_CHANGING = re.compile(r"\d{5,}|0\.\d{3,}|(?<![0-9a-f])(?=[a-f]*\d)[0-9a-f]{8,}", re.IGNORECASE)
_PX = r"(?:^|[;\s]){}\s*:\s*(\d+)(?:\.\d+)?px"


@dataclass(frozen=True)
class Candidate:
    """A picture that may be a captcha.

    :param image: CSS selector that matches this picture and nothing else on the page
    :param input: CSS selector of the field for the answer, None if none can be told
    :param form: CSS selector of the form, None if there is none
    :param confidence: 0 to 1
    :param reasons: what speaks for it and, beginning with `but`, against it
    :param address: the image's absolute address or data: URI; empty where there is none
    :param needs_playwright: a script draws or loads it, so that Scrapy cannot have it
    """

    image: str
    input: str | None
    form: str | None
    confidence: float
    reasons: tuple[str, ...]
    address: str = field(default="", repr=False)
    needs_playwright: bool = False


class Widget(NamedTuple):
    """A captcha of the kind that this package does not read.

    :param name: for instance reCAPTCHA
    :param evidence: where the page names it
    """

    name: str
    evidence: str


def find_captchas(
    page: Selector, base_url: str = "", *, input: str | None = None, form: str | None = None
) -> list[Candidate]:
    """Find what may be captchas on a page: ten at most, the most probable first.

    :param page: the parsed page
    :param base_url: what relative addresses are relative to
    :param input: selector of the field for the answer, if it is known
    :param form: selector of the form, if it is known
    :return: nothing, too, if *input* or *form* is given and not on the page
    :raises ValueError: *input* or *form* is a bad selector
    """
    if not all(select(page, selector) for selector in (input, form) if selector):
        return []
    reading = _Reading(page, input, form)
    weighed = [_Weighing(reading, picture) for picture in reading.pictures]
    weighed = [w for w in weighed if w.confidence >= WORTH_A_LOOK]
    weighed.sort(key=lambda w: -w.confidence)
    return [w.candidate(base_url) for w in weighed[:MAX_CANDIDATES]]


def find_widgets(page: Selector) -> list[Widget]:
    """Name the reCAPTCHAs and their kind on a page, which are out of bounds."""
    found: dict[str, Widget] = {}
    for element in page.xpath("//*[@class or @id or @src or @name]"):
        for attribute, value in element.attrib.items():
            name = widget(_beginning(value)) if attribute in _NAMING else None
            if name and name not in found:
                tag = f'<{element.root.tag} {attribute}="{_beginning(value)}">'
                found[name] = Widget(name, tag)
    return list(found.values())


def resolve(
    rule: CaptchaRule, page: Selector, base_url: str = "", *, browser: bool = False
) -> CaptchaRule | None:
    """Fill in what a rule with `"image": "auto"` leaves to detection.

    :param browser: the page is in a browser, so that a captcha may be drawn by a script
    :return: the rule for this page; None if no captcha is certain enough
    """
    if rule.image != "auto":
        return rule
    for found in find_captchas(page, base_url, input=rule.input, form=rule.form):
        if found.confidence < AUTO_CONFIDENCE:
            break
        if browser or not found.needs_playwright:
            return replace(
                rule,
                image=found.image,
                input=rule.input or found.input,
                form=rule.form or found.form,
            )
    return None


def may_show_captcha(body: bytes) -> bool:
    """Whether a page's source has what every captcha has; looks at the bytes, without parsing."""
    has_both = _FIELD.search(body) and _PICTURE.search(body)
    return bool(has_both) or not has_ascii_letters(body)


_FIELD = re.compile(rb"<input", re.IGNORECASE)
_PICTURE = re.compile(rb"<img|<svg|<canvas|type\s*=\s*[\"']?image|background", re.IGNORECASE)


# The page


@dataclass(eq=False)
class _Mark:
    """An element and where it stands.

    :param offset: characters of the page's text before it
    :param rank: number of controls before it
    """

    element: Any
    offset: int
    rank: int


class _Reading:
    """A page as its reader sees it: one long text with fields and pictures in between."""

    def __init__(self, page: Selector, input: str | None, form: str | None) -> None:
        self.page = page
        self._given = _first(page, input)
        self._form = _first(page, form)
        self._controls: list[_Mark] = []
        self._boxes = 0
        self._forms: dict[_Mark, Any] = {}
        self._label_texts: dict[_Mark, str] = {}
        self.refreshers: list[tuple[_Mark, str]] = []
        pictures: list[_Mark] = []
        pieces: list[str] = []
        offset = 0
        for element, is_start in _walk(page.root):
            text = element.text if is_start else element.tail
            if is_start:
                mark = _Mark(element, offset, len(self._controls))
                if _is_control(element):
                    self._controls.append(mark)
                if self._is_picture(element):
                    pictures.append(mark)
                if len(self.refreshers) < MAX_REFRESHERS and (offered := _offer_of(element)):
                    self.refreshers.append((mark, offered))
                if element.tag in _SILENT:
                    text = None
            if text and not text.isspace():
                pieces.append(text.casefold() + " ")
                offset += len(pieces[-1])
        self.text = "".join(pieces)
        texts = [mark for mark in self._controls if is_text(mark.element)][:MAX_FIELDS]
        self.fields = [mark for mark in texts if self._may_take_answer(mark)]
        if self._form is not None:
            pictures = [picture for picture in pictures if self._is_inside(picture)]
        elif len(pictures) > MAX_PICTURES:
            pictures.sort(key=lambda picture: self.form_of(picture) is None)
        self.pictures = pictures[:MAX_PICTURES]

    def form_of(self, mark: _Mark) -> Any:
        if mark not in self._forms:
            self._forms[mark] = form_of(mark.element, self.page)
        return self._forms[mark]

    def before(self, mark: _Mark) -> str:
        """The text between the control before *mark* and *mark* itself."""
        start = self._controls[mark.rank - 1].offset if mark.rank else 0
        return self.text[max(start, mark.offset - NEARBY) : mark.offset]

    def after(self, mark: _Mark) -> str:
        """The text between *mark* and the next control."""
        place = mark.rank + (mark in self._controls)
        end = self._controls[place].offset if place < len(self._controls) else len(self.text)
        return self.text[mark.offset : min(end, mark.offset + NEARBY)]

    def around(self, mark: _Mark, width: int = 2 * NEARBY) -> str:
        return self.text[max(0, mark.offset - width) : mark.offset + width]

    def label_text(self, mark: _Mark) -> str:
        if mark not in self._label_texts:
            self._label_texts[mark] = label_text(mark.element, self.page)[:MAX_SAID]
        return self._label_texts[mark]

    def _may_take_answer(self, mark: _Mark) -> bool:
        if self._given is not None:
            return mark.element is self._given
        element = mark.element
        if (element.get("type") or "").lower() in _NOT_FOR_ANSWERS:
            return False
        if self._form is not None and not self._is_inside(mark):
            return False
        said = self.label_text(mark)
        if widget(said) or re.fullmatch(r"\d+", element.get("value") or ""):
            return False  # a number that stands there already is a setting
        return matches_captcha(said) or not is_search(element.get("name") or "")

    def is_given(self, mark: _Mark) -> bool:
        return mark.element is self._given

    def _is_inside(self, mark: _Mark) -> bool:
        form = self.form_of(mark)
        return form is self._form or any(one is self._form for one in mark.element.iterancestors())

    def _is_picture(self, element: Any) -> bool:
        if element.tag in ("img", "canvas", "svg"):
            return True
        if element.tag == "input":
            return (element.get("type") or "").lower() == "image"
        if "url(" in (element.get("style") or ""):
            return True
        if len(element) or (element.text or "").strip() or self._boxes >= MAX_BOXES:
            return False  # not a box that shows nothing but its background
        named = names_captcha(_spelled_apart(_values(element, "id", "class")))
        if named is None or named.weight <= 0.5:
            return False
        self._boxes += 1
        return background(element, self.page) is not None


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Elements as they begin (True) and end (False), without what nobody sees."""
    walker = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, element in walker:
        if event in ("comment", "pi"):
            yield element, False
            continue
        if event == "start" and element.tag in _SILENT | {"svg", "head"}:
            if element.tag == "head" and element.find(".//input") is not None:
                yield element, True  # a page without <body>, badly closed
                continue
            walker.skip_subtree()
        yield element, event == "start"


def _first(page: Selector, selector: str | None) -> Any:
    found = select(page, selector) if selector else []
    return found[0].root if found else None


def _is_control(element: Any) -> bool:
    if element.tag not in ("input", "select", "textarea"):
        return False
    kinds = ("hidden", "submit", "button", "image", "reset", "checkbox", "radio")
    return (element.get("type") or "").lower() not in kinds


def _offer_of(element: Any) -> str | None:
    """What a link, button or the like says of getting another image."""
    if element.tag not in ("a", "button", "input", "span", "img", "i", "label", "div", "font"):
        return None
    script, href, kind = _values(element, "onclick", "href", "type")
    if element.tag == "input" and kind not in ("button", "submit", "image"):
        return None
    if element.tag not in ("a", "button", "input") and not script:
        return None
    said = " ".join(_values(element, "title", "value", "alt", "aria-label"))
    if element.tag in ("a", "button"):
        said += " " + " ".join(islice(element.itertext(), 10))[:80]
    if offered := offers_another(" ".join(said.split())):
        return offered
    if element.tag != "img" and loads_another(script + " " + href.partition("javascript:")[2]):
        return "a script"
    return None


def _values(element: Any, *attributes: str) -> list[str]:
    return [(element.get(name) or "")[:MAX_SAID] for name in attributes]


# Weighing


class _Weighing:
    """What speaks for and against one picture.

    ``self.confidence``: 0 to 1.
    """

    def __init__(self, reading: _Reading, picture: _Mark) -> None:
        self._reading = reading
        self._picture = picture
        self._element = picture.element
        self._for: list[tuple[float, str]] = []
        self._against: list[tuple[float, str]] = []
        self.confidence = 0.0 if self._is_out_of_question() else self._weigh()

    def _is_out_of_question(self) -> bool:
        """A quick look; of a page's many pictures it leaves few to weigh."""
        if self._named is None or self._named.weight <= 0.5:
            near = any(
                not self._between(f) and abs(f.offset - self._picture.offset) <= FAR
                for f in self._reading.fields
            )
            if not near:
                return True
        return self._is_of_widget()

    def _weigh(self) -> float:
        self._field = self._best_field()
        self._weigh_names()
        self._weigh_address()
        self._weigh_size()
        self._weigh_refresh()
        self._weigh_field()
        self._weigh_text()
        doubt = math.prod(1 - weight for weight, _ in self._for)
        return (1 - doubt) * math.prod(factor for factor, _ in self._against)

    def candidate(self, base_url: str) -> Candidate:
        form = self._reading.form_of(self._field or self._picture)
        page = self._reading.page
        return Candidate(
            image=selector_of(self._element, page),
            input=selector_of(self._field.element, page) if self._field else None,
            form=selector_of(form, page) if form is not None else None,
            confidence=round(self.confidence, 2),
            reasons=(*(why for _, why in self._for), *(f"but {why}" for _, why in self._against)),
            address=self._absolute(base_url),
            needs_playwright=self._element.tag != "svg" and not self._address,
        )

    # Facts

    def _absolute(self, base_url: str) -> str:
        with suppress(ValueError):  # not an address, though it stands there as one
            return self._address if self._is_data else urljoin(base_url, self._address)
        return ""

    @cached_property
    def _address(self) -> str:
        with suppress(CaptchaImageError):
            match = Selector(root=self._element, type="html")
            return (image_address(match, self._reading.page) or "").strip()
        return ""

    @property
    def _is_data(self) -> bool:
        return self._address[:5].lower() == "data:"

    @cached_property
    def _path(self) -> str:
        """The address without host, as far as it may have words."""
        if self._is_data:
            return ""
        with suppress(ValueError):
            parts = urlsplit(self._address)
            query = f"?{parts.query}" if parts.query else ""
            return unquote_plus(parts.path[-MAX_SAID:] + query[:MAX_SAID])
        return ""

    @cached_property
    def _size(self) -> tuple[int, int] | None:
        """Width and height in pixels, as far as the page says."""
        sides = [self._side("width"), self._side("height")]
        if None in sides and self._is_data:
            return _size_of_data(self._address)
        return (sides[0], sides[1]) if sides[0] and sides[1] else None

    def _side(self, name: str) -> int | None:
        found = re.match(r"\s*(\d+)\s*(?:px)?\s*$", self._element.get(name) or "")
        found = found or re.search(_PX.format(name), self._element.get("style") or "")
        return int(found[1]) if found else None

    def _is_of_widget(self) -> bool:
        around = [self._element, *islice(self._element.iterancestors(), 6)]
        said = [value for one in around for value in _values(one, "id", "class")]
        return any(map(widget, [*said, _beginning(self._element.get("src") or "")]))

    # The field

    def _best_field(self) -> _Mark | None:
        reading, form = self._reading, self._reading.form_of(self._picture)
        fields = reading.fields
        if form is not None:
            fields = [f for f in fields if reading.form_of(f) is form]
        if not fields:
            return None
        speaking = set(answer_fields([without_other_codes(reading.label_text(f)) for f in fields]))

        def order(place: int) -> tuple[float, float]:
            mark = fields[place]
            asked = asks_to_read(reading.label_text(mark) + " " + reading.before(mark))
            weight = max(asked.weight if asked else 0, 0.5 if place in speaking else 0)
            return -weight, self._distance(mark)

        return fields[min(range(len(fields)), key=order)]

    def _distance(self, mark: _Mark) -> float:
        """How far a field is from the picture: characters of text, and controls in between."""
        between = self._between(mark)
        return abs(mark.offset - self._picture.offset) + 200 * between

    def _between(self, mark: _Mark) -> int:
        is_behind = mark.rank >= self._picture.rank
        return mark.rank - self._picture.rank if is_behind else self._picture.rank - mark.rank - 1

    # Evidence

    def _weigh_names(self) -> None:
        said, box = self._named, self._name_of_box()
        if said and self._names_sure:
            self._for.append((said.weight, f"it is called {said.words!r}"))
        elif box:
            self._for.append((0.5, f"it stands in a box called {box!r}"))
        elif said:
            self._for.append((said.weight, f"it is called {said.words!r}"))
        if not self._names_sure and (described := asks_to_read(self._description)):
            self._for.append((described.weight, f"it is described as {described.words!r}"))
        # What is said of a captcha may well be `click to refresh`, so that its file decides.
        file = self._path.rpartition("/")[2] if "?" not in self._path else self._path
        doubtful = [file] if self._names_sure and file else [*self._own_names, file]
        if another := names_another(_spelled_apart(doubtful), sure=self._names_sure):
            self._against.append((0.15, f"its name speaks of {another!r}"))

    @cached_property
    def _own_names(self) -> list[str]:
        return _values(self._element, "id", "name", "class", "alt", "title")

    @cached_property
    def _named(self) -> Said | None:
        return names_captcha(_spelled_apart([*self._own_names, self._path]))

    @property
    def _names_sure(self) -> bool:
        return self._named is not None and self._named.weight > 0.5

    @property
    def _description(self) -> str:
        return " | ".join(_values(self._element, "alt", "title", "aria-label"))

    def _name_of_box(self) -> str | None:
        for box in islice(self._element.iterancestors(), 2):
            if box.tag in ("form", "body"):
                break
            said = names_captcha(_spelled_apart(_values(box, "id", "class")))
            if said and said.weight > 0.5:
                return said.words
        return None

    def _weigh_address(self) -> None:
        path, _, query = self._path.partition("?")
        if self._is_data:
            self._for.append((0.1, "it stands in the page itself"))
        elif self._element.tag in ("canvas", "svg"):
            self._for.append((0.2, f"it is a <{self._element.tag}>"))
        elif self._address:
            if _SCRIPT_MADE.search(path):
                self._for.append((0.15, "its address is a script's"))
            if _CHANGING.search(query or path):
                self._for.append((0.15, "its address has a number as if by chance"))
            elif not query and not _SCRIPT_MADE.search(path) and not self._names_sure:
                self._against.append((0.35, f"it is a file: {path.rpartition('/')[2]}"))

    def _weigh_size(self) -> None:
        if self._size is None:
            return
        width, height = self._size
        size = f"{width} x {height} pixels"
        if max(width, height) <= 40 or min(width, height) <= 12:
            self._against.append((0.05, f"it is an icon of {size}"))
        elif width > 450 or height > 180:
            self._against.append((0.2, f"it is large, {size}"))
        elif height > 60 and width < 1.25 * height:
            self._against.append((0.2, f"it is a square of {size}"))
        elif 40 < width <= 350 and 16 < height <= 130 and width >= 1.4 * height:
            self._for.append((0.2, f"it has a captcha's size, {size}"))

    def _weigh_refresh(self) -> None:
        if said := offers_another(self._description):
            self._for.append((0.5, f"its description offers another one: {said!r}"))
        elif loads_another(*_values(self._element, "onclick")):
            self._for.append((0.45, "a click loads another one"))
        for mark, offered in self._reading.refreshers:
            near = abs(mark.offset - self._picture.offset) <= NEARBY
            if mark.element is self._element or not near or abs(mark.rank - self._picture.rank) > 1:
                continue
            weight = 0.3 if offered == "a script" else 0.45
            self._for.append((weight, f"a link or button beside it offers another: {offered!r}"))
            break

    def _weigh_field(self) -> None:
        mark, reading = self._field, self._reading
        if mark is None:
            self._against.append((0.2, "no text field goes with it"))
            return
        name = mark.element.get("name") or mark.element.get("id") or ""
        said = without_other_codes(reading.label_text(mark))
        asked = asks_to_read(said)
        box = _spelled_apart(_values(mark.element, "id", "name", "class"))
        named = names_captcha(without_other_codes(box))
        if reading.is_given(mark):
            self._for.append((0.8, f"the rule names the field {name!r}"))
        elif matches_captcha(said):
            self._for.append((0.75, f"the field {name!r} speaks of a captcha"))
        elif asked and asked.weight > 0.5:
            self._for.append((asked.weight, f"the field {name!r} asks for {asked.words!r}"))
        elif named and named.weight > 0.5:
            self._for.append((0.6, f"the field is called {named.words!r}"))
        elif asked or answer_fields([said]):
            self._for.append((0.4, f"the field {name!r} asks for a code"))
        self._weigh_place(mark)
        length = mark.element.get("maxlength") or mark.element.get("size") or ""
        if mark.element.get("autocomplete") == "off" or re.fullmatch(r"[3-9]|10", length):
            self._for.append((0.1, "the field is short or not to be remembered"))

    def _weigh_place(self, mark: _Mark) -> None:
        reading = self._reading
        distance = abs(mark.offset - self._picture.offset)
        if self._between(mark) or distance > FAR:
            self._against.append((0.4, "other fields or much text stand between it and the field"))
        else:
            self._for.append((0.3, "the field is next to it"))
        if len(reading.fields) == len(reading.pictures) == 1:
            self._for.append((0.3, "they are the page's only picture and field"))
        is_inside = next(mark.element.iterancestors("form"), None) is not None
        if is_inside and reading.form_of(self._picture) is None:
            self._against.append((0.7, "it stands outside the field's form"))

    def _weigh_text(self) -> None:
        mark, reading = self._field, self._reading
        if mark is None:
            return
        texts = [reading.before(mark), reading.after(mark)]
        if not self._between(mark):
            texts += [reading.before(self._picture), reading.after(self._picture)]
        asked = max(filter(None, map(asks_to_read, texts)), default=None)
        if asked:
            self._for.append((asked.weight, f"the text beside it says {asked.words!r}"))
        sent = was_sent(reading.around(mark)) or was_sent(reading.around(self._picture))
        if sent and not self._names_sure:
            self._against.append((0.15, f"the code comes by another way: {sent!r}"))


def _spelled_apart(names: Iterable[str]) -> str:
    """Names as words, with a bar between them, so that no two are read as one."""
    return " | ".join(map(spelled, names))


def _size_of_data(uri: str) -> tuple[int, int] | None:
    with suppress(CaptchaImageError, struct.error):
        data = decode_data_uri(uri)
        if data.startswith(b"\x89PNG"):
            return struct.unpack(">II", data[16:24])
        if data.startswith(b"GIF8"):
            return struct.unpack("<HH", data[6:10])
    return None


def _beginning(value: str) -> str:
    """As much of an attribute as may name something: data: URIs are long and say nothing."""
    return "" if value[:5].lower() == "data:" else value[:300]


# Selectors


def selector_of(element: Any, page: Selector) -> str:
    """A CSS selector that matches *element* and no other element of the page.

    The shortest of what will hold longest: id, name, the stable part of the address, class, a
    description, each alone or inside the form; else the path from the nearest element with an id.
    """
    own = list(_own_selectors(element))
    for selector in own:
        if _is_only(selector, element, page):
            return selector
    for box in islice(element.iterancestors(), MAX_LEVELS):
        for outer in _own_selectors(box):
            for inner in [*own, str(element.tag)]:
                if _is_only(f"{outer} {inner}", element, page):
                    return f"{outer} {inner}"
    return _path_to(element, page)


def _own_selectors(element: Any) -> Iterator[str]:
    """Ways to name an element by itself, the best first."""
    if element.tag in ("html", "body"):
        return
    tag = element.tag
    for name in ("id", "name"):
        value = element.get(name) or ""
        if _is_stable(value):
            is_plain = name == "id" and re.fullmatch(r"[A-Za-z_][\w-]*", value)
            yield f"#{value}" if is_plain else f"{tag}[{name}={_quoted(value)}]"
    if tag in ("img", "input") and (element.get("src") or "")[:5].lower() != "data:":
        for part in _stable_parts(element.get("src") or ""):
            yield f'{tag}[src*="{_escaped(part)}"]'
    for name in sorted(
        (element.get("class") or "").split(), key=lambda c: names_captcha(spelled(c)) is None
    ):
        if _is_stable(name) and re.fullmatch(r"[A-Za-z_][\w-]*", name):
            yield f"{tag}.{name}"
    for name in ("alt", "title", "placeholder", "aria-label", "type"):
        value = element.get(name) or ""
        if value and len(value) <= 40 and _is_stable(value.replace(" ", "")):
            yield f"{tag}[{name}={_quoted(value)}]"
    for name in ("id", "name"):
        prefix = re.split(r"[0-9a-f]*\d", (element.get(name) or "")[:80])[0]
        if 4 <= len(prefix) < 40:
            yield f"{tag}[{name}^={_quoted(prefix)}]"
    if tag in ("form", "canvas", "svg"):
        yield tag


def _stable_parts(src: str) -> Iterator[str]:
    """Parts of an address that will be the same next time: file, folders, words of the query."""
    path, _, query = src.strip().partition("?")
    path = re.sub(r"^\w+://[^/]*|;.*", "", path)
    folder, _, file = path.rpartition("/")
    if _is_stable(file):
        yield file
    for part in [p for p in folder.split("/") if p and _is_stable(p)][::-1]:
        if names_captcha(spelled(part)):
            yield f"{part}/"
    for pair in re.split("[&;]", query):
        name, _, value = pair.partition("=")
        if name and re.fullmatch(r"[A-Za-z/]{3,30}", value):
            yield pair
        elif len(name) > 2 and _is_stable(name):
            yield f"{name}="


def _is_stable(value: str) -> bool:
    """Whether a name looks as if somebody had chosen it."""
    return (
        0 < len(value) <= 80
        and not re.search(r"\s|\d{5,}|(?=[a-f]*\d)[0-9a-f]{6,}", value)
        and bool(re.search(r"[^\W\d_]", value))
    )


def _path_to(element: Any, page: Selector) -> str:
    steps: list[str] = []
    for level, one in enumerate([element, *element.iterancestors()]):
        for outer in _own_selectors(one) if 0 < level <= MAX_LEVELS else ():
            if _is_only(outer, one, page):
                return " > ".join([outer, *steps])
        place = 1 + sum(1 for _ in one.itersiblings(one.tag, preceding=True))
        is_alone = place == 1 and next(one.itersiblings(one.tag), None) is None
        steps.insert(0, str(one.tag) if is_alone else f"{one.tag}:nth-of-type({place})")
    return " > ".join(steps)


def _is_only(selector: str, element: Any, page: Selector) -> bool:
    found = page.xpath(f"({to_xpath(selector)})[position() < 3]")
    return len(found) == 1 and found[0].root is element


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[A-Za-z_][\w-]*", value) else f'"{_escaped(value)}"'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
