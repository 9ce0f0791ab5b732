"""Which button of a page sends the answer."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import islice
from typing import Any

from scrapy_acecaptcha.detect.document import Document, Mark, attributes, beginning_of_text
from scrapy_acecaptcha.detect.vocabulary import does_not_send, loads_another, sends, spelled
from scrapy_acecaptcha.page.controls import SUBMIT_TYPES, is_submit, kind_of

MAX_BUTTONS = 40  # of a form that are looked at
MAX_SCRIPT = 200  # characters of a handler whose function's name may tell what it does


class Buttons:
    """The buttons of a page.

    :param document: the page
    """

    def __init__(self, document: Document) -> None:
        self._of_form: dict[Any, list[Mark]] = defaultdict(list)
        for mark in document.buttons:
            self._of_form[mark.form].append(mark)

    def for_field(self, field: Mark, picture: Mark) -> Any:
        """The button that sends *field*, where a form's first button is not the one.

        Left out are buttons that close, reset, fetch another image, send a code by another way or
        lead elsewhere. Of the others it is the first one that submits and stands behind both the
        field and the picture, else the first that submits, else one that a script listens to.

        :return: None where the form's first button sends it, and where the form has none
        """
        near = [
            button
            for button in self._of_form[field.form]
            if button.element not in (field.element, picture.element)
        ]
        behind = max(field.offset, picture.offset)
        own = [b for b in near if is_submit(b.element)]
        if field.form is None:  # the page is a part of one, or its script sends the answer
            chosen = _first_to_click(near, behind) or _best_submit(own, behind)
            return chosen.element if chosen else None
        chosen = _best_submit(own, behind) or _first_to_click(near, behind, must_say_so=bool(own))
        return chosen.element if chosen and chosen not in own[:1] else None


def _best_submit(own: list[Mark], behind: int) -> Mark | None:
    """The first of a form's submit buttons that stands behind a place; else the first of all."""
    sending = [b for b in islice(own, MAX_BUTTONS) if not _is_other(b.element)]
    return min(sending, key=lambda button: button.offset < behind, default=None)


def _first_to_click(near: list[Mark], behind: int, *, must_say_so: bool = False) -> Mark | None:
    """The first element behind a place that sends an answer, if only by a script."""
    later = islice((b for b in near if b.offset >= behind), MAX_BUTTONS)
    return next((b for b in later if _may_send(b.element, must_say_so=must_say_so)), None)


def _may_send(element: Any, *, must_say_so: bool) -> bool:
    """Whether *element* sends the form, by itself or by a script, when it is clicked on."""
    if _is_other(element):
        return False
    is_button = element.tag == "button" or kind_of(element) in ("button", *SUBMIT_TYPES)
    if is_button and not must_say_so:
        return True
    return (is_button or element.tag in ("a", "img")) and sends(_said(element))


def _is_other(element: Any) -> bool:
    if does_not_send(_said(element)):
        return True
    script, style = attributes(element, "onclick", "style")
    is_hidden = re.search(r"display\s*:\s*none", style) is not None
    leads_away = re.search(r"location(?:\.href)?\s*=|history\.", script) is not None
    return is_hidden or leads_away or loads_another(script[:MAX_SCRIPT])


def _said(element: Any) -> str:
    """What a button says: its text, its names, what its picture is called."""
    names = attributes(element, "id", "name", "class", "data-dismiss", "data-bs-dismiss")
    told = attributes(element, "value", "title", "aria-label", "alt")
    source, script = attributes(element, "src", "onclick")
    file = source.rpartition("/")[2].partition("?")[0]
    called = re.match(r"\s*(?:javascript:|return\s)?\s*([\w.]+)\s*\(", script)
    text = " ".join(beginning_of_text(element, 80).split())
    words = map(spelled, [*names, file, called[1] if called else ""])
    return " | ".join(filter(None, [*words, *told, text]))
