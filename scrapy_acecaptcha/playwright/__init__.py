"""solve_captcha(page, ...): the Playwright front end, for both of Playwright's APIs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal, overload

from scrapy_acecaptcha.flow import CaptchaResult, Step, Steps, drive, drive_async, solve
from scrapy_acecaptcha.playwright.challenge import (
    TIMEOUT_MS,
    AsyncScope,
    PageChallenge,
    SyncScope,
)
from scrapy_acecaptcha.playwright.tabs import in_turn
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.rules import CaptchaRule

__all__ = ["solve_captcha"]

MAX_ATTEMPTS = 3  # submissions per challenge, unless the rule says otherwise


@overload
def solve_captcha(
    page: SyncScope,
    rule: CaptchaRule | Mapping[str, Any] | None = None,
    *,
    client: AceCaptchaClient | None = None,
    timeout: float = TIMEOUT_MS,
    optional: Literal[False] = False,
    **rule_fields: Any,
) -> CaptchaResult: ...
@overload
def solve_captcha(
    page: SyncScope,
    rule: CaptchaRule | Mapping[str, Any] | None = None,
    *,
    client: AceCaptchaClient | None = None,
    timeout: float = TIMEOUT_MS,
    optional: bool,
    **rule_fields: Any,
) -> CaptchaResult | None: ...
@overload
def solve_captcha(
    page: AsyncScope,
    rule: CaptchaRule | Mapping[str, Any] | None = None,
    *,
    client: AceCaptchaClient | None = None,
    timeout: float = TIMEOUT_MS,
    optional: Literal[False] = False,
    **rule_fields: Any,
) -> Coroutine[Any, Any, CaptchaResult]: ...
@overload
def solve_captcha(
    page: AsyncScope,
    rule: CaptchaRule | Mapping[str, Any] | None = None,
    *,
    client: AceCaptchaClient | None = None,
    timeout: float = TIMEOUT_MS,
    optional: bool,
    **rule_fields: Any,
) -> Coroutine[Any, Any, CaptchaResult | None]: ...
def solve_captcha(
    page: SyncScope | AsyncScope,
    rule: CaptchaRule | Mapping[str, Any] | None = None,
    *,
    client: AceCaptchaClient | None = None,
    timeout: float = TIMEOUT_MS,
    optional: bool = False,
    **rule_fields: Any,
) -> CaptchaResult | Coroutine[Any, Any, CaptchaResult | None] | None:
    """Solve the captcha on *page* and leave the page where its form leads.

    With ``after="return"`` the page then goes back to the address at which the captcha stood.

    Tabs of one browser context at the same site take turns, and those that find on reloading that
    another tab has opened the way return at once, with an empty answer after 0 attempts.

    :param page: page or frame of Playwright's sync API, or of its async API: then the result must
        be awaited
    :param rule: how the captcha looks; its fields may be given one by one instead or in addition.
        Selectors may be whatever Playwright understands
    :param client: by default one made of the environment and closed at the end; hand in your own
        to share its connections and its limit of concurrent calls
    :param timeout: milliseconds for the image to appear and for each verdict
    :param optional: return None where no captcha appears
    :return: the answer that the site took, None where no captcha appeared
    :raises CaptchaNotFound: no captcha appeared, or the page went away
    :raises CaptchaImageError: there is no image that could be read
    :raises CaptchaFormError: the form cannot be filled in or sent
    :raises CaptchaUnsolved: every attempt was refused
    :raises RuleError: the rule does not fit the page, or cannot work at all
    :raises ApiError: the recognition API said no past all retries
    :raises SettingsError: there is no API token
    """
    if not isinstance(page, SyncScope | AsyncScope):
        raise TypeError(f"solve_captcha() works on a Playwright page or frame, not on {page!r}")
    if rule is None:
        parsed = CaptchaRule.parse(rule_fields, host=page.url)
    else:
        parsed = CaptchaRule.parse(rule, host=page.url).overlaid(rule_fields, host=page.url)
    challenge = PageChallenge(page, parsed, timeout)
    if challenge.is_async:
        return drive_async(_solve(challenge, client, optional))
    return drive(_solve(challenge, client, optional))


def _solve(
    challenge: PageChallenge, client: AceCaptchaClient | None, optional: bool
) -> Steps[CaptchaResult | None]:
    own_client = AceCaptchaClient() if client is None else None
    the_client = client or own_client
    assert the_client is not None
    read = the_client.recognize_async if challenge.is_async else the_client.recognize
    try:
        result: CaptchaResult | None = yield challenge.guarded(
            _find_and_solve(challenge, read, optional)
        )
        return result
    finally:
        if own_client is not None:
            own_client.close()


def _find_and_solve(
    challenge: PageChallenge, read: Callable[[bytes], Step[str]], optional: bool
) -> Steps[CaptchaResult | None]:
    if not (yield challenge.appear()):
        if optional:
            return None
        raise challenge.not_found()
    attempts = challenge.rule.max_attempts or MAX_ATTEMPTS
    steps = solve(challenge, read, lambda outcome: None, attempts)
    result: CaptchaResult = yield (in_turn(challenge, steps) if challenge.rule.session else steps)
    return result
