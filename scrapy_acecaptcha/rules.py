"""CaptchaRule: how one site's captcha looks."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scrapy_acecaptcha.arithmetic import value_of_sum
from scrapy_acecaptcha.errors import RuleError
from scrapy_acecaptcha.hosts import parse_host
from scrapy_acecaptcha.selectors import frame_steps, text_of, to_xpath

MAX_ANSWER = 64  # characters; what is longer is no captcha's text
FieldValue = str | int | float | bool | list[str]

_CHOICES: dict[str, tuple[str, ...]] = {
    "case": ("upper", "lower"),
    "after": ("auto", "stay", "return"),
    "capture": ("screenshot", "source"),
}
SELECTORS = ("image", "input", "form", "submit", "frame", "refresh", "success", "failure")
_ELEMENTS = ("image", "input", "form", "submit", "frame")
_MAY_BE_TEXT = ("submit", "success", "failure")
_FLAGS = ("arithmetic", "session")


@dataclass(frozen=True, kw_only=True)
class CaptchaRule:
    """How one site's captcha looks and what to do with it.

    Selectors are CSS, or XPath when they start with ``/``, ``(``, ``./`` or ``xpath=``.

    :param image: selector of the captcha element, or ``auto``
    :param input: selector of the field for the answer; by default the form's one text field that
        speaks of a captcha
    :param form: selector of the form; by default the one around *input*, else around *image*
    :param submit: selector of the button to press, or ``text=`` and what it says; by default the
        form's first submit button
    :param fields: other form values to fill in, name -> value
    :param frame: selector of the iframe or frame whose document holds image and form; frames inside
        of frames are divided by `` >> ``
    :param hosts: other hosts, each with its subdomains, that the form may be sent to
    :param refresh: Playwright: selector to click for a new image
    :param success: selector, or ``text=`` and a substring, that tells a right answer
    :param failure: selector, or ``text=`` and a substring, that tells a wrong answer
    :param answer: regular expression that the whole answer must match
    :param case: ``upper`` or ``lower``: the answer is converted
    :param arithmetic: the image is a sum such as ``3+5=``; its value is submitted
    :param max_attempts: submissions per challenge; None for ACECAPTCHA_MAX_ATTEMPTS
    :param after: ``stay``, ``return`` or ``auto``: which page the spider gets
    :param session: False if the captcha is not bound to the browsing session
    :param sessions: Scrapy: browsing sessions (cookiejars) side by side on this host
    :param budget: most API calls for this host in a crawl, 0 for no limit
    :param capture: Playwright: ``screenshot`` or ``source``
    :raises RuleError: a field has a value that cannot work
    """

    image: str
    input: str | None = None
    form: str | None = None
    submit: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    frame: str | None = None
    hosts: Sequence[str] = ()
    refresh: str | None = None
    success: str | None = None
    failure: str | None = None
    answer: str | None = None
    case: Literal["upper", "lower"] | None = None
    arithmetic: bool = False
    max_attempts: int | None = None
    after: Literal["auto", "stay", "return"] = "auto"
    session: bool = True
    sessions: int = 1
    budget: int = 0
    capture: Literal["screenshot", "source"] = "screenshot"

    def __post_init__(self) -> None:
        for name in SELECTORS:
            value = getattr(self, name)
            if (value is not None or name == "image") and not _is_filled(value):
                raise RuleError(f"must be a selector, not {value!r}", field=name)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (name == "case" and value is None):
                raise RuleError(f"must be one of {', '.join(choices)}, not {value!r}", field=name)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise RuleError(f"must be True or False, not {getattr(self, name)!r}", field=name)
        if self.max_attempts is not None:
            _check_count("max_attempts", self.max_attempts, least=1)
        _check_count("sessions", self.sessions, least=1)
        _check_count("budget", self.budget, least=0)
        self._check_answer()
        self._check_fields()
        self._check_hosts()

    @classmethod
    def parse(
        cls, rule: CaptchaRule | Mapping[str, Any], *, host: str | None = None
    ) -> CaptchaRule:
        """Make a rule of a mapping as users write it.

        :param host: what error messages name
        :raises RuleError: unknown field, or a value that cannot work
        """
        if isinstance(rule, CaptchaRule):
            return rule
        if not isinstance(rule, Mapping):
            raise RuleError(f"a rule is a dict of fields, not {rule!r}", host=host)
        known = [f.name for f in dataclasses.fields(cls)]
        for name in rule:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise RuleError(f"there is no such field; {hint}", field=str(name), host=host)
        if "image" not in rule:
            raise RuleError(
                "is missing: the selector of the captcha element", field="image", host=host
            )
        try:
            return cls(**rule)
        except RuleError as error:
            raise RuleError(error.message, field=error.field, host=host) from None

    def overlaid(self, changes: Mapping[str, Any], *, host: str | None = None) -> CaptchaRule:
        """This rule with the fields of *changes* laid over it."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return CaptchaRule.parse({**own, **changes}, host=host)

    def check_selectors(self, *, host: str | None = None) -> None:
        """Refuse selectors that Scrapy cannot work with.

        Playwright has selectors of its own, so this is not part of making a rule.

        :raises RuleError: a selector is neither CSS nor XPath
        """
        for name in SELECTORS:
            selector = getattr(self, name)
            if selector is None or (name == "image" and selector == "auto"):
                continue
            if name in _MAY_BE_TEXT and text_of(selector):
                continue
            steps = frame_steps(selector) if name == "frame" else [selector]
            for step in steps:
                _check_selector(step, name, host)

    def clean(self, text: str) -> str | None:
        """Turn what the API read into the answer to submit; None if it does not fit this rule."""
        answer = text.strip()
        if len(answer) > MAX_ANSWER:
            return None
        if self.arithmetic:
            answer = value_of_sum(answer) or ""
        if self.case:
            answer = answer.upper() if self.case == "upper" else answer.lower()
        if self.answer is not None and not re.fullmatch(self.answer, answer):
            answer = "".join(answer.split())
            return answer if answer and re.fullmatch(self.answer, answer) else None
        return (answer if self.answer is not None else "".join(answer.split())) or None

    def _check_answer(self) -> None:
        if self.answer is None:
            return
        if not isinstance(self.answer, str):
            raise RuleError(f"must be a regular expression, not {self.answer!r}", field="answer")
        try:
            re.compile(self.answer)
        except (re.error, RecursionError, OverflowError) as error:
            raise RuleError(
                f"bad regular expression {self.answer!r}: {error}", field="answer"
            ) from None

    def _check_fields(self) -> None:
        if not isinstance(self.fields, Mapping):
            raise RuleError(f"must be a dict of name -> value, not {self.fields!r}", field="fields")
        for name, value in self.fields.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            if not isinstance(name, str) or not all(
                isinstance(item, (str, int, float)) for item in values
            ):
                raise RuleError(
                    f"{name!r} has the value {value!r}; only text, numbers, True, False and lists "
                    "of text can be filled into a form",
                    field="fields",
                )

    def _check_hosts(self) -> None:
        if isinstance(self.hosts, str) or not isinstance(self.hosts, Sequence):
            raise RuleError(f"must be a list of hosts, not {self.hosts!r}", field="hosts")
        for host in self.hosts:
            try:
                parse_host(host)
            except ValueError as error:
                raise RuleError(f"{host!r} is not a host: {error}", field="hosts") from None


def _check_selector(selector: str, name: str, host: str | None) -> None:
    try:
        xpath = to_xpath(selector)
    except ValueError as error:
        raise RuleError(str(error), field=name, host=host) from None
    if name in _ELEMENTS and re.search(r"/(@|attribute::|text\(\))[^/\]]*$", xpath):
        raise RuleError(
            f"{selector!r} matches an attribute or text; it must match an element",
            field=name,
            host=host,
        )


def _is_filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_count(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RuleError(f"must be a whole number of at least {least}, not {value!r}", field=name)
