"""CaptchaRule: how one site's captcha looks."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import operator
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from scrapy_acecaptcha.errors import RuleError
from scrapy_acecaptcha.selectors import text_of, to_xpath

FieldValue = str | int | float | bool | list[str]

_CHOICES: dict[str, tuple[str, ...]] = {
    "case": ("upper", "lower"),
    "after": ("auto", "stay", "return"),
    "capture": ("screenshot", "source"),
}
_SELECTORS = ("image", "input", "form", "submit", "refresh", "success", "failure")
_ELEMENTS = ("image", "input", "form", "submit")
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
    :param refresh: Playwright: selector to click for a new image
    :param success: selector, or ``text=`` and a substring, that tells a right answer
    :param failure: selector, or ``text=`` and a substring, that tells a wrong answer
    :param answer: regular expression that the whole answer must match
    :param case: ``upper`` or ``lower``: the answer is converted
    :param arithmetic: the image is a sum such as ``3+5=``; its value is submitted
    :param max_attempts: submissions per challenge; None for ACECAPTCHA_MAX_ATTEMPTS
    :param after: ``stay``, ``return`` or ``auto``: which page the spider gets
    :param session: False if the captcha is not bound to the browsing session
    :param budget: most API calls for this host in a crawl, 0 for no limit
    :param capture: Playwright: ``screenshot`` or ``source``
    :raises RuleError: a field has a value that cannot work
    """

    image: str
    input: str | None = None
    form: str | None = None
    submit: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    refresh: str | None = None
    success: str | None = None
    failure: str | None = None
    answer: str | None = None
    case: Literal["upper", "lower"] | None = None
    arithmetic: bool = False
    max_attempts: int | None = None
    after: Literal["auto", "stay", "return"] = "auto"
    session: bool = True
    budget: int = 0
    capture: Literal["screenshot", "source"] = "screenshot"

    def __post_init__(self) -> None:
        for name in _SELECTORS:
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
        _check_count("budget", self.budget, least=0)
        self._check_answer()
        self._check_fields()

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
        for name in _SELECTORS:
            selector = getattr(self, name)
            if selector is None or (name == "image" and selector == "auto"):
                continue
            if name in _MAY_BE_TEXT and text_of(selector):
                continue
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

    def clean(self, text: str) -> str | None:
        """Turn what the API read into the answer to submit; None if it does not fit this rule."""
        answer = text.strip()
        if self.arithmetic:
            answer = _value_of_sum(answer) or ""
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


def _is_filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_count(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RuleError(f"must be a whole number of at least {least}, not {value!r}", field=name)


@lru_cache(maxsize=1024)
def site_of(url: str) -> str:
    """Scheme, host and port of *url* as they stand in it; urlsplit() takes four times as long."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + _HOST_ENDS.split(rest, 1)[0]


_HOST_ENDS = re.compile("[/?#]")


class RuleBook:
    """The rules of ACECAPTCHA_RULES, found by URL.

    ``example.org`` covers its subdomains, the most specific host wins, ``127.0.0.1:8000`` names a
    port.

    :param rules: host -> rule, or the same as JSON
    :raises RuleError: names host and field
    """

    def __init__(self, rules: Mapping[str, Any] | str) -> None:
        if isinstance(rules, str):
            rules = _from_json(rules)
        if not isinstance(rules, Mapping):
            raise RuleError(f"ACECAPTCHA_RULES is a dict of host -> rule, not {rules!r}")
        self._rules: dict[str, CaptchaRule] = {}
        for host, fields in rules.items():
            rule = CaptchaRule.parse(fields, host=str(host))
            rule.check_selectors(host=str(host))
            name = _checked_host(host)
            if name in self._rules:
                raise RuleError("is named twice", host=str(host))
            self._rules[name] = rule
        self._found: dict[str, CaptchaRule | None] = {}
        self._overlaid: dict[tuple[str, str], CaptchaRule] = {}

    def __len__(self) -> int:
        return len(self._rules)

    def find(self, url: str, own: object = None) -> CaptchaRule | None:
        """Return the rule for *url*, None if there is none.

        :param own: what a request's ``meta["acecaptcha"]`` says: False for no rule, fields to lay
            over the host's rule, or a whole rule
        :raises RuleError: *own* cannot be used
        """
        if own is False:
            return None
        site = site_of(url)
        if site not in self._found:
            if len(self._found) > 10_000:  # a broad crawl meets new hosts all the time
                self._found.clear()
            self._found[site] = self._search(site)
        found = self._found[site]
        return found if own is None or own is True else self._overlay(site, found, own)

    def _overlay(self, site: str, rule: CaptchaRule | None, own: object) -> CaptchaRule:
        where = f'{site.partition("://")[2]} in request.meta["acecaptcha"]'
        if isinstance(own, CaptchaRule) or not isinstance(own, Mapping):
            whole = CaptchaRule.parse(own, host=where)  # type: ignore[arg-type]
            whole.check_selectors(host=where)
            return whole
        key = (site, json.dumps(own, sort_keys=True, default=repr))
        if key not in self._overlaid:
            laid = rule.overlaid(own, host=where) if rule else CaptchaRule.parse(own, host=where)
            laid.check_selectors(host=where)
            if len(self._overlaid) > 1000:
                self._overlaid.clear()
            self._overlaid[key] = laid
        return self._overlaid[key]

    def _search(self, url: str) -> CaptchaRule | None:
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
            host = _as_in_urls(parts.hostname)
        except ValueError:
            return None
        while host:
            for key in (f"{host}:{port}", host):
                if key in self._rules:
                    return self._rules[key]
            if host.startswith("[") or re.fullmatch(r"[\d.]+", host):  # addresses have no parents
                return None
            host = host.partition(".")[2]
        return None


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuleError(
            f"ACECAPTCHA_RULES is not valid JSON ({error}); on the command line write "
            """-s ACECAPTCHA_RULES='{"example.org": {"image": "img#captcha"}}'"""
        ) from None


def _checked_host(key: object) -> str:
    """Bring a key of ACECAPTCHA_RULES into the form in which URLs spell hosts."""
    host = str(key).strip()
    try:
        parts = urlsplit(f"//{host}")
        name = _as_in_urls(parts.hostname)
        if name and not re.search(r"[/\\?#\s@*]", host):
            return f"{name}:{parts.port}" if parts.port else name
        problem = "write `example.org` (it covers its subdomains) or `example.org:8000`"
    except ValueError as error:
        problem = str(error)
    raise RuleError(f"is not a host: {problem}", host=str(key))


def _as_in_urls(host: str | None) -> str:
    """Spell a host as in the URLs of requests.

    :raises ValueError: there cannot be such a host
    """
    name = (host or "").lower().rstrip(".")
    if ":" in name:
        return f"[{ipaddress.IPv6Address(name)}]"
    return name.encode("idna").decode("ascii")


_OPERATORS: dict[str, Any] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}
# Multiplication and division signs, minus, en dash, em dash; the full-width ones of Chinese pages
# are NFKC's.
_SIGNS = str.maketrans("xX\u00d7\u00f7:\u2212\u2013\u2014", "***//---")


def _value_of_sum(text: str) -> str | None:
    """Work out `3+5=`; None if it is not a sum, or has no whole number as its value."""
    written = unicodedata.normalize("NFKC", "".join(text.split())).translate(_SIGNS)
    left = re.split("[=?]", written, maxsplit=1)[0]
    if not re.fullmatch(r"-?\d{1,9}(?:[-+*/]\d{1,9}){1,5}", left):
        return None
    first, *rest = re.findall(r"^-?\d+|[-+*/]|\d+", left)
    terms = [int(first)]
    for sign, digits in zip(rest[::2], rest[1::2], strict=True):
        number = int(digits)
        if sign == "/" and (number == 0 or terms[-1] % number):
            return None
        if sign in "*/":
            terms[-1] = _OPERATORS[sign](terms[-1], number)
        else:
            terms.append(number if sign == "+" else -number)
    return str(sum(terms))
