"""Which pages ask for a captcha each time, so that their requests need not find it out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from scrapy_acecaptcha.crawl.redirects import original_url
from scrapy_acecaptcha.verdict import Habit

if TYPE_CHECKING:
    from scrapy import Request

    from scrapy_acecaptcha.crawl.rule_health import RuleHealths
    from scrapy_acecaptcha.rules import CaptchaRule

IN_A_ROW = 2  # captchas after a solved one, that make a habit
REMEMBERED = 1000  # kinds of pages


class EachTime:
    """Learns which kinds of pages ask for a captcha each time.

    A rule with `fields`, a form whose answers proved to be what was asked for, and captchas that
    follow one another say so of a page; any page without a captcha says the opposite of its kind.

    :param healths: what the crawl has learnt of its rules
    """

    def __init__(self, healths: RuleHealths) -> None:
        self._healths = healths
        self._in_a_row: dict[tuple[object, ...], int] = {}  # 0: only where a rule suggests others

    def expects(self, request: Request, rule: CaptchaRule) -> bool:
        """Whether *request* will meet a captcha whatever has been solved before."""
        suggested = self._is_suggested(request, rule)
        if not self._in_a_row:
            return suggested
        seen = self._in_a_row.get(_kind(request, rule))
        return suggested if seen is None else seen >= IN_A_ROW

    def seen(self, request: Request, rule: CaptchaRule, captcha: bool) -> None:
        """Note whether a session that had been let through before met a captcha."""
        suggested = self._is_suggested(request, rule)
        if not captcha and not suggested and not self._in_a_row:
            return  # as most pages are: nothing to forget
        kind = _kind(request, rule)
        in_a_row = self._in_a_row.pop(kind, IN_A_ROW if suggested else 0)
        in_a_row = in_a_row + 1 if captcha else 0
        if in_a_row or suggested:
            if len(self._in_a_row) >= REMEMBERED:
                self._in_a_row.pop(next(iter(self._in_a_row)))
            self._in_a_row[kind] = in_a_row

    def _is_suggested(self, request: Request, rule: CaptchaRule) -> bool:
        if rule.fields:
            return True
        return self._healths.of(request.url, rule).habit(request.method) is Habit.EACH


def _kind(request: Request, rule: CaptchaRule) -> tuple[object, ...]:
    """What requests for pages of one kind have in common."""
    parts = urlsplit(original_url(request))
    folder, _, page = parts.path.rpartition("/")
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    return (
        request.method,
        parts.netloc,
        re.sub(r"\d+", "0", folder),
        bool(page),
        tuple(sorted(names)),
        rule.image,
    )
