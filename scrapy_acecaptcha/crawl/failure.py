"""What becomes of a request whose captcha was not solved: made again, kept for later, or failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from scrapy import Request
from scrapy.downloadermiddlewares.retry import get_retry_request

from scrapy_acecaptcha.crawl.image_limit import forget
from scrapy_acecaptcha.crawl.redirects import again
from scrapy_acecaptcha.crawl.scrapy_internals import close_spider
from scrapy_acecaptcha.crawl.waiting import Stopped, Waits
from scrapy_acecaptcha.errors import (
    AceCaptchaError,
    ApiAuthError,
    ApiBalanceError,
    ApiError,
    BudgetExhausted,
    CaptchaUnsolved,
    JournalError,
)
from scrapy_acecaptcha.signals import captcha_failed

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

logger = logging.getLogger(__name__)


def is_fatal(error: BaseException) -> bool:
    """Whether no other call would fare better, so that the spider has to close."""
    return isinstance(error, (ApiAuthError, ApiBalanceError, BudgetExhausted, JournalError))


class FailurePolicy:
    """Decides what becomes of requests whose captcha was not solved.

    :param count: adds to a stat
    """

    def __init__(self, crawler: Crawler, waits: Waits, count: Callable[[str], None]) -> None:
        self._crawler = crawler
        self._waits = waits
        self._count = count

    def request_after(
        self, request: Request, error: Stopped | AceCaptchaError, *, sent: Request | None = None
    ) -> Request:
        """The request once more, or raise *error* for its errback.

        :param sent: the request as redirects have left it, which the errback gets
        """
        if isinstance(error, Stopped):
            return again(request)
        if is_fatal(error):
            self.close_spider(error)
            return again(request)
        try:
            if isinstance(error, (CaptchaUnsolved, ApiError)):
                return self.retry(request, error)
            self.failed(request, error)
            raise error
        except AceCaptchaError:
            forget(request, sent or request)
            raise

    def retry(self, request: Request, error: CaptchaUnsolved | ApiError) -> Request:
        """The request once more, as RetryMiddleware would; else the error for its errback."""
        self.failed(request, error)
        spider = self._crawler.spider
        assert spider is not None
        reason = error.code if isinstance(error, ApiError) else "captcha_unsolved"
        retry = None
        may_retry = self._crawler.settings.getbool("RETRY_ENABLED") and not (
            request.meta.get("dont_retry") or getattr(error, "retry", True) is False
        )
        if may_retry:
            retry = get_retry_request(
                request,
                spider=spider,
                reason=reason,
                max_retry_times=request.meta.get("max_retry_times"),
                priority_adjust=request.meta.get("priority_adjust"),
            )
        if retry is not None:
            logger.warning(
                "%(request)s is to be tried again: %(error)s",
                {"request": request, "error": error},
                extra={"spider": spider},
            )
            return retry
        logger.error(
            "%(kind)s at %(request)s: %(error)s",
            {"kind": type(error).__name__, "request": request, "error": error},
            extra={"spider": spider},
        )
        raise error

    def failed(self, request: Request, error: AceCaptchaError) -> None:
        self._count("failed")
        self._crawler.signals.send_catch_log(
            captcha_failed, request=request, error=error, spider=self._crawler.spider
        )

    def close_spider(self, error: AceCaptchaError) -> None:
        """Close the spider, once: no other call would fare better."""
        if self._waits.stopped:
            return
        self._waits.stop()
        reason = "invalid_token"
        if isinstance(error, ApiBalanceError):
            reason = "used_up"
        elif isinstance(error, BudgetExhausted):
            reason = "budget_exhausted"
        elif isinstance(error, JournalError):
            reason = "journal_failed"
        close_spider(self._crawler, f"acecaptcha_{reason}", error)
