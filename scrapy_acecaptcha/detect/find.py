"""Finds captchas on pages that no rule describes.

Every picture of a page is weighed (scoring.py) together with the text field that would take its
answer (fields.py), on an index of the page (document.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lxml import etree
from parsel import Selector

from scrapy_acecaptcha.detect.buttons import Buttons
from scrapy_acecaptcha.detect.document import Document, Mark, attributes
from scrapy_acecaptcha.detect.fields import AnswerFields
from scrapy_acecaptcha.detect.picture import Picture
from scrapy_acecaptcha.detect.scoring import Evidence, Scoring, confidence
from scrapy_acecaptcha.detect.unique_selector import UniqueSelectors
from scrapy_acecaptcha.detect.vocabulary import widget
from scrapy_acecaptcha.page.controls import is_submit
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import has_ascii_letters, select

AUTO_CONFIDENCE = 0.8
"""What `"image": "auto"` asks of a candidate; docs/detection.md explains the figure."""

WORTH_A_LOOK = 0.3
MAX_CANDIDATES = 10

_NAMING = ("class", "id", "src", "name")


@dataclass(frozen=True)
class Candidate:
    """A picture that may be a captcha.

    :param image: CSS selector that matches this picture and nothing else on the page
    :param input: CSS selector of the field for the answer, None if none can be told
    :param form: CSS selector of the form, None if there is none
    :param submit: CSS selector of the button that sends the answer; None where the form's first
        submit button does, and where there is none
    :param confidence: 0 to 1
    :param reasons: what speaks for it and, beginning with `but`, against it
    :param address: the image's absolute address or data: URI; empty where there is none
    :param needs_playwright: a script draws or loads it, so that Scrapy cannot have it
    :param submits_by_script: *submit* does nothing without the page's scripts
    """

    image: str
    input: str | None
    form: str | None
    confidence: float
    reasons: tuple[str, ...]
    address: str = field(default="", repr=False)
    needs_playwright: bool = False
    submit: str | None = None
    submits_by_script: bool = False


class Widget(NamedTuple):
    """A captcha of the kind that this package does not read.

    :param name: for instance reCAPTCHA
    :param evidence: where the page names it
    """

    name: str
    evidence: str


def find_captchas(
    page: Selector, base_url: str = "", *, input: str | None = None, form: str | None = None
) -> list[Candidate]:
    """Find what may be captchas on a page: ten at most, the most probable first.

    :param page: the parsed page
    :param base_url: what relative addresses are relative to
    :param input: selector of the field for the answer, if it is known
    :param form: selector of the form, if it is known
    :return: nothing, too, if *input* or *form* is given and not on the page
    :raises ValueError: *input* or *form* is a bad selector
    """
    return list(_candidates(Document(page), base_url, input, form))


def _candidates(
    document: Document, base_url: str, input: str | None, form: str | None
) -> Iterator[Candidate]:
    """The candidates of a page, the most probable first; each costs work only when asked for."""
    page = document.page
    if not all(select(page, selector) for selector in (input, form) if selector):
        return
    fields = AnswerFields(document, _first(page, input), _first(page, form))
    scoring = Scoring(document, fields)
    found: list[_Weighed] = []
    for mark in document.pictures:
        picture = Picture(document, mark)
        if (form is None or fields.is_inside(mark)) and scoring.may_be_captcha(picture):
            answer = fields.best_for(mark)
            evidence = scoring.evidence(picture, answer)
            found.append(_Weighed(confidence(evidence), picture, answer, evidence))
    found = [weighed for weighed in found if weighed.confidence >= WORTH_A_LOOK]
    found.sort(key=lambda weighed: -weighed.confidence)
    selectors = UniqueSelectors(page) if found else None
    buttons = Buttons(document)
    for weighed in found[:MAX_CANDIDATES]:
        assert selectors is not None
        yield weighed.candidate(selectors, buttons, base_url)


class _Weighed(NamedTuple):
    confidence: float
    picture: Picture
    field: Mark | None
    evidence: list[Evidence]

    def candidate(self, selectors: UniqueSelectors, buttons: Buttons, base_url: str) -> Candidate:
        picture = self.picture
        button = buttons.for_field(self.field, picture.mark) if self.field else None
        form = (self.field or picture.mark).form
        return Candidate(
            image=selectors.of(picture.element),
            input=selectors.of(self.field.element) if self.field else None,
            form=selectors.of(form) if form is not None else None,
            confidence=round(self.confidence, 2),
            reasons=tuple(e.told for e in sorted(self.evidence, key=lambda e: e.is_against)),
            address=picture.absolute_address(base_url),
            needs_playwright=picture.element.tag != "svg" and not picture.address,
            submit=selectors.of(button) if button is not None else None,
            submits_by_script=button is not None and not is_submit(button),
        )


def _first(page: Selector, selector: str | None) -> Any:
    found = select(page, selector) if selector else []
    return found[0].root if found else None


def find_widgets(page: Selector) -> list[Widget]:
    """Name the reCAPTCHAs and their kind on a page, which are out of bounds."""
    found: dict[str, Widget] = {}
    for element in page.root.iter(etree.Element):
        for attribute, value in zip(_NAMING, attributes(element, *_NAMING), strict=True):
            name = widget(value) if value and value[:5].lower() != "data:" else None
            if name and name not in found:
                found[name] = Widget(name, f'<{element.tag} {attribute}="{value[:300]}">')
    return list(found.values())


def resolve(
    rule: CaptchaRule, page: Selector, base_url: str = "", *, browser: bool = False
) -> CaptchaRule | None:
    """Fill in what a rule with `"image": "auto"` leaves to detection.

    :param browser: the page is in a browser, so that a captcha may be drawn by a script
    :return: the rule for this page; None if no captcha is certain enough
    """
    if rule.image != "auto":
        return rule
    document = Document(page, browser=browser)
    for found in _candidates(document, base_url, rule.input, rule.form):
        if found.confidence < AUTO_CONFIDENCE:
            break
        if browser or not found.needs_playwright:
            return replace(
                rule,
                image=found.image,
                input=rule.input or found.input,
                form=rule.form or found.form,
                submit=rule.submit or button_for(found, browser=browser),
            )
    return None


def button_for(found: Candidate, *, browser: bool) -> str | None:
    """The button that a rule made of *found* names: without scripts, only one of the form's own."""
    return found.submit if browser or not found.submits_by_script else None


def may_show_captcha(body: bytes) -> bool:
    """Whether a page's source has what every captcha has; looks at the bytes, without parsing."""
    has_both = _FIELD.search(body) and _PICTURE.search(body)
    return bool(has_both) or not has_ascii_letters(body)


_FIELD = re.compile(rb"<input", re.IGNORECASE)
_PICTURE = re.compile(rb"<img|<image|<svg|<canvas|type\s*=\s*[\"']?image|background", re.IGNORECASE)
