"""How sure it is that a picture is a captcha.

What speaks for it adds up as independent chances do, 1 - (1 - a)(1 - b)...; what speaks against it
is a factor below 1. All weights stand in the two halves of one table below. They were set by hand;
docs/detection.md tells how well they do.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

from scrapy_acecaptcha.detect.document import NEARBY, Document, Mark, attributes, beginning_of_text
from scrapy_acecaptcha.detect.fields import AnswerFields, between
from scrapy_acecaptcha.detect.picture import Picture
from scrapy_acecaptcha.detect.vocabulary import (
    asks_to_read,
    is_common_word,
    loads_another,
    names_another,
    offers_another,
    spelled,
    spelled_apart,
    was_sent,
    without_reload,
)
from scrapy_acecaptcha.page.answer_field import answer_fields, matches_captcha

FOR = {
    # the picture's names, its own or those of the box around it
    "sure name": 0.75,
    "likely name": 0.75,
    "hint of a name": 0.3,
    "named box": 0.5,
    # texts: its description, its field's label, or what stands beside either
    "text: read an image": 0.75,
    "text: captcha": 0.6,
    "text: what is shown": 0.5,
    "text: enter letters": 0.5,
    "text: security code": 0.35,
    # its address
    "in the page": 0.1,
    "drawn": 0.2,
    "script's address": 0.15,
    "changing address": 0.15,
    # its size
    "captcha's size": 0.2,
    # another one can be had
    "description offers another": 0.5,
    "click loads another": 0.45,
    "button offers another": 0.45,
    "button loads another": 0.3,
    # its field
    "given field": 0.8,
    "field of a captcha": 0.75,
    "named field": 0.6,
    "field for a code": 0.4,
    "shared word": 0.5,
    "labelled field": 0.35,
    "short field": 0.1,
    "field beside it": 0.3,
    "only picture and field": 0.3,
}
"""What speaks for a captcha: the chance that a picture of which this alone is known is one."""

AGAINST = {
    "name of another": 0.15,
    "loading": 0.05,
    "file": 0.35,
    "icon": 0.05,
    "large": 0.2,
    "square": 0.2,
    "no field": 0.2,
    "far field": 0.4,
    "far field, both named": 0.9,
    "outside the form": 0.7,
    "outside the form, named": 0.95,
    "code that was sent": 0.15,
}
"""What speaks against a captcha: the factor that is left of its chances."""

FAR = 3 * NEARBY  # characters between a picture and the field that do not belong together
MAX_BUTTONS = 20  # before and behind a picture that may offer another one


class Evidence(NamedTuple):
    """Something that speaks for or against a captcha.

    :param kind: the key of its weight
    :param reason: what was seen, as a phrase
    """

    kind: str
    reason: str

    @property
    def is_against(self) -> bool:
        """Whether it speaks against a captcha."""
        return self.kind in AGAINST

    @property
    def told(self) -> str:
        """The reason with its weight, as users read it."""
        if self.kind in FOR:
            return f"{self.reason} ({FOR[self.kind]:g})"
        return f"but {self.reason} (x {AGAINST[self.kind]:g})"


def confidence(evidence: list[Evidence]) -> float:
    """The chance that a picture of which all this is known is a captcha, 0 to 1."""
    doubt = math.prod(1 - FOR[e.kind] for e in evidence if e.kind in FOR)
    return (1 - doubt) * math.prod(AGAINST[e.kind] for e in evidence if e.kind in AGAINST)


class Scoring:
    """Weighs the pictures of one page."""

    def __init__(self, document: Document, fields: AnswerFields) -> None:
        self._document = document
        self._fields = fields
        self._offers: dict[Mark, tuple[str, str] | None] = {}

    def may_be_captcha(self, picture: Picture) -> bool:
        """A quick look; of a page's many pictures it leaves few to weigh."""
        mark = picture.mark
        near = [f for f in self._fields.beside(mark) if abs(f.offset - mark.offset) <= FAR]
        return bool(picture.is_named or near) and picture.widget is None

    def evidence(self, picture: Picture, field: Mark | None) -> list[Evidence]:
        """All that speaks for and against *picture*, if *field* takes its answer."""
        found = [
            *self._of_names(picture),
            *self._of_address(picture),
            *_of_size(picture),
            *self._of_refresh(picture),
        ]
        if field is None:
            return [*found, Evidence("no field", "no text field goes with it")]
        return [
            *found,
            *self._of_field(picture, field),
            *self._of_place(picture, field),
            *self._of_text(picture, field),
        ]

    def _of_names(self, picture: Picture) -> Iterator[Evidence]:
        named, box = picture.named, picture.box_named
        if named and (picture.is_named or not box):
            yield Evidence(named.kind, f"it is called {named.words!r}")
        elif box:
            yield Evidence("named box", f"it stands in a box called {box!r}")
        if not picture.is_named and (described := asks_to_read(" | ".join(picture.description))):
            yield Evidence(described.kind, f"it is described as {described.words!r}")
        if another := _other_name(picture):
            yield Evidence("name of another", f"its name speaks of {another!r}")
        elif another := self._other_address(picture):
            yield Evidence("name of another", f"its address speaks of {another!r}")
        if loading := picture.loading:
            yield Evidence("loading", f"it shows that something is loading: {loading!r}")

    def _other_address(self, picture: Picture) -> str | None:
        """What else the image is by its address; of a captcha's, only the file's name counts."""
        if not picture.is_named:
            return names_another(" | ".join(picture.path_words), sure=False)
        if picture.is_script_made:
            return None
        return names_another(spelled(picture.file.rpartition(".")[0]), sure=True)

    def _of_address(self, picture: Picture) -> Iterator[Evidence]:
        if picture.is_data:
            yield Evidence("in the page", "it stands in the page itself")
        elif picture.element.tag in ("canvas", "svg"):
            yield Evidence("drawn", f"it is a <{picture.element.tag}>")
        elif picture.is_file and (picture.named is None or picture.named.kind != "sure name"):
            yield Evidence("file", f"it is a file: {picture.file}")
        elif picture.address:
            if picture.is_script_made:
                yield Evidence("script's address", "its address is a script's")
            if picture.is_changing:
                yield Evidence("changing address", "its address has a number as if by chance")

    def _of_refresh(self, picture: Picture) -> Iterator[Evidence]:
        if said := offers_another(" | ".join(picture.description)):
            kind = "description offers another"
            yield Evidence(kind, f"its description offers another one: {said!r}")
        elif _reloads(picture):
            yield Evidence("click loads another", "a click loads another one")
        for button in self._buttons_near(picture.mark):
            if offer := self._offer_of(button):
                yield Evidence(*offer)
                return

    def _buttons_near(self, picture: Mark) -> list[Mark]:
        buttons = self._document.buttons
        place = bisect_left(buttons, picture.offset, key=lambda button: button.offset)
        near = buttons[max(0, place - MAX_BUTTONS) : place + MAX_BUTTONS]
        return [
            button
            for button in near
            if abs(button.offset - picture.offset) <= NEARBY
            and abs(button.rank - picture.rank) <= 1
            and button.element is not picture.element
        ]

    def _offer_of(self, button: Mark) -> tuple[str, str] | None:
        """What a link or button says of getting another image."""
        if button not in self._offers:
            self._offers[button] = _offer_of(button.element)
        return self._offers[button]

    def _of_field(self, picture: Picture, field: Mark) -> Iterator[Evidence]:
        name = _name_of(field)
        said = self._fields.said(field)
        asked, named = asks_to_read(said), self._fields.named(field)
        if self._fields.is_given(field):
            yield Evidence("given field", f"the rule names the field {name!r}")
        elif matches_captcha(said):
            yield Evidence("field of a captcha", f"the field {name!r} speaks of a captcha")
        elif asked and asked.kind != "text: security code":
            yield Evidence(asked.kind, f"the field {name!r} asks for {asked.words!r}")
        elif named and named.is_sure:
            yield Evidence("named field", f"the field is called {named.words!r}")
        elif asked or answer_fields([said]):
            yield Evidence("field for a code", f"the field {name!r} asks for a code")
        if word := _shared_word(picture, field):
            yield Evidence("shared word", f"image and field are both called {word!r}")
        length, size = attributes(field.element, "maxlength", "size")
        is_short = re.fullmatch(r"[3-9]|10", length or size)
        if is_short or field.element.get("autocomplete") == "off":
            yield Evidence("short field", "the field is short or not to be remembered")

    def _of_place(self, picture: Picture, field: Mark) -> Iterator[Evidence]:
        mark = picture.mark
        is_named = self._is_sure(field) or answer_fields([self._fields.said(field)])
        both = ", both named" if picture.is_named and is_named else ""
        one = ", named" if picture.is_named or is_named else ""
        if between(mark, field) or abs(field.offset - mark.offset) > FAR:
            reason = "other fields or much text stand between it and the field"
            yield Evidence(f"far field{both}", reason)
        else:
            yield Evidence("field beside it", "the field is next to it")
        if len(self._fields.all) == len(self._document.pictures) == 1:
            yield Evidence("only picture and field", "they are the page's only picture and field")
        # A field may be tied to a form elsewhere; only one that stands in it has an inside.
        is_inside = field.form is not None and field.element.get("form") is None
        if is_inside and mark.form is None:
            yield Evidence(f"outside the form{one}", "it stands outside the field's form")

    def _is_sure(self, field: Mark) -> bool:
        """Whether a field is one for a captcha's answer by its own words."""
        named = self._fields.named(field)
        if self._fields.is_given(field) or matches_captcha(self._fields.said(field)):
            return True
        return named is not None and named.is_sure

    def _is_labelled(self, field: Mark) -> bool:
        """Whether the page asks beside *field*, in words, for a captcha."""
        asked = self._fields.asked(field)
        return asked is not None and asked.kind != "text: security code"

    def _of_text(self, picture: Picture, field: Mark) -> Iterator[Evidence]:
        document, mark = self._document, picture.mark
        texts = [document.before(field), document.after(field)]
        if not between(mark, field):
            texts += [document.before(mark), document.after(mark)]
        asked = max(
            filter(None, map(asks_to_read, texts)), key=lambda match: FOR[match.kind], default=None
        )
        if asked:
            yield Evidence(asked.kind, f"the text beside it says {asked.words!r}")
        if not between(mark, field) and _is_made(picture) and self._is_labelled(field):
            yield Evidence("labelled field", "a script makes it, and its field asks for a captcha")
        if picture.is_named or self._is_sure(field) or _reloads(picture):
            return
        if sent := was_sent(document.around(field)) or was_sent(document.around(mark)):
            yield Evidence("code that was sent", f"the code comes by another way: {sent!r}")


def _other_name(picture: Picture) -> str | None:
    """What else the image is by its names and description.

    What is said of a captcha may well be `click to refresh`, so that its names decide; and even
    these may be `refreshCaptcha` where a script makes the image: most buttons are files.
    """
    names = spelled_apart(picture.own_names)
    if not picture.is_named:
        return names_another(f"{names} | {spelled_apart(picture.description)}", sure=False)
    return names_another(without_reload(names) if picture.is_script_made else names, sure=True)


def _of_size(picture: Picture) -> Iterator[Evidence]:
    if picture.size is None:
        return
    width, height = picture.size
    size = f"{width} x {height} pixels"
    is_small = max(width, height) <= 40 or min(width, height) <= 12
    if is_small and not (picture.is_named and picture.is_script_made):  # most icons are files
        yield Evidence("icon", f"it is an icon of {size}")
    elif width > 450 or height > 180:
        yield Evidence("large", f"it is large, {size}")
    elif height > 60 and width < 1.25 * height:
        yield Evidence("square", f"it is a square of {size}")
    elif 40 < width <= 350 and 16 < height <= 130 and width >= 1.4 * height:
        yield Evidence("captcha's size", f"it has a captcha's size, {size}")


def _is_made(picture: Picture) -> bool:
    """Whether a script makes the image, on the server or in the page."""
    return picture.is_script_made or picture.is_data or not (picture.address or _is_svg(picture))


def _is_svg(picture: Picture) -> bool:
    return bool(picture.element.tag == "svg")


def _reloads(picture: Picture) -> bool:
    """Whether a click on the picture loads another one."""
    return loads_another(attributes(picture.element, "onclick")[0])


def _offer_of(element: Any) -> tuple[str, str] | None:
    tag = element.tag
    kind, script, href = attributes(element, "type", "onclick", "href")
    if tag == "input" and kind.lower() not in ("button", "submit", "image"):
        return None
    said = attributes(element, "title", "value", "alt", "aria-label")
    if tag in ("a", "button"):
        said.append(beginning_of_text(element, 80))
    if offered := offers_another(" ".join(" ".join(said).split())):
        reason = f"a link or button beside it offers another: {offered!r}"
        return "button offers another", reason
    if tag != "img" and loads_another(script + " " + href.partition("javascript:")[2]):
        return "button loads another", "a script beside it loads another"
    return None


def _name_of(field: Mark) -> str:
    name, own_id = attributes(field.element, "name", "id")
    return name or own_id


def _shared_word(picture: Picture, field: Mark) -> str | None:
    """An unusual word that the image's file and the field are both called."""
    if picture.is_file:
        return None
    stem = spelled(re.sub(r"\.\w+$", "", picture.file)).split()
    names = {
        word for name in attributes(field.element, "name", "id") for word in spelled(name).split()
    }
    shared = (word for word in stem if word in names and not is_common_word(word))
    return next(shared, None)
