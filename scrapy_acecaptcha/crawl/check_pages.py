"""Pages to which walls redirect: which of them show a captcha, and what the duplicate filter drops.

All requests behind a wall may be redirected to one address, which Scrapy's duplicate filter takes
for a page that has been crawled: all but the first are dropped. They are brought back if that page
shows a captcha, and only then.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from twisted.internet.defer import Deferred

from scrapy_acecaptcha.crawl.waiting import Waits, fire
from scrapy_acecaptcha.rule_book import site_of

REMEMBERED = 4096  # addresses of captchas

State = Literal["captcha", "clear", "unknown"]


class CheckPages:
    """What a crawl knows of the pages that redirects have led to.

    Pages are told apart by what the duplicate filter tells them apart by, their fingerprints.

    :param waits: what the crawl waits by
    """

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._scheduled: set[int] = set()  # in this run of the crawl
        self._on_the_way: dict[int, list[Deferred[None]]] = {}  # redirected to, not seen yet
        self._captchas: OrderedDict[int, None] = OrderedDict()
        self._addresses: OrderedDict[str, bool] = OrderedDict()  # without query -> shows captchas
        self._sites: set[str] = set()  # that redirect to pages without a captcha, too

    # Scheduled, and dropped

    def scheduled(self, page: int, *, redirected: bool) -> None:
        """A request for *page* is scheduled, which the duplicate filter has to let through."""
        if redirected and page not in self._scheduled:
            self._on_the_way[page] = []
        self._scheduled.add(page)

    def state(self, page: int) -> State:
        """What is known of a page to which a redirect leads."""
        if page in self._captchas:
            return "captcha"
        is_known = page in self._scheduled and page not in self._on_the_way
        return "clear" if is_known else "unknown"

    async def wait(self, page: int) -> None:
        """Wait until somebody has seen what *page* shows, or has gone without a word.

        :raises Stopped: the crawl is stopping
        """
        event: Deferred[None] = Deferred()
        self._on_the_way.setdefault(page, []).append(event)
        await self._waits.on(event)

    def wake(self) -> None:
        """Let all who wait look again whether anybody is still on the way."""
        for page, waiting in list(self._on_the_way.items()):
            if waiting:
                self._on_the_way[page] = []
                for event in waiting:
                    fire(event)

    # Seen

    def seen(self, pages: list[int], url: str, *, captcha: bool) -> None:
        """A redirect led to *url*.

        :param pages: the page, and the redirects on the way to it
        :param captcha: it shows a captcha
        """
        self._scheduled.update(pages)
        for page in pages:
            if captcha:
                self._captchas[page] = None
                self._captchas.move_to_end(page)
            for event in self._on_the_way.pop(page, ()):
                fire(event)
        if not captcha:
            self._sites.add(site_of(url))
        if captcha or url.partition("?")[0] in self._addresses:
            self._addresses[url.partition("?")[0]] = captcha
        for known in (self._captchas, self._addresses):
            if len(known) > REMEMBERED:
                known.popitem(last=False)

    def expects_captcha(self, url: str) -> bool:
        """Whether a redirect to *url* is likely to lead to a captcha.

        The first redirect to a site is, until it is known what its redirects lead to.
        """
        return self._addresses.get(url.partition("?")[0], site_of(url) not in self._sites)
