"""One run of solve_captcha(): rule, challenge and solver brought together."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Union

from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.flow import CaptchaResult, Steps
from scrapy_acecaptcha.playwright.challenge import PageChallenge
from scrapy_acecaptcha.playwright.scope import (
    AsyncScope,
    SyncScope,
    default_timeout,
    split_locators,
)
from scrapy_acecaptcha.playwright.tabs import in_turn
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.recognition.waits import AsyncioWaits, BlockingWaits
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.solver import Solver

RuleLike = Union[CaptchaRule, Mapping[str, Any], None]  # noqa: UP007 - needed at runtime in 3.10


def checked_scope(page: Any) -> Any:
    """*page*, if it is something of Playwright's that a captcha can stand on.

    :raises TypeError: it is not
    """
    if not isinstance(page, SyncScope | AsyncScope):
        raise TypeError(
            f"solve_captcha() works on a Playwright page, frame or frame locator, not on {page!r}"
        )
    return page


def parse_rule(
    rule: RuleLike, fields: Mapping[str, Any], host: str
) -> tuple[CaptchaRule, dict[str, Any]]:
    """The rule that *fields* laid over *rule* make, and the Locators in it by field.

    :raises RuleError: it cannot work
    """
    if isinstance(rule, CaptchaRule):
        words, locators = split_locators(fields)
        return rule.overlaid(words, host=host), locators
    if rule is not None and not isinstance(rule, Mapping):
        return CaptchaRule.parse(rule, host=host), {}
    words, locators = split_locators({**(rule or {}), **fields})
    return CaptchaRule.parse(words, host=host), locators


class Session:
    """What one call of solve_captcha() works with.

    :param given: page, frame or frame locator
    """

    def __init__(
        self, given: Any, rule: RuleLike, fields: Mapping[str, Any], timeout: float | None
    ) -> None:
        page = given.owner.page if hasattr(given, "owner") else getattr(given, "page", given)
        parsed, locators = parse_rule(rule, fields, getattr(given, "url", page.url))
        if timeout is None:
            timeout = default_timeout(page)
        self.challenge = PageChallenge(given, parsed, timeout or 1e9, locators=locators)
        self.is_async = self.challenge.is_async

    def solve(
        self, solver: Solver | None, client: AceCaptchaClient | None, optional: bool
    ) -> Steps[CaptchaResult | None]:
        """Find the captcha and solve it."""
        own = None if solver else Solver(client=client)
        tracing = self.challenge.page.context.tracing
        try:
            yield from self._group(tracing, "group", "solve_captcha")
            result: CaptchaResult | None = yield self.challenge.guarded(
                self._find_and_solve(solver or own, optional)
            )
            return result
        finally:
            if own is not None:
                own.close()
            yield from self._group(tracing, "group_end")

    def _group(self, tracing: Any, method: str, *name: str) -> Steps[None]:
        """Show all that is done here as one entry in traces (Playwright >= 1.49)."""
        if hasattr(tracing, method):
            with suppress(PlaywrightError):
                yield getattr(tracing, method)(*name)

    def _find_and_solve(self, solver: Any, optional: bool) -> Steps[CaptchaResult | None]:
        challenge = self.challenge
        if not (yield challenge.appear(optional=optional)):
            if optional:
                return None
            raise challenge.not_found()
        steps = solver.steps(challenge, AsyncioWaits() if self.is_async else BlockingWaits())
        if challenge.rule.session:
            steps = in_turn(challenge, steps)
        result: CaptchaResult = yield steps
        return replace(result, page=challenge.result_page, download=challenge.observer.download)
