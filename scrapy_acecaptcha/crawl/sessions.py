"""Which browsing session a request belongs to: the one place that decides it."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import NamedTuple

from scrapy import Request

from scrapy_acecaptcha.crawl.inner_requests import INNER
from scrapy_acecaptcha.crawl.redirects import is_redirected, original_url
from scrapy_acecaptcha.crawl.scrapy_playwright import is_for_browser
from scrapy_acecaptcha.crawl.session_pool import SessionPool
from scrapy_acecaptcha.errors import RuleError
from scrapy_acecaptcha.rule_book import RuleBook, site_of
from scrapy_acecaptcha.rules import CaptchaRule

logger = logging.getLogger(__name__)

SESSION = "cookiejar"  # request.meta key that names a session
CHOSEN = "_acecaptcha_chosen"  # request.meta key: retries of a request when a pool chose for it


class Key(NamedTuple):
    """Names a browsing session at one site.

    :param site: host and port; in a pool the rule's key, as hosts may have cookies in common
    :param name: the cookiejar
    :param context: the browser context, for what scrapy-playwright downloads
    """

    site: str
    name: Hashable
    context: str | None


class SessionDropped(Exception):
    """A request met a captcha in a session that has been dropped meanwhile."""


class Sessions:
    """The browsing sessions of a crawl: a host (with its port) and a cookiejar each.

    :param rules: the crawl's rules
    :param has_cookies: COOKIES_ENABLED
    :raises RuleError: a rule has several sessions, and there are no cookies
    """

    def __init__(self, rules: RuleBook, *, has_cookies: bool) -> None:
        self._rules = rules
        self._has_cookies = has_cookies
        self._pools: dict[str, SessionPool] = {}
        self._warned: set[str] = set()
        for host, rule in rules.items():
            self._check_cookies(rule, host)

    def rule(self, request: Request) -> CaptchaRule | None:
        """The rule for *request*: the host's, with the request's own laid over it."""
        return self._rules.find(request.url, request.meta.get("acecaptcha"))

    def key(self, request: Request, rule: CaptchaRule | None = None) -> Key | None:
        """Name the session of *request*; None if nobody needs to wait for anybody.

        :param rule: its rule, if that has been looked up
        """
        meta = request.meta
        if INNER in meta:
            return None
        rule = rule or self.rule(request)
        if rule is None or not rule.session or _is_robots_txt(request):
            return None
        # scrapy-playwright notes its default only when the request is on its way.
        context = meta.get("playwright_context", "default") if is_for_browser(request) else None
        name = meta.get(SESSION)
        pool = None if rule.sessions == 1 or context else self._pools.get(self._host(request))
        if pool is not None and (name is None or pool.live(name)):
            return Key(pool.host, name, None)
        return Key(self._site(request), name, context)

    # Sessions side by side

    def pool(self, request: Request, rule: CaptchaRule | None = None) -> SessionPool | None:
        """The pool of the rule for *request*, None if it has but one session.

        :param rule: its rule, if that has been looked up
        :raises RuleError: there are no cookies
        """
        rule = rule or self.rule(request)
        if rule is None or rule.sessions == 1 or INNER in request.meta:
            return None
        host = self._host(request)
        if is_for_browser(request):
            self._warn_of_browser(host)
            return None
        self._check_cookies(rule, host)
        if request.meta.get("dont_merge_cookies") or _is_robots_txt(request):
            return None
        if host not in self._pools:
            self._pools[host] = SessionPool(host)
        self._pools[host].grow(rule.sessions)
        return self._pools[host]

    def must_choose(self, request: Request) -> bool:
        """Whether a session is to be chosen for a request that has a pool.

        So it is for one without a cookiejar, and for a retry, unless the spider chose the first.
        """
        meta = request.meta
        if meta.get(SESSION) is None:
            return True
        chosen_at = meta.get(CHOSEN)
        is_retry = chosen_at is not None and meta.get("retry_times", 0) > chosen_at
        return is_retry and not is_redirected(request)

    def choose(self, request: Request, name: Hashable) -> None:
        """Put *request* into the session called *name*."""
        request.meta[SESSION] = name
        request.meta[CHOSEN] = request.meta.get("retry_times", 0)

    def renew(self, request: Request, pool: SessionPool) -> bool:
        """Put *request* into the session that stands in for a dropped one; True if so."""
        name = request.meta.get(SESSION)
        live = pool.live(name)
        if live is None or live == name:
            return False
        request.meta[SESSION] = live
        return True

    def is_dropped(self, request: Request) -> bool:
        """Whether the session of *request* has been replaced."""
        pool, name = self.pool(request), request.meta.get(SESSION)
        return pool is not None and pool.live(name) not in (None, name)

    def _check_cookies(self, rule: CaptchaRule, host: str) -> None:
        if rule.sessions > 1 and not self._has_cookies:
            raise RuleError(
                "sessions are told apart by their cookies, and COOKIES_ENABLED is False: set it to "
                "True, or leave `sessions` out",
                field="sessions",
                host=host,
            )

    def _host(self, request: Request) -> str:
        """What the pool for *request* is known by."""
        return self._rules.name_for(original_url(request)) or self._site(request)

    def _site(self, request: Request) -> str:
        """Host and port that the spider asked; where redirected to, if only that has a rule."""
        url = original_url(request)
        if url is not request.url and self._rules.find(url, request.meta.get("acecaptcha")) is None:
            url = request.url
        return site_of(url).partition("://")[2]

    def _warn_of_browser(self, host: str) -> None:
        if host not in self._warned:
            self._warned.add(host)
            logger.warning(
                "The rule for %(host)s: `sessions` does nothing for requests that "
                "scrapy-playwright downloads, as their cookies belong to browser contexts. Spread "
                'the requests over some yourself, by meta["playwright_context"]',
                {"host": host},
            )


def _is_robots_txt(request: Request) -> bool:
    url = original_url(request)
    return url == f"{site_of(url)}/robots.txt"
