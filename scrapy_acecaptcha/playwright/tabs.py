"""Tabs of one browser context take turns at a site's captcha.

These are the four steps of gate.py, except that nobody can hold a tab back: a tab waits while
another one solves, and reloads its page, which is stale by then, before anybody pays.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakSet

from scrapy_acecaptcha.flow import CaptchaResult, Steps
from scrapy_acecaptcha.playwright.scope import POLL_MS

if TYPE_CHECKING:
    from scrapy_acecaptcha.playwright.challenge import PageChallenge

LANDING_SECONDS = 2.0  # in which a tab that was just opened goes somewhere


@dataclass
class SiteLock:
    """What the tabs of a browser context have to know about one site.

    :param solved_at: milliseconds, by the browser's clock; pages older than that are stale
    """

    busy: bool = False
    solved_at: float = 0.0


_LOCKS: WeakKeyDictionary[Any, dict[str, SiteLock]] = WeakKeyDictionary()
_BLANK: WeakSet[Any] = WeakSet()  # tabs that were waited for and went nowhere


def in_turn(challenge: PageChallenge, steps: Steps[CaptchaResult]) -> Steps[CaptchaResult]:
    """Run *steps* when it is this tab's turn, if there is something left to solve by then.

    :return: with 0 attempts if another tab has opened the way
    """
    started = time.monotonic()
    page = challenge.page
    walls = _LOCKS.setdefault(page.context, {})
    wall = walls.setdefault(urlsplit(challenge.url).netloc, SiteLock())
    stale = wall.busy
    while wall.busy:
        yield page.wait_for_timeout(POLL_MS)
    wall.busy = True
    try:
        stale = (yield _await_in_flight(challenge)) or stale or challenge.loaded_at < wall.solved_at
        if stale and (yield challenge.may_be_reloaded()) and (yield challenge.reload()):
            return CaptchaResult("", 0, time.monotonic() - started, b"")
        result: CaptchaResult = yield steps
        with suppress(Exception):  # the page may be on its way elsewhere, or closed
            wall.solved_at = yield page.evaluate("Date.now()")
        return result
    finally:
        wall.busy = False


def _await_in_flight(challenge: PageChallenge) -> Steps[bool]:
    """Wait for tabs that are loading: what they get may still replace the session's cookie.

    :return: whether a tab has loaded something since this one has
    """
    page = challenge.page
    others = [tab for tab in page.context.pages if tab is not page]
    host = urlsplit(challenge.url).netloc
    if challenge.is_async:  # else nobody can send a tab anywhere as long as we wait

        def blank() -> list[Any]:
            return [tab for tab in others if tab.url == "about:blank" and not tab.is_closed()]

        give_up = time.monotonic() + LANDING_SECONDS
        while time.monotonic() < give_up and set(blank()) - set(_BLANK):
            yield page.wait_for_timeout(POLL_MS)
        _BLANK.update(blank())
    is_stale = False
    for tab in [tab for tab in others if urlsplit(tab.url).netloc == host]:
        with suppress(Exception):  # it takes longer, or was closed
            yield tab.wait_for_load_state("load", timeout=LANDING_SECONDS * 1000)
            # Not evaluate(), which has no timeout.
            loaded_at = yield tab.wait_for_function(
                "performance.timeOrigin", timeout=LANDING_SECONDS * 1000
            )
            is_stale = is_stale or (yield loaded_at.json_value()) > challenge.loaded_at
    return is_stale
