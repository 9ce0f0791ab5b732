"""Which browsing session a request belongs to: the one place that decides it."""

from __future__ import annotations

from collections.abc import Hashable

from scrapy import Request

from scrapy_acecaptcha.crawl.inner_requests import INNER
from scrapy_acecaptcha.crawl.redirects import original_url
from scrapy_acecaptcha.crawl.scrapy_playwright import is_for_browser
from scrapy_acecaptcha.rule_book import RuleBook, site_of
from scrapy_acecaptcha.rules import CaptchaRule


class Sessions:
    """The browsing sessions of a crawl: a host (with its port) and a cookiejar each.

    :param rules: the crawl's rules
    """

    def __init__(self, rules: RuleBook) -> None:
        self._rules = rules

    def rule(self, request: Request) -> CaptchaRule | None:
        """The rule for *request*: the host's, with the request's own laid over it."""
        return self._rules.find(request.url, request.meta.get("acecaptcha"))

    def key(self, request: Request) -> Hashable | None:
        """Name the session of *request*; None if nobody needs to wait for anybody."""
        meta = request.meta
        if INNER in meta:
            return None
        rule = self.rule(request)
        if rule is None or not rule.session:
            return None
        url = original_url(request)
        site = site_of(url)
        if url == f"{site}/robots.txt":
            return None
        # scrapy-playwright notes its default only when the request is on its way.
        context = meta.get("playwright_context", "default") if is_for_browser(request) else None
        return site.partition("://")[2], meta.get("cookiejar"), context
