"""Which text field of a page takes the answer that goes with a picture."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from itertools import islice
from typing import Any

from scrapy_acecaptcha.detect.document import Document, Mark, attributes
from scrapy_acecaptcha.detect.vocabulary import (
    Match,
    asks_to_read,
    is_search,
    is_setting,
    names_captcha,
    spelled_apart,
    widget,
    without_other_codes,
)
from scrapy_acecaptcha.page.answer_field import (
    answer_fields,
    is_to_stay_empty,
    matches_captcha,
)
from scrapy_acecaptcha.page.controls import MAX_SAID

MAX_ASKED = 300  # fields whose texts are read; those near pictures come first
CONTROL = 200  # characters of text that a control between a picture and a field counts for

BOXES = 3  # around a field that may hide it
_HIDING_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|(?:left|top|text-indent)\s*:\s*-\d{3}|"
    r"opacity\s*:\s*0(?![.\d])",
    re.IGNORECASE,
)
_HIDING_CLASS = re.compile(
    r"honey|(?:^|\s)(?:hidden|d-none|visually-hidden|sr-only)(?:\s|$)", re.IGNORECASE
)
_NOT_FOR_ANSWERS = {"email", "url", "search", "date"}


class AnswerFields:
    """The text fields of a page that could take an answer.

    :param given: the field for the answer, if the rule names it
    :param form: the form, if the rule names it
    """

    def __init__(self, document: Document, given: Any = None, form: Any = None) -> None:
        self._document = document
        self._given = given
        self._form = form
        self.all = [mark for mark in document.fields if self._may_take_answer(mark)]
        self._at_rank = {mark.rank: mark for mark in self.all}
        self._of_form: dict[Any, list[Mark]] = defaultdict(list)
        for mark in self.all:
            self._of_form[mark.form].append(mark)
        self._best_of_form: dict[Any, list[Mark]] = {}
        self._asked: dict[Mark, Match | None] = {}

    def is_given(self, mark: Mark) -> bool:
        """Whether the rule names *mark*."""
        return mark.element is self._given

    def is_inside(self, mark: Mark) -> bool:
        """Whether *mark* is in the form that the rule names."""
        if mark.form is self._form:
            return True
        return any(one is self._form for one in mark.element.iterancestors())

    def beside(self, mark: Mark) -> list[Mark]:
        """The fields before and after *mark* with no other control in between."""
        near = (self._at_rank.get(mark.rank - 1), self._at_rank.get(mark.rank))
        return [field for field in near if field is not None]

    def best_for(self, picture: Mark) -> Mark | None:
        """The field for the answer to *picture*; None if none can be meant."""
        if picture.form is not None:
            best = self._best_of(picture.form, self._of_form.get(picture.form, []))
        else:
            best = self._best_of("all", self.all)
        place = bisect_left(best, picture.rank, key=lambda mark: mark.rank)
        near = best[max(0, place - 1) : place + 1]  # the last one before it, the first one behind
        return min(near, key=lambda mark: distance(picture, mark), default=None)

    def said(self, mark: Mark) -> str:
        """What a field says of itself, without what it says of codes that are not in images."""
        return without_other_codes(self._document.label_text(mark))

    def asked(self, mark: Mark) -> Match | None:
        """What a field, or the text before it, says of what to enter."""
        if mark not in self._asked:
            if len(self._asked) >= MAX_ASKED:
                return None
            text = self._document.label_text(mark) + " " + self._document.before(mark)
            self._asked[mark] = asks_to_read(text)
        return self._asked[mark]

    def named(self, mark: Mark) -> Match | None:
        """What of a field's names speaks for a captcha."""
        names = spelled_apart(attributes(mark.element, "id", "name", "class"))
        return names_captcha(without_other_codes(names))

    def _best_of(self, key: Any, fields: list[Mark]) -> list[Mark]:
        """Those of *fields* that speak of a captcha most clearly, in the page's order."""
        if key not in self._best_of_form:
            self._best_of_form[key] = self._seen(fields, *self._clearest(fields))
        return self._best_of_form[key]

    def _seen(self, fields: list[Mark], most: float, chosen: list[Mark]) -> list[Mark]:
        """*chosen* without traps for robots, which people do not see, if others are to be seen."""
        if not most:
            return chosen
        shown = [mark for mark in chosen if not _is_hidden(mark.element)]
        if not shown:
            visible = [mark for mark in fields if not _is_hidden(mark.element)]
            most, shown = self._clearest(visible)
        return shown if most and shown else chosen

    def _clearest(self, fields: list[Mark]) -> tuple[float, list[Mark]]:
        speaking = set(answer_fields([self.said(mark) for mark in fields]))
        clear = [self._clearness(mark, i in speaking) for i, mark in enumerate(fields)]
        most = max(clear, default=0)
        return most, [mark for mark, how in zip(fields, clear, strict=True) if how == most]

    def _clearness(self, mark: Mark, is_speaking: bool) -> float:
        asked = self.asked(mark)
        clear = _CLEARNESS[asked.kind] if asked else 0
        if not is_speaking:
            return clear
        named = self.named(mark)
        is_sure = named is not None and named.is_sure
        return max(clear, _CLEARNESS["its names" if is_sure else "its own words"])

    def _may_take_answer(self, mark: Mark) -> bool:
        if self._given is not None:
            return mark.element is self._given
        element = mark.element
        said = self._document.label_text(mark)
        kind = (element.get("type") or "").lower()
        own = attributes(element, "name", "id", "placeholder")
        if kind == "password" and not any(map(matches_captcha, own)):
            return False  # though some hide what is typed, even of a captcha
        if kind in _NOT_FOR_ANSWERS or widget(said):
            return False
        if is_to_stay_empty(said) or (self._form is not None and not self.is_inside(mark)):
            return False
        name, value = attributes(element, "name", "value")
        if re.fullmatch(r"\d+", value):  # a number that stands there already is often a setting
            return matches_captcha(said) and not is_setting(name)
        return bool(answer_fields([said])) or not is_search(name[:MAX_SAID])


_CLEARNESS = {
    "text: read an image": 5,
    "text: captcha": 4,
    "text: what is shown": 3,
    "text: enter letters": 3,
    "its names": 4,
    "its own words": 3,
    "text: security code": 2,
}
"""How clearly words beside a field say that it is the one for the answer: an order, no weights."""


def _is_hidden(element: Any) -> bool:
    """Whether the page's source hides a field, or the box around it, from people."""
    around = [element, *islice(element.iterancestors(), BOXES)]
    return any(one.get("hidden") is not None or _hides(one) for one in around)


def _hides(element: Any) -> bool:
    style, names = attributes(element, "style", "class")
    return bool(style and _HIDING_STYLE.search(style)) or bool(_HIDING_CLASS.search(names))


def between(picture: Mark, mark: Mark) -> int:
    """Number of controls between a picture and a field."""
    is_behind = mark.rank >= picture.rank
    return mark.rank - picture.rank if is_behind else picture.rank - mark.rank - 1


def distance(picture: Mark, mark: Mark) -> int:
    """How far a field is from a picture, in characters."""
    return abs(mark.offset - picture.offset) + CONTROL * between(picture, mark)
