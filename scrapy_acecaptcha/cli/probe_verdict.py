"""What a submission of the probe showed: whether a rule needs `success` or `failure`, and which."""

from __future__ import annotations

from dataclasses import replace

from scrapy.http import HtmlResponse, Response, TextResponse

from scrapy_acecaptcha.crawl.captcha_page import shows_captcha
from scrapy_acecaptcha.crawl.challenge import ScrapyChallenge
from scrapy_acecaptcha.crawl.evidence import page_text, response_kind
from scrapy_acecaptcha.crawl.pages import page_of
from scrapy_acecaptcha.page.page_text import sounds_refused
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import squeeze
from scrapy_acecaptcha.verdict import Habit

MAX_TEXT = 80  # characters of what a page says that are worth a selector
_PIECES = "//body//text()[not(parent::script or parent::style or parent::option)]"


def rule_that_tells(
    challenge: ScrapyChallenge, rule: CaptchaRule, captcha_page: Response, habit: Habit
) -> CaptchaRule | None:
    """*rule* with what tells right answers from wrong ones, where the image alone cannot.

    That is where the form's answer shows no captcha, and is not what was asked for.

    :param captcha_page: the page from which the answer was sent
    :param habit: what the form's answer has proved to be
    :return: None where the captcha's image tells, or where the rule says already
    """
    answer = challenge.answer_page
    if answer is None or rule.success is not None or rule.failure is not None:
        return None
    is_asked_for = challenge.page is answer and habit not in (Habit.EACH, Habit.DOUBTED)
    if is_asked_for or shows_captcha(answer, challenge.rule):
        return None
    text = _telling_text(answer, captcha_page)
    if not text:
        return None
    told = f"text={text}"
    is_refusal = sounds_refused(text) or challenge.page is captcha_page
    return replace(rule, failure=told) if is_refusal else replace(rule, success=told)


def _telling_text(answer: Response, captcha_page: Response) -> str:
    """A short text of the form's answer that the captcha's page does not have; else empty."""
    page, before = page_of(answer), page_of(captcha_page)
    if page is None or response_kind(answer) != "page":
        said = [squeeze(answer.text)] if isinstance(answer, TextResponse) else []
    else:
        said = [*page_text(page).alerts, *_said_by(page)]
    known = page_text(before).visible if before is not None else ""
    new = [text for text in said if 2 < len(text) <= MAX_TEXT and text not in known]
    return min(new, key=lambda text: not sounds_refused(text), default="")


def _said_by(page: HtmlResponse) -> list[str]:
    headings = page.xpath("//h1//text() | //h2//text()").getall()
    return [squeeze(text) for text in [*headings, *page.xpath(_PIECES).getall()]]
