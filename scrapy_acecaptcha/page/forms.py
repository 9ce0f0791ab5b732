"""A form of a parsed page, filled in and sent as a browser would.

The tests compare the outcome with what Chromium sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from typing import Any
from urllib.parse import urljoin, urlsplit

from scrapy_acecaptcha.errors import CaptchaFormError, RuleError
from scrapy_acecaptcha.hosts import host_of, is_covered, same_site
from scrapy_acecaptcha.page.controls import (
    BUTTON_TYPES,
    NOT_FILLED,
    box_value,
    chosen_options,
    is_checked,
    is_text,
    kind_of,
    option_text,
    option_value,
    plain_value,
    pressed,
)
from scrapy_acecaptcha.page.document import Document, TooLarge, without_marks
from scrapy_acecaptcha.page.form_encoding import URLENCODED, Entry, FormEncoder, Posted, Submission
from scrapy_acecaptcha.page.form_finder import FormFinder
from scrapy_acecaptcha.rules import CaptchaRule

__all__ = ["URLENCODED", "Form", "Posted", "Submission", "is_text", "leaves_site"]


def leaves_site(url: str) -> str:
    """What an error says of a form that would be sent to *url*, on another site than its page's."""
    host = host_of(url)
    return (
        f"The form is to be sent to another site, {host}, and was not; if that is right, name it "
        f'in the rule: "hosts": [{host!r}]'
    )


class Form:
    """The form of a page that a rule speaks of.

    :param html: the page's source
    :param url: the page's address
    :param base_url: what relative addresses are relative to
    :param encoding: the page's encoding, as Scrapy names it
    :param posted: what the spider sent itself; if it was this form, it is filled in again
    :param bare: the form has no captcha, as once a session has been let through; it is told by the
        rule's ``fields``, or by the earlier form that is given here
    :raises RuleError: there is no such form or field, or more than one that could be meant
    :raises CaptchaFormError: the page is larger, or has more controls, than is looked at
    :raises CaptchaImageError: the rule matches more than form_finder.MAX_PICTURES elements
    """

    def __init__(
        self,
        html: str,
        rule: CaptchaRule,
        *,
        url: str,
        base_url: str,
        encoding: str,
        posted: Posted | None = None,
        bare: bool | Form = False,
    ) -> None:
        self.rule = rule
        self.url = url
        self._base_url = base_url
        try:
            self._document = Document(html, base_url)
        except TooLarge as error:
            raise self._refused(f"The captcha's page {error}") from None
        self._find = FormFinder(self._document, rule, url)
        is_like = bare.is_like if isinstance(bare, Form) else None
        self._form = self._find.bare_form(is_like) if bare else self._find.form()
        self._controls = self._document.controls_of(self._form)
        self._encoder = FormEncoder(encoding, self._form.get("accept-charset"))
        self.encoding = self._encoder.encoding
        self.input: Any = None if bare else self._find.input(self._controls)
        self._typed: dict[Any, str] = {}
        self._checked: dict[Any, bool] = {}
        self._picked: dict[Any, set[Any]] = {}
        self._added: dict[str, list[Entry]] = {}  # by name: what the page has no control for
        self.is_filled_in_again = (
            posted is not None
            and self._is_sent_to(posted.url)
            and self._fill_in_again(posted.values)
        )

    def submission(self, answer: str) -> Submission:
        """Fill in *answer* and the rule's fields and press the button; again with another answer.

        :raises CaptchaFormError: the form's action is not an http(s) address, leads from https to
            http, or to another site that is not one of the rule's hosts
        :raises RuleError: the rule's button is not in the form
        """
        for name, value in self.rule.fields.items():
            self._fill(name, value)
        if self.input is not None:
            self._typed[self.input] = answer
        button = self._find.button(self._controls)
        url = self._target(button)
        self._check_target(url)
        method = self._method(button)
        entries = self._entries(button)
        return self._encoder.encode(url, method, self._said("enctype", button), entries)

    def is_like(self, names: set[str]) -> bool:
        """Whether a form with controls of these *names* is this one, without the captcha."""
        mine = {control.get("name") for control in self._controls}
        typed = {c.get("name") for c in self._controls if is_text(c) and c is not self.input}
        return bool(typed) and typed <= names <= mine

    # Filling in

    @property
    def answer_name(self) -> str:
        """The name under which the answer is sent; empty if the form takes none."""
        return "" if self.input is None else str(self.input.get("name") or self.input.get("id"))

    @property
    def lacks_password(self) -> bool:
        """Whether it asks for a password that neither the rule nor the spider has given."""
        return any(
            kind_of(control) == "password"
            and control is not self.input
            and control.get("name") not in self.rule.fields
            and not self._typed.get(control, control.get("value"))
            for control in self._controls
        )

    @property
    def empty_fields(self) -> tuple[str, ...]:
        """Names of the fields that people type into, other than the answer's, left empty."""
        return tuple(
            control.get("name")
            for control in self._controls
            if self._is_sent(control)
            and control is not self.input
            and (is_text(control) or control.tag == "textarea")
            and not self._typed.get(control, control.get("value") or control.text)
        )

    def _is_sent_to(self, url: str) -> bool:
        try:
            target = urljoin(self._base_url, self._form.get("action") or self.url)
        except ValueError:  # such as http://[
            return False
        return str(target).partition("?")[0].rstrip("/") == url.partition("?")[0].rstrip("/")

    def _fill_in_again(self, values: Mapping[str, list[str]]) -> bool:
        """Fill in what the spider had, but for what the page brings anew, as its tokens.

        :return: whether there was something to fill in, so that it is the same form
        """
        fresh = {c.get("name") for c in self._controls if kind_of(c) == "hidden" and c.get("value")}
        own = {*fresh, *self.rule.fields, self.input.get("name") if self.input is not None else ""}
        known = {c.get("name") for c in self._controls if kind_of(c) not in BUTTON_TYPES}
        again = known & set(values) - own
        for name in sorted(again):
            with suppress(RuleError):  # an option that is not there any more
                self._fill(name, values[name])
        return bool(again)

    def _fill(self, name: str, value: Any) -> None:
        """Set the control called *name*, whatever its kind; add one that scripts would add."""
        values = [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
        boxes, selects, others = self._controls_called(name)
        if boxes and isinstance(value, bool):
            values = [box_value(box) for box in boxes] if value else []
        if boxes:
            self._check_known(name, values, [box_value(box) for box in boxes])
            self._check_boxes(boxes, values)
        for control in selects:
            options = self._document.options_of(control)
            known = [option_value(o) for o in options]
            self._check_known(name, values, known, *map(option_text, options))
            self._choose(control, values)
        if not boxes and not selects:
            self._typed.update(zip(others, values, strict=False))
            self._added[name] = [Entry(name, text) for text in values[len(others) :]]

    def _controls_called(self, name: str) -> tuple[list[Any], list[Any], list[Any]]:
        """Boxes, lists to choose from, and fields of that *name*."""
        named = [c for c in self._controls if c.get("name") == name]
        boxes, selects, others = [], [], []
        for control in named:
            if self._document.is_disabled(control):
                continue
            kind = kind_of(control)
            if kind in ("checkbox", "radio"):
                boxes.append(control)
            elif kind == "select":
                selects.append(control)
            elif kind not in NOT_FILLED:
                others.append(control)
        return boxes, selects, others

    def _check_boxes(self, boxes: list[Any], values: list[str]) -> None:
        wanted = set(values)
        self._checked.update({box: box_value(box) in wanted for box in boxes})

    def _choose(self, control: Any, values: list[str]) -> None:
        by_value: dict[str, Any] = {}
        by_text: dict[str, Any] = {}
        for option in self._document.options_of(control):
            by_value.setdefault(option_value(option), option)
            by_text.setdefault(option_text(option), option)
        found = [by_value.get(value, by_text.get(value)) for value in values]
        self._picked[control] = {option for option in found if option is not None}

    def _check_known(self, name: str, values: list[str], known: list[str], *more: str) -> None:
        for value in values:
            if value not in known and value not in more:
                raise self._find.wrong(
                    "fields",
                    f"{name!r} has no option {value!r}; it has "
                    + ", ".join(repr(v) for v in known[:20]),
                )

    def _entries(self, button: Any) -> list[Entry]:
        """What a browser would send, in the document's order."""
        radios = [c for c in self._controls if kind_of(c) == "radio" and self._is_checked(c)]
        chosen = {radio.get("name"): radio for radio in radios}
        entries: list[Entry] = []
        for control in self._controls:
            if control is button:
                entries += [e for e in pressed(button) if e.name not in self.rule.fields]
            elif self._is_sent(control):
                name, kind = control.get("name"), kind_of(control)
                if kind != "radio" or control is chosen.get(name):
                    entries += [Entry(name, v, kind == "file") for v in self._values(control)]
        entries += chain.from_iterable(self._added.values())
        return [Entry(_as_sent(e.name), _as_sent(e.value), e.is_file) for e in entries]

    def _is_checked(self, box: Any) -> bool:
        return self._checked.get(box, is_checked(box))

    def _is_sent(self, control: Any) -> bool:
        if not control.get("name") or kind_of(control) in BUTTON_TYPES:
            return False
        return control is self.input or not self._document.is_disabled(control)

    def _values(self, control: Any) -> list[str]:
        kind = kind_of(control)
        if control in self._typed:
            return [self._typed[control]]
        if kind == "select":
            options = self._document.options_of(control)
            return chosen_options(control, options, self._picked.get(control))
        if kind in ("checkbox", "radio"):
            return [box_value(control)] if self._is_checked(control) else []
        if kind == "hidden" and control.get("name").lower() == "_charset_":
            return [self._encoder.name]
        return [plain_value(control)]

    # Sending

    def _said(self, name: str, button: Any) -> str | None:
        """What the form says of *name*, or in its place the button that is pressed."""
        own = None if button is None else button.get(f"form{name}")
        said = self._form.get(name) if own is None else own
        return None if said is None else str(said)

    def _target(self, button: Any) -> str:
        action = (self._said("action", button) or "").strip(" \t\n\f\r")
        if not action:
            action = self.url
        elif action == "?":  # urljoin() would keep the page's query
            action = self._base_url.partition("?")[0]
        try:
            url = urljoin(self._base_url, action)
            return self._encoder.ascii_url(url.partition("#")[0])
        except ValueError as error:
            raise self._refused(f"The form cannot be submitted: {error}") from None

    def _method(self, button: Any) -> str:
        method = (self._said("method", button) or "").lower()
        if method == "dialog":
            raise self._refused("The form cannot be submitted: its method is 'dialog'")
        return "POST" if method == "post" else "GET"

    def _check_target(self, url: str) -> None:
        target, page = urlsplit(url), urlsplit(self.url)
        shown = url.partition("?")[0]
        if target.scheme not in ("http", "https"):
            raise self._refused(
                f"The form is sent to {shown[:80]!r}, which is not an http(s) address"
            )
        if page.scheme == "https" and target.scheme == "http":
            raise self._refused(f"The form leads from https to {shown[:80]!r} in clear text")
        if not same_site(self.url, url) and not is_covered(url, self.rule.hosts):
            raise self._refused(leaves_site(url))

    def _refused(self, message: str) -> CaptchaFormError:
        return CaptchaFormError(message, url=self.url, selector=self.rule.image)


def _as_sent(text: str) -> str:
    return re.sub(r"\r\n|\r|\n", "\r\n", without_marks(text))
