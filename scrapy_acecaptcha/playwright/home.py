"""Where the page with the captcha was loaded from, to be loaded again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright.observer import Look
from scrapy_acecaptcha.playwright.scope import Scope
from scrapy_acecaptcha.playwright.sight import Sight

# What a navigation fails with that the page has replaced by another one, or by a download.
_INTERRUPTED = re.compile(
    r"interrupted by another navigation|ERR_ABORTED|Download is starting", re.IGNORECASE
)


class Home:
    """The address at which a captcha stood.

    :param timeout: milliseconds for a load
    """

    def __init__(self, scope: Scope, sight: Sight, timeout: float) -> None:
        self.load_by: Callable[[], Any] | None = None  # how the crawl makes its request again
        self._scope = scope
        self._sight = sight
        self._timeout = timeout
        self._url = ""
        self._origin: float | None = None  # of the document that was loaded from there

    def is_at(self, look: Look) -> None:
        """Remember the page with the first captcha that was seen."""
        self._url = self._url or str(self._scope.frame.url)
        self._origin = self._origin or look.origin

    def load(self) -> Steps[Look | None]:
        """Load the page again, and look at it when it is at rest."""
        url = self._url or str(self._scope.frame.url)
        if self.load_by is not None or url.startswith(("http:", "https:", "file:")):
            try:
                yield self.load_by() if self.load_by is not None else self._load(url)
            except PlaywrightError as error:
                if not _INTERRUPTED.search(error.message):  # the page is going somewhere itself
                    raise
        look: Look | None = yield self._sight.settle()
        self._origin = look.origin if look else None
        return look

    def _load(self, url: str) -> Steps[None]:
        """Load the page at which we started, even if a form has led elsewhere."""
        page = self._scope.page
        before = yield self._sight.look()
        is_home = before is not None and before.origin == self._origin
        if self._scope.is_gone:
            yield page.reload(timeout=self._timeout)
            return
        if not self._scope.is_whole_page or not is_home:
            # What stands here may be the answer to a POST, which a reload would send again.
            yield self._scope.frame.goto(url, timeout=self._timeout)
            look = yield self._sight.look()
            if look is None or before is None or look.origin != before.origin:
                return  # it was not just another #fragment of the same page
        yield page.reload(timeout=self._timeout)
