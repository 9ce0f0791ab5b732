"""AceCaptchaMiddleware: the Scrapy front end; wiring, no policy."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy import Request, signals
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import NotConfigured
from scrapy.utils.asyncio import create_looping_call

from scrapy_acecaptcha.challenge import (
    INNER,
    ScrapyChallenge,
    note_original,
    original_request,
    shows_captcha,
)
from scrapy_acecaptcha.client import AceCaptchaClient
from scrapy_acecaptcha.errors import (
    AceCaptchaError,
    ApiAuthError,
    ApiBalanceError,
    ApiError,
    CaptchaUnsolved,
    SettingsError,
)
from scrapy_acecaptcha.flow import CaptchaResult, drive_async, solve
from scrapy_acecaptcha.gate import Gate
from scrapy_acecaptcha.images import DEFAULT_MAX_BYTES
from scrapy_acecaptcha.rules import CaptchaRule, RuleBook
from scrapy_acecaptcha.waiting import Stopped, Waits

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5  # between two looks whether the crawl is stopping: Scrapy has no signal for it
MAX_HELD = 1000  # requests held beyond CONCURRENT_REQUESTS
_SENT_AT = "_acecaptcha_sent_at"  # request.meta key: solves in the crawl when it was first sent


class _CallCounter:
    """The meter of one solve: counts calls in the client's thread, read in Scrapy's."""

    def __init__(self) -> None:
        self.sent = 0
        self.errors: list[str] = []

    def sending(self, image: bytes) -> None:
        self.sent += 1

    def answered(self, outcome: str | ApiError, seconds: float, trace_id: str | None) -> None:
        if isinstance(outcome, ApiError):
            self.errors.append(outcome.code)


class AceCaptchaMiddleware:
    """Downloader middleware that solves the captchas of the sites in ACECAPTCHA_RULES.

    :raises SettingsError: rules but no token, or a setting that cannot work; the crawl does not
        start
    :raises scrapy.exceptions.NotConfigured: ACECAPTCHA_ENABLED is False, or neither rules nor token
    """

    def __init__(self, crawler: Crawler) -> None:
        settings = crawler.settings
        if not settings.getbool("ACECAPTCHA_ENABLED", True):
            raise NotConfigured
        self.crawler = crawler
        self.rules = RuleBook(settings.get("ACECAPTCHA_RULES") or {})
        self.max_attempts = _count(settings, "ACECAPTCHA_MAX_ATTEMPTS", 3, least=1)
        self.max_image_bytes = _count(
            settings, "ACECAPTCHA_MAX_IMAGE_BYTES", DEFAULT_MAX_BYTES, least=1
        )
        try:
            self.client = AceCaptchaClient(
                token=settings.get("ACECAPTCHA_TOKEN"),
                base_url=settings.get("ACECAPTCHA_API_BASE_URL"),
                timeout=settings.getfloat("ACECAPTCHA_TIMEOUT", 130.0),
                retries=_count(settings, "ACECAPTCHA_RETRIES", 4, least=0),
                concurrency=_count(settings, "ACECAPTCHA_CONCURRENCY", 16, least=1),
            )
        except SettingsError:
            if self.rules:
                raise
            raise NotConfigured("there are no ACECAPTCHA_RULES and no ACECAPTCHA_TOKEN") from None
        self._overlaid: dict[tuple[str, str], CaptchaRule] = {}
        self._waits = Waits()
        self.gate = Gate(
            self._waits,
            is_landed=lambda request: request not in crawler.engine.downloader.active,
            width=settings.getint("CONCURRENT_REQUESTS") or 16,
        )
        self._held = 0
        self._closing = False
        self._tick = create_looping_call(self._look_around)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Make the middleware and let it see what is in flight."""
        middleware = cls(crawler)
        for method, signal in (
            (middleware.spider_opened, signals.spider_opened),
            (middleware.spider_closed, signals.spider_closed),
            (middleware.request_reached_downloader, signals.request_reached_downloader),
            (middleware.request_left_downloader, signals.request_left_downloader),
        ):
            crawler.signals.connect(method, signal=signal)
        return middleware

    # What Scrapy calls

    def spider_opened(self, spider: Spider) -> None:
        """Start to look out for the end of the crawl."""
        self._stats.set_value("acecaptcha/challenges", 0)
        self._tick.start(TICK_SECONDS, now=False)

    def spider_closed(self, spider: Spider) -> None:
        """Close the connections to the API."""
        if self._tick.running:
            self._tick.stop()
        self.client.close()

    def request_reached_downloader(self, request: Request, spider: Spider) -> None:
        """Count *request* as in flight in its session."""
        key = self._session_key(request)
        if key is not None:
            self.gate.session(key).takes_off(request)

    def request_left_downloader(self, request: Request, spider: Spider) -> None:
        """The response of *request* is on its way through the middlewares."""
        key = self._session_key(request)
        if key is not None:
            self.gate.session(key).leaves(request)

    async def process_request(self, request: Request) -> Request | None:
        """Hold a request of a session whose captcha is being solved."""
        if INNER in request.meta:
            return None
        request.meta.pop("acecaptcha_result", None)  # a page's result, passed on by response.meta
        key = self._session_key(request)
        if key is None:
            return None
        note_original(request)
        try:
            if self.gate.session(key).is_full:
                await self._hold(request, key)
        except Stopped:
            return _again(request)
        if not request.meta.get("redirect_urls"):
            request.meta[_SENT_AT] = self.gate.solves
        elif self.gate.solved_since(key, request.meta.get(_SENT_AT, 0)):
            # It was on its way to a captcha page that meanwhile was passed: who knows what that
            # page shows by now.
            request.meta[_SENT_AT] = self.gate.solves
            return _again(original_request(request))
        return None

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        """Solve the captcha that *response* shows instead of what the spider asked for."""
        if INNER in request.meta:
            return response
        key = self._session_key(request)
        stale = "cached" in response.flags  # Scrapy's HTTP cache keeps captchas, too
        if key is not None:
            stale = self.gate.session(key).lands(request) or stale
        rule = self._rule(request)
        if rule is None or not shows_captcha(response, rule):
            return response
        self._count("challenges")
        original = original_request(request)
        challenge = ScrapyChallenge(
            original, response, rule, self.crawler.engine.download_async, self.max_image_bytes
        )
        try:
            result = await self._pass(challenge, key, stale)
        except Stopped:
            return _again(original)
        except (ApiAuthError, ApiBalanceError) as error:
            self._close_spider(error)
            return _again(original)
        except (CaptchaUnsolved, ApiError) as error:
            return self._retried(original, error)
        except AceCaptchaError:
            self._count("failed")
            raise
        return self._handed_over(challenge, result)

    # Passing a captcha

    async def _pass(
        self, challenge: ScrapyChallenge, key: Hashable | None, stale: bool
    ) -> CaptchaResult | None:
        """Get behind the captcha; None if there was nothing left to solve."""
        if key is None:
            if stale and await self._replayed(challenge):
                return None
            return await self._solve(challenge)
        session = self.gate.session(key)
        if session.shut:
            self._count("held")
        while True:
            async with session.turn(stale) as turn:
                if turn.stale and await self._replayed(challenge):
                    session.wall_is_down(turn)
                    return None
                if turn.leads:
                    result = await self._solve(challenge)
                    self.gate.note_solve(key)
                    return result
            stale = True

    async def _replayed(self, challenge: ScrapyChallenge) -> bool:
        self._count("replayed")
        return await challenge.reload()

    async def _solve(self, challenge: ScrapyChallenge) -> CaptchaResult:
        started = time.monotonic()
        try:
            result = await drive_async(
                solve(
                    challenge,
                    self._read,
                    self._tell,
                    challenge.rule.max_attempts or self.max_attempts,
                )
            )
        finally:
            self._count("elapsed_seconds", time.monotonic() - started)
        self._count("solved")
        logger.info(
            "Solved the captcha at %(url)s: %(attempts)d answers, %(elapsed).2f s",
            {"url": challenge.url, "attempts": result.attempts, "elapsed": result.elapsed},
            extra={"spider": self.crawler.spider},
        )
        return result

    async def _read(self, image: bytes) -> str:
        calls = _CallCounter()
        try:
            return await self._waits.for_thread(self.client.submit(image, meter=calls))
        finally:
            self._count("api_requests", calls.sent)
            for code in calls.errors:
                self._count(f"api_errors/{code}")

    def _tell(self, outcome: str) -> None:
        if outcome != "accepted":
            self._count(outcome)

    def _handed_over(self, challenge: ScrapyChallenge, result: CaptchaResult | None) -> Response:
        """The page behind the captcha, as the answer to the request that the spider made."""
        page = challenge.page
        page.request = challenge.request
        page.flags.append("acecaptcha")
        if result is not None:
            challenge.request.meta["acecaptcha_result"] = {
                "answer": result.answer,
                "attempts": result.attempts,
                "elapsed": result.elapsed,
            }
        return page

    def _retried(self, request: Request, error: CaptchaUnsolved | ApiError) -> Request:
        """The request once more, as RetryMiddleware would; else the error for its errback."""
        self._count("failed")
        spider = self.crawler.spider
        assert spider is not None
        reason = error.code if isinstance(error, ApiError) else "captcha_unsolved"
        again = None
        if self.crawler.settings.getbool("RETRY_ENABLED") and not request.meta.get("dont_retry"):
            again = get_retry_request(
                request,
                spider=spider,
                reason=reason,
                max_retry_times=request.meta.get("max_retry_times"),
                priority_adjust=request.meta.get("priority_adjust"),
            )
        if again is not None:
            return again
        logger.error(
            "%(kind)s at %(request)s: %(error)s",
            {"kind": type(error).__name__, "request": request, "error": error},
            extra={"spider": spider},
        )
        raise error

    # Holding requests

    async def _hold(self, request: Request, key: Hashable) -> None:
        """Wait at the gate without taking the place of other hosts' requests.

        Scrapy counts what a middleware holds as being downloaded, so the limit goes up as long as
        it waits; and the scheduler, which prefers the hosts with the fewest downloads, is shown it.
        """
        self._count("held")
        downloader = self.crawler.engine.downloader
        slot = downloader.slots.get(downloader.get_slot_key(request))
        extra = int(downloader.total_concurrency > 0 and self._held < MAX_HELD)
        self._held += 1
        downloader.total_concurrency += extra
        if slot is not None:
            slot.active.add(request)
        self._wake_engine()
        try:
            await self.gate.session(key).hold()
        finally:
            self._held -= 1
            downloader.total_concurrency -= extra
            if slot is not None:
                slot.active.discard(request)

    def _wake_engine(self) -> None:
        """Have the engine look for more requests now, not at its next heartbeat."""
        slot = self.crawler.engine._slot
        if slot is not None:
            slot.nextcall.schedule()

    # Rules and sessions

    def _rule(self, request: Request) -> CaptchaRule | None:
        """The rule for *request*: the host's, with the request's own laid over it."""
        own = request.meta.get("acecaptcha")
        if own is False:
            return None
        rule = self.rules.find(request.url)
        if own is None or own is True:
            return rule
        if isinstance(own, CaptchaRule):
            return own
        host = urlsplit(request.url).netloc
        if not isinstance(own, Mapping):
            return CaptchaRule.parse(own, host=f'{host} in request.meta["acecaptcha"]')
        cache_key = (host, json.dumps(own, sort_keys=True, default=repr))
        found = self._overlaid.get(cache_key)
        if found is None:
            where = f'{host} in request.meta["acecaptcha"]'
            found = rule.overlaid(own, host=where) if rule else CaptchaRule.parse(own, host=where)
            found.check_selectors(host=where)
            if len(self._overlaid) > 1000:
                self._overlaid.clear()
            self._overlaid[cache_key] = found
        return found

    def _session_key(self, request: Request) -> Hashable | None:
        """Name the browsing session of *request*; None if nobody needs to wait for anybody."""
        if INNER in request.meta or request.meta.get("acecaptcha") is False:
            return None
        rule = self._rule(request)
        if rule is None or not rule.session:
            return None
        url = (request.meta.get("redirect_urls") or [request.url])[0]
        parts = urlsplit(url)
        if parts.path == "/robots.txt":
            return None
        meta = request.meta
        return parts.netloc, meta.get("cookiejar"), meta.get("playwright_context")

    # The end of the crawl

    def _look_around(self) -> None:
        """Let go of everyone who waits once the crawl is stopping, so that it can."""
        engine = self.crawler.engine
        slot = engine._slot
        if not engine.running or (slot is not None and slot.closing is not None):
            self._waits.stop()
        else:
            self.gate.tidy()

    def _close_spider(self, error: ApiError) -> None:
        """Close the spider, once: the API will refuse every other call, too."""
        self._waits.stop()
        if self._closing:
            return
        self._closing = True
        reason = (
            "acecaptcha_used_up"
            if isinstance(error, ApiBalanceError)
            else "acecaptcha_invalid_token"
        )
        logger.error(
            "Closing the spider: %(error)s", {"error": error}, extra={"spider": self.crawler.spider}
        )
        from scrapy.utils.defer import _schedule_coro  # noqa: PLC0415

        _schedule_coro(self.crawler.engine.close_spider_async(reason=reason))

    @property
    def _stats(self) -> Any:
        return self.crawler.stats

    def _count(self, event: str, by: float = 1) -> None:
        if by:
            self._stats.inc_value(f"acecaptcha/{event}", by)


def _again(request: Request) -> Request:
    """*request* for the scheduler; not to be filtered as the duplicate that it is."""
    return request.replace(dont_filter=True)


def _count(settings: Any, name: str, default: int, *, least: int) -> int:
    try:
        value = settings.getint(name, default)
    except ValueError:
        value = None
    if value is None or value < least:
        raise SettingsError(
            f"{name} must be a whole number of at least {least}, not {settings.get(name)!r}"
        )
    return int(value)
