"""The form around a captcha on a page in a browser: found, filled in and sent.

Methods are generators that yield Playwright's calls, which are awaitables in one API and results in
the other; the drivers of flow.py run both. What is not there yet is waited for, as pages are built
by scripts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from scrapy_acecaptcha.errors import CaptchaFormError, CaptchaNotFound, RuleError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.page.answer_field import answer_fields, undecided
from scrapy_acecaptcha.page.controls import BUTTON_TYPES
from scrapy_acecaptcha.playwright.button import Button
from scrapy_acecaptcha.playwright.controls import (
    Control,
    is_text_field,
    key_of,
    named,
    state_of,
)
from scrapy_acecaptcha.playwright.in_page import CONTROLS, HIT, SET
from scrapy_acecaptcha.playwright.scope import POLL_MS, Scope, deadline, shown
from scrapy_acecaptcha.rules import CaptchaRule, FieldValue

_UNTOUCHED = BUTTON_TYPES | {"hidden", "file"}


class PageForm:
    """The form that a rule speaks of.

    :param scope: where it stands
    :param image: locator of the captcha's image; None where the form has none any more
    :param timeout: milliseconds for each thing that is done to it
    :param of: name or id of a control of the form that has no captcha any more
    """

    def __init__(
        self, scope: Scope, rule: CaptchaRule, image: Any, timeout: float, of: str = ""
    ) -> None:
        self.rule = rule
        self._scope = scope
        self._image = image
        self._of = of
        self._timeout = timeout
        self._all = scope.frame.locator("input, select, textarea, button")
        self._button = Button(scope, rule, self)
        self._fields: list[Any] = []  # for the answer: one, or one for each of its characters
        self.field_key = ""  # a selector that finds the field again

    # The form's other fields

    def fill(self, name: str, value: FieldValue) -> Steps[None]:
        """Set the control called *name*, whatever its kind.

        :raises RuleError: there is no such control or option
        """
        controls: list[Control] = yield self._wait_for(lambda: self._named(name))
        values = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        boxes = [c for c in controls if c["type"] in ("checkbox", "radio")]
        selects = [c for c in controls if c["tag"] == "select"]
        texts = [c for c in controls if c not in boxes and c not in selects]
        for box in boxes:
            wanted = value if isinstance(value, bool) else box["value"] in values
            if wanted or box["type"] == "checkbox":
                yield self._tick(box, wanted)
        for control in selects:
            yield self._choose(control, values)
        for control, text in zip(texts, values, strict=False):
            yield self._write(control, text)

    def _named(self, name: str) -> Steps[list[Control]]:
        mine = yield self.controls()
        # Forms that scripts send often have controls without names.
        found = [c for c in mine if c["name"] == name] or [c for c in mine if c["id"] == name]
        if not found:
            known = {c["name"] or c["id"]: None for c in mine}
            listed = ", ".join(repr(one) for one in known if one) or "no control with a name"
            raise self._wrong("fields", f"there is no control called {name!r}; there is {listed}")
        return found

    def _tick(self, box: Control, wanted: bool) -> Steps[None]:
        if box["checked"] == wanted:
            return
        if box["shown"]:
            yield self.nth(box).set_checked(wanted, timeout=self._timeout)
        else:  # drawn anew by CSS, as most are nowadays
            yield self.nth(box).evaluate(SET, wanted)

    def _write(self, control: Control, text: str) -> Steps[None]:
        if control["value"] == text:
            return
        if control["shown"]:
            yield self.nth(control).fill(text, timeout=self._timeout)
        else:
            yield self.nth(control).evaluate(SET, text)

    def _choose(self, control: Control, values: Sequence[str]) -> Steps[None]:
        """Choose options by value or by what they say, once they are there."""
        if control["chosen"] == list(values):
            return
        control = yield self._wait_for(lambda: self._with_options(control, values))
        yield self.nth(control).select_option(list(values), force=True, timeout=self._timeout)

    def _with_options(self, control: Control, values: Sequence[str]) -> Steps[Control]:
        for now in (yield self.controls()):
            if (now["name"], now["id"], now["tag"]) == (control["name"], control["id"], "select"):
                control = now
                break
        known = {text for option in control["options"] for text in option}
        missing = [value for value in values if value not in known]
        if missing:
            listed = ", ".join(repr(option[0]) for option in control["options"][:20])
            name = control["name"] or control["id"]
            raise self._wrong("fields", f"{name!r} has no option {missing[0]!r}; it has {listed}")
        return control

    def filled_in(self) -> Steps[list[Control]]:
        """The controls that the user may have filled in, as they are now.

        Not hidden ones: these hold what the site wants back unchanged.
        """
        answer = []
        for field in self._fields:
            answer += yield field.evaluate_all(CONTROLS, [None] * 3)
        taken = {key_of(c) for c in answer}
        return [
            c
            for c in (yield self.controls())
            if c["type"] not in _UNTOUCHED
            and c["tag"] != "button"
            and (c["shown"] and c["free"] and key_of(c) not in taken)
            and (c["name"] or c["id"])
            and not {c["name"], c["id"]} & set(self.rule.fields)
        ]

    def visible_names(self) -> Steps[set[str]]:
        """What the controls are called that stand on the page."""
        return {c["name"] or c["id"] for c in (yield self.controls()) if c["type"] != "hidden"}

    def restore(self, before: Sequence[Control]) -> Steps[bool]:
        """Fill in again what *before* says was filled in; True if something was missing."""
        is_changed = False
        left = list(before)
        for control in (yield self.filled_in()):
            old = next((c for c in left if key_of(c) == key_of(control)), None)
            if old is None:
                continue
            left.remove(old)
            if state_of(old) != state_of(control):
                is_changed = True
                yield self._set_again(control, old)
        return is_changed

    def _set_again(self, control: Control, old: Control) -> Steps[None]:
        if control["type"] in ("checkbox", "radio"):
            if old["checked"] or control["type"] == "checkbox":
                yield self._tick(control, old["checked"])
        elif control["tag"] == "select":
            yield self._choose(control, old["chosen"])
        else:
            yield self._write(control, old["value"])

    # The answer

    def prepare(self) -> Steps[None]:
        """Find field and button, as long as nothing is paid for.

        :raises RuleError: they cannot be told
        :raises CaptchaFormError: the field cannot be written to, or something lies over the button
        """
        yield self._wait_for(self._find_fields)
        yield self._wait_for(self._check_writable)
        yield self._wait_for(self._check_button)

    def _find_fields(self) -> Steps[None]:
        if self.rule.input is not None:
            yield self._find_named_fields()
            return
        mine: list[Control] = yield self.controls()
        texts = [c for c in mine if is_text_field(c) and c["name"] not in self.rule.fields]
        chosen = self._chosen(texts)
        self._fields = [self.nth(c) for c in chosen]
        name = "id" if chosen[0]["id"] else "name"
        value = chosen[0]["id"] or chosen[0]["name"]
        self.field_key = f'input[{name}="{value}"]' if value and '"' not in value else ""

    def _chosen(self, texts: list[Control]) -> list[Control]:
        """The text field that is for the answer, or one for each of its characters.

        :raises RuleError: it cannot be told
        """
        found = answer_fields([c["said"] for c in texts])
        boxes = [c for c in texts if c["is_box"]]
        if len(found) == 1:
            return [texts[found[0]]]
        if len(boxes) > 2 and len(boxes) == len(found or texts):
            return boxes
        candidates = [texts[i] for i in found] or texts
        raise self._wrong("input", undecided([named(c) for c in candidates]))

    def _find_named_fields(self) -> Steps[None]:
        """The field that the rule names, or one field for each character."""
        named = self._scope.locator(self.rule, "input")
        visible = shown(named)
        controls: list[Control] = yield visible.evaluate_all(CONTROLS, [None, None, None])
        if not controls:
            is_there = yield named.count()
            raise self._scope.missing(self.rule, "input", bool(is_there))
        boxes = [c for c in controls if c["tag"] == "input" and c["is_box"]]
        if len(controls) > 1 and len(boxes) < len(controls):
            names = [c["markup"] for c in controls]
            raise self._scope.ambiguous("input", str(self.rule.input), names)
        self._fields = [visible.nth(place) for place in range(len(controls))]

    def _check_writable(self) -> Steps[None]:
        """Refuse a field that cannot be written to. Some can only be once they have the focus."""
        field = self._fields[0]
        if not (yield field.is_editable(timeout=self._timeout)):
            yield field.focus(timeout=self._timeout)
            if not (yield field.is_editable(timeout=self._timeout)):
                name = yield field.evaluate("element => element.outerHTML.slice(0, 120)")
                raise CaptchaFormError(
                    f"The field for the answer cannot be written to: {name}",
                    url=self._scope.frame.url,
                    selector=self.rule.input or "",
                )

    def _check_button(self) -> Steps[None]:
        button = yield self._button.find()
        if button is None:
            return
        above = yield button.evaluate(HIT, True, timeout=self._timeout)
        if above is not None:
            raise CaptchaFormError(
                f"The button cannot be pressed: {above} lies over it",
                url=self._scope.frame.url,
                selector=self.rule.submit or "",
            )

    def type(self, answer: str) -> Steps[None]:
        """Type *answer* key by key, as forms may listen to keys.

        :raises RuleError: the field for it cannot be told
        """
        yield self._wait_for(self._find_fields)
        yield self._wait_for(self._check_writable)
        for field in self._fields:
            if (yield field.input_value(timeout=self._timeout)):
                yield field.fill("", timeout=self._timeout)
        if len(self._fields) == 1:
            yield self._fields[0].press_sequentially(answer, timeout=self._timeout)
            return
        for field, letter in zip(self._fields, answer, strict=False):
            yield field.press_sequentially(letter, timeout=self._timeout)

    def send(self) -> Steps[None]:
        """Press the button, or Enter where there is none.

        :raises RuleError: the rule's button is not on the page
        """
        button = yield self._button.find()
        if button is None:
            field = self._fields[-1] if self._fields else self._all.first
            yield field.press("Enter", timeout=self._timeout)
        else:
            yield button.click(timeout=self._timeout)

    # What the form is made of

    def controls(self) -> Steps[list[Control]]:
        """The controls of the form, as they are now."""
        if self._of:
            elements = [None, (yield self._control_of_bare_form()), None]
        else:
            elements = [self._image, (yield self._element("input")), None]
        elements[2] = yield self._element("form")
        handles = []
        for element in elements:
            handles.append(element and (yield self._handle(element)))
        controls: list[Control] = yield self._all.evaluate_all(CONTROLS, handles)
        for handle in filter(None, handles):
            yield handle.dispose()
        return [c for c in controls if c["mine"]]

    def _handle(self, element: Any) -> Steps[Any]:
        try:
            return (yield element.element_handle(timeout=self._timeout))
        except PlaywrightTimeout:
            raise CaptchaNotFound(
                "The captcha went away before it was answered",
                url=self._scope.frame.url,
                selector=self.rule.image,
            ) from None

    def _control_of_bare_form(self) -> Steps[Any]:
        named = "".join(f"\\{letter}" if letter in '"\\' else letter for letter in self._of)
        found = shown(self._scope.frame.locator(f'[name="{named}"], [id="{named}"]'))
        return found.first if (yield found.count()) else None

    def _element(self, field: str) -> Steps[Any]:
        """The element that the rule names, best one that can be seen; None if it names none."""
        locator = self._scope.locator(self.rule, field)
        if locator is None:
            return None
        if (yield shown(locator).count()):
            return shown(locator).first
        if not (yield locator.count()):
            raise self._scope.missing(self.rule, field, False)
        return locator.first

    def nth(self, control: Control) -> Any:
        """Locator of *control*."""
        return self._all.nth(control["index"])

    def _wait_for(self, find: Callable[[], Steps[Any]]) -> Steps[Any]:
        """What *find* finds, tried until it does; in the end its error is raised."""
        give_up = deadline(self._timeout)
        while True:
            try:
                return (yield find())
            except (RuleError, CaptchaFormError, PlaywrightError):
                if time.monotonic() > give_up or self._scope.page.is_closed():
                    raise
            yield self._scope.page.wait_for_timeout(POLL_MS)

    def _wrong(self, field: str, message: str) -> RuleError:
        return RuleError(message, field=field, host=self._scope.frame.url)
