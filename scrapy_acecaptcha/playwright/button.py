"""The button that sends the form around a captcha on a page in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.page.controls import BUTTON_TYPES
from scrapy_acecaptcha.playwright.controls import is_submit_button
from scrapy_acecaptcha.playwright.in_page import CONTROLS
from scrapy_acecaptcha.playwright.scope import Scope, shown
from scrapy_acecaptcha.rules import CaptchaRule

if TYPE_CHECKING:
    from scrapy_acecaptcha.playwright.form import PageForm

_CLICKABLE = "a, label, summary, [role=button], [role=link], [role=menuitem], [role=tab]"
_QUOTED = re.compile(r"""^text=(["'])(.*)\1$""", re.S)


class Button:
    """The button of *form*: the one that the rule names, or the form's first."""

    def __init__(self, scope: Scope, rule: CaptchaRule, form: PageForm) -> None:
        self._scope = scope
        self._rule = rule
        self._form = form

    def find(self) -> Steps[Any]:
        """The button to press; None where the form has none and the rule names none."""
        if self._rule.submit is not None:
            return (yield self._named_button(self._rule.submit))
        buttons = [c for c in (yield self._form.controls()) if is_submit_button(c)]
        return self._form.nth(buttons[0]) if buttons else None

    def _named_button(self, selector: str) -> Steps[Any]:
        """The button of the rule. A text may stand elsewhere on the page, too: buttons first."""
        if "submit" not in self._scope.locators and selector.startswith("text="):
            button = yield self._button_with_text(selector)
            if button is not None:
                return button
        button = yield self._scope.only_shown(self._rule, "submit")
        if button is None:
            is_there = yield self._scope.locator(self._rule, "submit").count()
            raise self._scope.missing(self._rule, "submit", bool(is_there))
        return button

    def _button_with_text(self, selector: str) -> Steps[Any]:
        """The button with a text: the whole of it in quotes, else whatever the case, or a part."""
        quoted = _QUOTED.match(selector)
        text = " ".join((quoted.group(2) if quoted else selector[len("text=") :]).split())
        captioned: list[tuple[str, Any, str]] = yield self._captioned()
        found = _matching([caption for caption, _, _ in captioned], text, exactly=bool(quoted))
        if len(found) > 1:
            raise self._scope.ambiguous("submit", selector, [captioned[i][2] for i in found])
        return captioned[found[0]][1] if found else None

    def _captioned(self) -> Steps[list[tuple[str, Any, str]]]:
        """Whatever can be clicked: what it says, its locator, and what messages call it."""
        found = [
            (control, self._form.nth(control))
            for control in (yield self._form.controls())
            if control["type"] in BUTTON_TYPES and control["shown"]
        ]
        links = shown(self._scope.frame.locator(_CLICKABLE))
        for place, control in enumerate((yield links.evaluate_all(CONTROLS, [None] * 3))):
            found.append((control, links.nth(place)))
        return [(" ".join((c["caption"] or "").split()), one, c["markup"]) for c, one in found]


def _matching(captions: list[str], text: str, *, exactly: bool) -> list[int]:
    """Places of the captions that say *text*: as it is, else whatever the case, else as a part."""
    low = text.casefold()
    tests: list[Callable[[str], bool]] = [
        lambda caption: caption == text,
        lambda caption: caption.casefold() == low,
        lambda caption: low in caption.casefold(),
    ]
    for matches in tests[:1] if exactly else tests:
        found = [place for place, caption in enumerate(captions) if matches(caption)]
        if found:
            return found
    return []
