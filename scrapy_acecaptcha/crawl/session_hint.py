"""A word to users whose captchas are bound to no session: their requests wait in vain."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scrapy_acecaptcha.crawl.challenge import ScrapyChallenge
from scrapy_acecaptcha.recognition.client import DEFAULT_CONCURRENCY

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler

    from scrapy_acecaptcha.crawl.each_time import EachTime
    from scrapy_acecaptcha.rules import CaptchaRule

logger = logging.getLogger(__name__)

ENOUGH = 2  # answers that the site took without a cookie


class SessionHint:
    """Says, once for each rule, that ``"session": False`` would be faster.

    A site that takes the answers of a form that asks each time, and neither gets nor sets a cookie,
    tells its captchas by something in the form. (Answers of one session never come out of order,
    which would tell the same: they would spoil each other where captchas are bound to it.)

    :param each_time: knows which pages ask for a captcha each time
    """

    def __init__(self, crawler: Crawler, each_time: EachTime) -> None:
        self._crawler = crawler
        self._each_time = each_time
        self._taken: dict[str, int] = {}  # by the rule's key

    def solved(self, name: str, challenge: object) -> None:
        """Note that an answer was taken.

        :param name: the rule's key
        """
        if not name or self._taken.get(name, 0) >= ENOUGH:
            return
        if not isinstance(challenge, ScrapyChallenge) or not challenge.was_without_cookies:
            return
        request, rule = challenge.request, challenge.rule
        if self._times(rule) > 1 and self._each_time.expects(request, rule):
            self._taken[name] = self._taken.get(name, 0) + 1
            if self._taken[name] == ENOUGH:
                self._tell(name, request, rule)

    def _times(self, rule: CaptchaRule) -> int:
        """How many captchas there would be at a time for one of today."""
        settings = self._crawler.settings
        at_once = [
            settings.getint("CONCURRENT_REQUESTS"),
            settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN"),
            settings.getint("ACECAPTCHA_CONCURRENCY", DEFAULT_CONCURRENCY),
        ]
        return min(filter(None, at_once)) // rule.sessions  # 0: no limit

    def _tell(self, name: str, request: Request, rule: CaptchaRule) -> None:
        logger.info(
            "The captchas of %(name)s seem to be bound to their forms and not to the browsing "
            "session: the site took %(count)d answers that came without a cookie (%(url)s). With "
            '"session": False in its rule they need not wait for one another, and go up to '
            "%(times)d times as fast",
            {"name": name, "count": ENOUGH, "url": request.url, "times": self._times(rule)},
            extra={"spider": self._crawler.spider},
        )
