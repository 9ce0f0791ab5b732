"""A page read once, from top to bottom, into an index that detection works on.

One pass over the tree notes the text, the controls, the pictures and the buttons, each with its
place; whatever is asked later is a look-up. The work is linear in the page, and bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lxml import etree
from parsel import Selector

from scrapy_acecaptcha.detect.vocabulary import (
    names_captcha,
    spelled_apart,
)
from scrapy_acecaptcha.page.controls import BUTTON_TYPES, MAX_SAID, is_text
from scrapy_acecaptcha.page.image_address import background

MAX_PAGE = 2_000_000  # characters of text, each element counted as ELEMENT characters
ELEMENT = 30
MAX_CONTROLS = 2_000
MAX_PICTURES = 200  # those in forms come first
MAX_BOXES = 10  # elements that may have a background in a style sheet
MAX_ATTRIBUTE = 500  # characters of an attribute or label that are searched
NEARBY = 160  # characters of text around a field or a picture that are taken to speak of it

_SILENT = frozenset({"script", "style", "template", "title", "option", "textarea"})
_PICTURES = frozenset({"img", "image", "canvas", "svg"})  # browsers take <image> for <img>
_CONTROLS = frozenset({"input", "select", "textarea"})
# Types of <input> that nobody types into.
_NO_CONTROLS = BUTTON_TYPES | {"hidden", "checkbox", "radio"}
_BUTTONS = frozenset({"a", "button", "input"})


@dataclass(eq=False, slots=True)
class Mark:
    """An element and where it stands.

    :param offset: characters of the page's text before it
    :param rank: number of controls before it
    :param form: the form that it belongs to
    :param label: the label around it
    :param is_control: it is one of the controls itself
    """

    element: Any
    offset: int
    rank: int
    form: Any = None
    label: Any = None
    is_control: bool = False


class Document:
    """A page as its reader sees it: one long text with fields and pictures in between.

    :param browser: the page is in a browser, which runs its scripts

    ``limits``: what was too much to be looked at, as sentences; empty for most pages.
    """

    def __init__(self, page: Selector, *, browser: bool = False) -> None:
        self.page = page
        # What stands in <noscript> is for those who run no scripts, as Scrapy does.
        self._silent = _SILENT | {"noscript"} if browser else _SILENT
        self.limits: list[str] = []
        self.controls: list[Mark] = []
        self.pictures: list[Mark] = []
        self.buttons: list[Mark] = []  # and links, and whatever else has a script for clicks
        self._form: Any = None  # the ones around what is being read
        self._label: Any = None
        self._forms_by_id: dict[str, Any] = {}
        self._labels: dict[str, list[Any]] = {}
        self._boxes = 0
        self._may_have_backgrounds = any(
            "url(" in (sheet.text or "") for sheet in page.root.iter("style")
        )
        self._offset = 0
        self.text = "".join(self._read(page.root))
        for mark in (*self.controls, *self.pictures, *self.buttons):
            owner = mark.element.get("form")
            if owner is not None:
                mark.form = self._forms_by_id.get(owner)
        if len(self.pictures) > MAX_PICTURES:
            self.pictures.sort(key=lambda picture: picture.form is None)
            self._limit(f"{len(self.pictures):,} pictures", f"{MAX_PICTURES}")
            del self.pictures[MAX_PICTURES:]
        self.fields = [mark for mark in self.controls if is_text(mark.element)]
        self._label_texts: dict[Mark, str] = {}

    def _limit(self, amount: str, looked_at: str) -> None:
        self.limits.append(f"the page has {amount}; detection looked at {looked_at}")

    # Reading

    def _read(self, root: Any) -> Iterator[str]:
        """Note what stands on the page; what comes out is its text, in pieces."""
        elements = 0
        for element, is_start in _walk(root, self._silent | {"svg", "head"}):
            text = element.text if is_start else element.tail
            if is_start:
                elements += 1
                self._note(element)
                if element.tag in self._silent:
                    continue
            elif element is self._form:
                self._form = None
            elif element is self._label:
                self._label = None
            if text and not text.isspace():
                piece = text.casefold() + " "
                self._offset += len(piece)
                yield piece
            if self._offset + ELEMENT * elements > MAX_PAGE:
                self._limit("more than 2 MB", "the first 2 MB")
                return

    def _note(self, element: Any) -> None:
        tag = element.tag
        if tag == "form":
            self._form = element
            self._forms_by_id.setdefault(element.get("id") or "", element)
        elif tag == "label":
            self._label = element
            self._labels.setdefault(element.get("for") or "", []).append(element)
        is_control = tag in _CONTROLS and _type(element) not in _NO_CONTROLS
        is_picture = self._is_picture(element)
        is_button = tag in _BUTTONS or element.get("onclick") is not None
        if not is_control and not is_picture and not is_button:
            return
        place = (self._offset, len(self.controls), self._form, self._label, is_control)
        mark = Mark(element, *place)
        if is_picture:
            self.pictures.append(mark)
        if is_button:
            self.buttons.append(mark)
        if is_control:
            self._note_control(mark)

    def _note_control(self, mark: Mark) -> None:
        if len(self.controls) < MAX_CONTROLS:
            self.controls.append(mark)
        elif not self._has_too_many_controls:
            self._has_too_many_controls = True
            self._limit(f"more than {MAX_CONTROLS:,} controls", "the first")

    _has_too_many_controls = False

    def _is_picture(self, element: Any) -> bool:
        if element.tag in _PICTURES:
            return True
        if element.tag == "input":
            return _type(element) == "image"
        return "url(" in attributes(element, "style")[0] or self._is_captchas_box(element)

    def _is_captchas_box(self, element: Any) -> bool:
        """Whether a style sheet gives an empty box that is called a captcha a background."""
        if not self._may_have_backgrounds or self._boxes >= MAX_BOXES:
            return False
        if len(element) or (element.text or "").strip():
            return False  # not a box that shows nothing but its background
        named = names_captcha(spelled_apart(attributes(element, "id", "class")))
        if named is None or not named.is_sure:
            return False
        self._boxes += 1
        return background(element, self.page) is not None

    # Asking

    def before(self, mark: Mark) -> str:
        """The text between the control before *mark* and *mark* itself."""
        start = self.controls[mark.rank - 1].offset if mark.rank else 0
        return self.text[max(start, mark.offset - NEARBY) : mark.offset]

    def after(self, mark: Mark) -> str:
        """The text between *mark* and the next control."""
        place = mark.rank + mark.is_control
        end = self.controls[place].offset if place < len(self.controls) else len(self.text)
        return self.text[mark.offset : min(end, mark.offset + NEARBY)]

    def around(self, mark: Mark, width: int = 2 * NEARBY) -> str:
        """The text before and after *mark*, whatever stands in it."""
        return self.text[max(0, mark.offset - width) : mark.offset + width]

    def label_text(self, mark: Mark) -> str:
        """All that a control says of itself: name, id, placeholder and labels."""
        if mark not in self._label_texts:
            self._label_texts[mark] = self._label_text(mark)
        return self._label_texts[mark]

    def _label_text(self, mark: Mark) -> str:
        control = mark.element
        said = attributes(control, "name", "id", "placeholder", "title", "aria-label")
        name = control.get("id")
        labels = [mark.label] if mark.label is not None else []
        labels += self._labels.get(name, [])[:3] if name else []
        said = [value[:MAX_SAID] for value in said]
        return " | ".join([*said, *map(beginning_of_text, labels)])[:MAX_ATTRIBUTE]


def _walk(root: Any, skipped: frozenset[str]) -> Iterator[tuple[Any, bool]]:
    """Elements as they begin (True) and end (False), without what nobody sees."""
    walker = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, element in walker:
        if event in ("comment", "pi"):
            yield element, False
            continue
        if event == "start" and element.tag in skipped:
            if element.tag == "head" and element.find(".//input") is not None:
                yield element, True  # a page without <body>, badly closed
                continue
            walker.skip_subtree()
        yield element, event == "start"


def _type(element: Any) -> str:
    return (element.get("type") or "").lower()


def attributes(element: Any, *names: str) -> list[str]:
    """The values of attributes, cut to what is searched; empty for those that are missing."""
    return [(element.get(name) or "")[:MAX_ATTRIBUTE] for name in names]


def beginning_of_text(element: Any, length: int = MAX_ATTRIBUTE) -> str:
    """The first characters of an element's text."""
    return " ".join(piece[:length] for piece in islice(element.itertext(), 10))[:length]
