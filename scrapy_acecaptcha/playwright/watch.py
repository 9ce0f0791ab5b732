"""watch_captchas(): solves the captcha that comes up in front of an action."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, overload

from playwright import async_api, sync_api
from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.errors import AceCaptchaError, RuleError
from scrapy_acecaptcha.flow import CaptchaResult, Steps, drive, drive_async
from scrapy_acecaptcha.playwright.run import RuleLike, Session, parse_rule
from scrapy_acecaptcha.playwright.scope import locate, shown
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.solver import Solver

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from scrapy_acecaptcha.playwright.rule_fields import RuleFields

logger = logging.getLogger(__name__)

SyncWatched = sync_api.Page | sync_api.BrowserContext
AsyncWatched = async_api.Page | async_api.BrowserContext


class CaptchaWatch:
    """What :func:`watch_captchas` returns.

    ``results`` is the list of the :class:`~scrapy_acecaptcha.CaptchaResult` so far, ``error`` the
    last error, or None: the action in front of which the captcha stood then fails with Playwright's
    own TimeoutError.
    """

    def __init__(
        self,
        watched: Any,
        rule: CaptchaRule,
        locators: Mapping[str, Any],
        *,
        solver: Solver | None,
        client: AceCaptchaClient | None,
        timeout: float | None,
    ) -> None:
        self.results: list[CaptchaResult] = []
        self.error: AceCaptchaError | None = None
        self._watched = watched
        self._rule = rule
        self._locators = dict(locators)
        self._solver = solver
        self._client = client
        self._timeout = timeout
        self._is_async = isinstance(watched, AsyncWatched)
        self._handlers: dict[Any, Any] = {}  # page -> locator

    def stop(self) -> Any:
        """Watch no longer; in the async API, to be awaited."""
        return self._drive(self._stopping())

    def _drive(self, steps: Steps[Any]) -> Any:
        return drive_async(steps) if self._is_async else drive(steps)

    def start(self) -> Steps[CaptchaWatch]:
        """Watch the page, or all pages of the context, those opened later included."""
        if hasattr(self._watched, "pages"):
            self._watched.on("page", self._page_opens)
            for page in self._watched.pages:
                yield self._watch(page)
        else:
            yield self._watch(self._watched)
        return self

    def _page_opens(self, page: Any) -> Any:
        return self._drive(self._watch(page))

    def _watch(self, page: Any) -> Steps[None]:
        if page in self._handlers:
            return
        inner = page
        for frame in (self._rule.frame or "").split(" >> "):
            if frame.strip():
                inner = inner.frame_locator(frame.strip())
        image = self._locators.get("image")
        if image is None:
            image = locate(inner, self._rule.image)
        locator = shown(image).first

        async def solve_async() -> None:
            await drive_async(self._solve(page))

        def solve() -> None:
            drive(self._solve(page))

        self._handlers[page] = locator
        try:
            yield page.add_locator_handler(
                locator, solve_async if self._is_async else solve, no_wait_after=True
            )
        except PlaywrightError as error:
            logger.debug("A page that was just opened cannot be watched: %s", error)

    def _solve(self, page: Any) -> Steps[None]:
        try:
            session = Session(page, self._rule, self._locators, self._timeout)
            result = yield session.solve(self._solver, self._client, True)
        except AceCaptchaError as error:
            self.error = error
            logger.error("The captcha at %s was not solved: %s", page.url, error)
        else:
            if result is not None:
                self.results.append(result)

    def _stopping(self) -> Steps[None]:
        if hasattr(self._watched, "pages"):
            self._watched.remove_listener("page", self._page_opens)
        for page, locator in self._handlers.items():
            if not page.is_closed():
                yield page.remove_locator_handler(locator)
        self._handlers.clear()


@overload
def watch_captchas(
    watched: SyncWatched,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    **rule_fields: Unpack[RuleFields],
) -> CaptchaWatch: ...
@overload
def watch_captchas(
    watched: AsyncWatched,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    **rule_fields: Unpack[RuleFields],
) -> Coroutine[Any, Any, CaptchaWatch]: ...
def watch_captchas(
    watched: SyncWatched | AsyncWatched,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    **rule_fields: Any,
) -> CaptchaWatch | Coroutine[Any, Any, CaptchaWatch]:
    """Solve the captcha whenever it comes up in front of an action, until the watch is stopped.

    It hangs on Playwright's locator handlers: an action that waits until it can be done (``click``,
    ``fill``, ``check``, ``press``, ``wait_for``, expect...) has the captcha solved first; the time
    this takes counts toward the action's own timeout. What does not wait (``goto``, ``content``,
    ``count``, ``inner_text``) never does.

    :param watched: page or browser context of Playwright's sync API, or of its async API: then the
        result must be awaited. A context's pages that are opened later are watched, too
    :param rule: how the captcha looks; ``image`` must be a selector, not ``auto``
    :param solver: brings client, journal and budget
    :param client: an AceCaptchaClient without these; by default one made of the environment
    :param timeout: milliseconds for each wait, as for :func:`solve_captcha`
    :return: a handle with ``stop()``, ``results`` and ``error``
    :raises RuleError: the rule cannot work
    """
    if not isinstance(watched, SyncWatched | AsyncWatched):
        raise TypeError(
            f"watch_captchas() works on a Playwright page or browser context, not on {watched!r}"
        )
    parsed, locators = parse_rule(rule, rule_fields, getattr(watched, "url", ""))
    if parsed.image == "auto":
        raise RuleError("must be a selector here: Playwright waits for it", field="image")
    watch = CaptchaWatch(watched, parsed, locators, solver=solver, client=client, timeout=timeout)
    return drive_async(watch.start()) if isinstance(watched, AsyncWatched) else drive(watch.start())
