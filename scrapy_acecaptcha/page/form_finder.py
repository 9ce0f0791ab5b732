"""The form of a page that a rule speaks of, its field for the answer, and the button to press."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from scrapy_acecaptcha.errors import CaptchaImageError, RuleError
from scrapy_acecaptcha.page.answer_field import answer_fields, matches_captcha, undecided
from scrapy_acecaptcha.page.controls import caption, is_submit, is_text, told_name
from scrapy_acecaptcha.page.document import Document
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import same_text, select, text_of

MAX_FORMS = 20  # of a page, among which one without its captcha is looked for
MAX_PICTURES = 200  # that the rule's selector may match
MAX_FIELDS = 300  # among which the one for the answer is looked for


class FormFinder:
    """Finds on a page what *rule* speaks of, or what it leaves to be found.

    Every method raises RuleError if there is no such element, or more than one that could be meant.

    :param url: the page's address, for errors
    """

    def __init__(self, document: Document, rule: CaptchaRule, url: str) -> None:
        self._document = document
        self._page = document.selector
        self._rule = rule
        self._url = url

    def form(self) -> Any:
        """The rule's form, else the one around its field or image, else the only one that could be.

        :raises CaptchaImageError: the rule matches more than MAX_PICTURES elements
        """
        if self._rule.form:
            return self._named_form(self._rule.form)
        for name in ("input", "image"):
            form = self._form_around(name)
            if form is not None:
                return form
        form = self._form_of_a_captcha_field()
        if form is None and len(self._document.forms) == 1:
            form = self._document.forms[0]
        if form is None:
            raise self.wrong(
                "form",
                "there is no form around the captcha; name it, or use Playwright if scripts send "
                "it",
            )
        return form

    def _named_form(self, selector: str) -> Any:
        matches = select(self._page, selector)
        if not matches:
            raise self.wrong("form", f"no element matches {selector!r}")
        element = matches[0].root
        form = element if element.tag == "form" else next(element.iter("form"), None)
        if form is None:
            form = self._document.form_of(element)
        if form is None:
            raise self.wrong("form", f"{selector!r} matches no <form>")
        return form

    def _form_around(self, field: str) -> Any:
        """The first form around what the rule's selector *field* matches; None without one."""
        selector = getattr(self._rule, field)
        if not selector or selector == "auto":
            return None
        found = select(self._page, selector, limit=MAX_PICTURES + 1)
        if field == "input" and not found:
            raise self.wrong("input", self._no_match(selector))
        if len(found) > MAX_PICTURES:
            raise CaptchaImageError(
                f"{selector!r} matches more than {MAX_PICTURES} elements; the captcha is one",
                url=self._url,
            )
        owners = self._document.forms_of(match.root for match in found)
        return next((form for form in owners if form is not None), None)

    def _form_of_a_captcha_field(self) -> Any:
        """The one form with a field that says captcha; None if there are none, or several."""
        fields = [c for c in self._document.controls if c.tag == "input"][:MAX_FIELDS]
        saying = [f for f in fields if matches_captcha(self._document.label_text(f))]
        forms = {form for form in self._document.forms_of(saying) if form is not None}
        return forms.pop() if len(forms) == 1 else None

    def bare_form(self, is_like: Callable[[set[str]], bool] | None) -> Any:
        """The form once it has no captcha: with all of the rule's fields, or as *is_like* says.

        :param is_like: told the names of a form's controls, whether this is the form; or None
        """
        forms = self._document.forms
        if self._rule.form:
            forms = [self.form()]
        for form in forms[:MAX_FORMS]:
            names = {control.get("name") for control in self._document.controls_of(form)}
            if self._rule.fields and names.issuperset(self._rule.fields):
                return form
            if is_like is not None and is_like(names):
                return form
        raise self.wrong("form", "the form is not on the page any more")

    def input(self, controls: Collection[Any]) -> Any:
        """Among a form's *controls*, the one that takes the answer."""
        if self._rule.input:
            return self._named_input(self._rule.input, controls)
        texts = [c for c in controls if self._may_take_the_answer(c)][:MAX_FIELDS]
        found = answer_fields([self._document.label_text(c) for c in texts])
        if len(found) == 1:
            return texts[found[0]]
        texts = [texts[i] for i in found] or texts
        raise self.wrong("input", undecided([told_name(c) for c in texts[:20]]))

    def _named_input(self, selector: str, controls: Collection[Any]) -> Any:
        matches = [match.root for match in select(self._page, selector)]
        if not matches:
            raise self.wrong("input", self._no_match(selector))
        known = set(controls)
        sent = [m for m in matches if m in known and m.get("name")]
        if not sent:
            raise self.wrong(
                "input",
                f"{selector!r} matches nothing that the form sends; if scripts send it, "
                "use Playwright",
            )
        return sent[0]

    def _may_take_the_answer(self, control: Any) -> bool:
        name = control.get("name")
        return bool(
            is_text(control)
            and name
            and name not in self._rule.fields
            and not self._document.is_disabled(control)
        )

    def _no_match(self, selector: str) -> str:
        fields = [told_name(field) for field in self._document.text_fields()[:20]]
        told = "candidates are " + ", ".join(fields) if fields else "the page has no text field"
        return f"no element matches {selector!r}; {told}"

    def button(self, controls: Collection[Any]) -> Any:
        """The button to press; None if the form has none and is sent by Enter."""
        buttons = [c for c in controls if is_submit(c)]
        if self._rule.submit is None:
            return self._first_button([b for b in buttons if not self._document.is_disabled(b)])
        text = text_of(self._rule.submit)
        if text is not None:
            chosen = [b for b in buttons if same_text(caption(b), text)]
        else:
            chosen = [m.root for m in select(self._page, self._rule.submit)]
        if not chosen:
            raise self.wrong("submit", f"no button matches {self._rule.submit!r}")
        # Anything else that can be clicked on sends the form by a script, and nothing of itself.
        known = set(buttons)
        return next((element for element in chosen if element in known), None)

    def _first_button(self, buttons: list[Any]) -> Any:
        """The first of *buttons*; the captcha itself, if it is one of them, comes last."""
        if self._rule.image != "auto":
            images = {m.root for m in select(self._page, self._rule.image, limit=MAX_PICTURES)}
            buttons = sorted(buttons, key=lambda button: button in images)
        return buttons[0] if buttons else None

    def wrong(self, field: str, message: str) -> RuleError:
        """The error that says what is wrong with a *field* of the rule on this page."""
        return RuleError(message, field=field, host=self._url)
