"""The form around a captcha on a page in a browser: found, filled in and sent.

Methods are generators that yield Playwright's calls, which are awaitables in one API and results in
the other; the drivers of flow.py run both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypedDict

from scrapy_acecaptcha.errors import RuleError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.page.answer_field import answer_fields, undecided
from scrapy_acecaptcha.playwright.in_page import ADD_HIDDEN, CONTROLS, SET
from scrapy_acecaptcha.rules import CaptchaRule, FieldValue
from scrapy_acecaptcha.selectors import is_xpath, same_text, text_of

POLL_MS = 50

_NO_TEXT = {
    *("hidden", "checkbox", "radio", "file", "range", "color", "date"),
    *("button", "reset", "submit", "image"),
}


class Control(TypedDict):
    """What in_page.CONTROLS tells of a control."""

    index: int
    tag: str
    type: str
    name: str
    id: str
    value: str
    said: str
    caption: str
    mine: bool
    in_form: bool
    shown: bool
    free: bool
    is_image: bool
    options: list[list[str]]


def locate(scope: Any, selector: str) -> Any:
    """Make a locator of a selector as rules write it: Playwright's own, or our short XPath."""
    if is_xpath(selector) and not selector.startswith("xpath="):
        selector = f"xpath={selector}"
    return scope.locator(selector)


def first_shown(scope: Any, selector: str) -> Any:
    """The first element that *selector* matches and that can be seen."""
    return locate(scope, selector).locator("visible=true").first


class PageForm:
    """The form that a rule speaks of.

    :param scope: the page or frame in which it stands
    :param image: locator of the captcha's image
    :param timeout: milliseconds for each thing that is done to it
    """

    def __init__(self, scope: Any, rule: CaptchaRule, image: Any, timeout: float) -> None:
        self.scope = scope
        self.rule = rule
        self._image = image
        self._timeout = timeout
        self._all = scope.locator("input, select, textarea, button")

    # The rule's fields

    def fill(self, name: str, value: FieldValue) -> Steps[None]:
        """Set the control called *name*, whatever its kind; add one that a script would add.

        :raises RuleError: there is no such option, or no form to add a control to
        """
        values = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        controls = [c for c in (yield self._mine()) if c["name"] == name]
        boxes = [c for c in controls if c["type"] in ("checkbox", "radio")]
        selects = [c for c in controls if c["tag"] == "select"]
        texts = [c for c in controls if c not in boxes and c not in selects]
        for box in boxes:
            wanted = value if isinstance(value, bool) else box["value"] in values
            if wanted or box["type"] == "checkbox":
                yield self._tick(box, wanted)
        for control in selects:
            yield self._choose(control, values)
        if not boxes and not selects:
            for control, text in zip(texts, values, strict=False):
                yield self._write(control, text)
            for text in values[len(texts) :]:
                yield self._add(name, text)

    def _tick(self, box: Control, wanted: bool) -> Steps[None]:
        if box["shown"]:
            yield self._nth(box).set_checked(wanted, timeout=self._timeout)
        else:  # drawn anew by CSS, as most are nowadays
            yield self._nth(box).evaluate(SET, wanted)

    def _write(self, control: Control, text: str) -> Steps[None]:
        if control["value"] == text:
            return
        if control["shown"]:
            yield self._nth(control).fill(text, timeout=self._timeout)
        else:
            yield self._nth(control).evaluate(SET, text)

    def _choose(self, control: Control, values: Sequence[str]) -> Steps[None]:
        """Choose options by value or by what they say, once they are there."""
        if [control["value"]] == list(values):
            return
        give_up = time.monotonic() + self._timeout / 1000
        while True:
            known = {text for option in control["options"] for text in option}
            missing = [value for value in values if value not in known]
            if not missing:
                break
            if time.monotonic() > give_up:
                listed = ", ".join(repr(option[0]) for option in control["options"][:20])
                raise self._wrong(
                    "fields",
                    f"{control['name']!r} has no option {missing[0]!r}; it has {listed}",
                )
            yield self.scope.wait_for_timeout(POLL_MS)
            control = next(
                (c for c in (yield self._mine()) if c["name"] == control["name"]), control
            )
        yield self._nth(control).select_option(list(values), force=True, timeout=self._timeout)

    def _add(self, name: str, value: str) -> Steps[None]:
        home = [c for c in (yield self._mine()) if c["in_form"]]
        if not home:
            raise self._wrong("fields", f"there is no control called {name!r}")
        yield self._nth(home[0]).evaluate(ADD_HIDDEN, [name, value])

    # The answer

    def type(self, answer: str) -> Steps[None]:
        """Type *answer* key by key, as forms may listen to keys.

        :raises RuleError: the field for it cannot be told
        """
        field = yield self._answer_field()
        yield field.fill("", timeout=self._timeout)
        yield field.press_sequentially(answer, timeout=self._timeout)

    def send(self) -> Steps[None]:
        """Press the button, or Enter where there is none.

        :raises RuleError: the rule's button is not on the page
        """
        controls = yield self._mine()
        if self.rule.submit is None:
            # A captcha that is an <input type=image> would submit the form, too.
            buttons = [
                c
                for c in controls
                if c["type"] in ("submit", "image")
                and c["tag"] in ("button", "input")
                and (c["in_form"] and c["shown"] and not c["is_image"])
            ]
            if not buttons:
                yield (yield self._answer_field()).press("Enter", timeout=self._timeout)
                return
            button = self._nth(buttons[0])
        else:
            button = yield self._named_button(self.rule.submit, controls)
        yield button.click(timeout=self._timeout)

    def _named_button(self, selector: str, controls: list[Control]) -> Steps[Any]:
        """The button of the rule. A text may stand elsewhere on the page, too: buttons first."""
        text = text_of(selector)
        if text is not None:
            for control in controls:
                is_button = control["type"] in ("submit", "button", "image", "reset")
                if is_button and control["shown"] and same_text(control["caption"], text):
                    return self._nth(control)
        if not (yield locate(self.scope, selector).count()):
            raise self._wrong("submit", f"no button matches {selector!r}")
        return first_shown(self.scope, selector)

    def _answer_field(self) -> Steps[Any]:
        if self.rule.input is not None:
            return (yield self._named_element("input"))
        texts = [
            c
            for c in (yield self._mine())
            if c["tag"] == "input"
            and c["type"] not in _NO_TEXT
            and (c["shown"] and c["free"] and c["name"] not in self.rule.fields)
        ]
        found = answer_fields([c["said"] for c in texts])
        if len(found) == 1:
            return self._nth(texts[found[0]])
        texts = [texts[i] for i in found] or texts
        raise self._wrong("input", undecided([_named(c) for c in texts]))

    # What the form is made of

    def _mine(self) -> Steps[list[Control]]:
        """The controls of the form, as they are now."""
        elements = [self._image, (yield self._named_element("input"))]
        elements.append((yield self._named_element("form")))
        handles = []
        for element in elements:
            handles.append(element and (yield element.element_handle(timeout=self._timeout)))
        controls: list[Control] = yield self._all.evaluate_all(CONTROLS, handles)
        for handle in filter(None, handles):
            yield handle.dispose()
        return [c for c in controls if c["mine"]]

    def _named_element(self, field: str) -> Steps[Any]:
        """The element that the rule names, best one that can be seen; None if it names none."""
        selector = getattr(self.rule, field)
        if selector is None:
            return None
        shown = first_shown(self.scope, selector)
        if (yield shown.count()):
            return shown
        hidden = locate(self.scope, selector).first
        if not (yield hidden.count()):
            raise self._wrong(field, f"no element matches {selector!r}")
        return hidden

    def _nth(self, control: Control) -> Any:
        return self._all.nth(control["index"])

    def _wrong(self, field: str, message: str) -> RuleError:
        return RuleError(message, field=field, host=self.scope.url)


def _named(control: Control) -> str:
    return f"<input type={control['type']} name={control['name']!r} id={control['id']!r}>"
