"""solve_captcha() and watch_captchas(): the Playwright front end, for both of its APIs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal, overload

from scrapy_acecaptcha.flow import CaptchaResult, drive, drive_async
from scrapy_acecaptcha.playwright.run import RuleLike, Session, checked_scope
from scrapy_acecaptcha.playwright.scope import AsyncScope, SyncScope
from scrapy_acecaptcha.playwright.watch import CaptchaWatch, watch_captchas
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.solver import Solver

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from scrapy_acecaptcha.playwright.rule_fields import RuleFields

__all__ = ["CaptchaWatch", "solve_captcha", "watch_captchas"]


@overload
def solve_captcha(
    page: SyncScope,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    optional: Literal[False] = False,
    **rule_fields: Unpack[RuleFields],
) -> CaptchaResult: ...
@overload
def solve_captcha(
    page: SyncScope,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    optional: bool,
    **rule_fields: Unpack[RuleFields],
) -> CaptchaResult | None: ...
@overload
def solve_captcha(
    page: AsyncScope,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    optional: Literal[False] = False,
    **rule_fields: Unpack[RuleFields],
) -> Coroutine[Any, Any, CaptchaResult]: ...
@overload
def solve_captcha(
    page: AsyncScope,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    optional: bool,
    **rule_fields: Unpack[RuleFields],
) -> Coroutine[Any, Any, CaptchaResult | None]: ...
def solve_captcha(
    page: SyncScope | AsyncScope,
    rule: RuleLike = None,
    *,
    solver: Solver | None = None,
    client: AceCaptchaClient | None = None,
    timeout: float | None = None,
    optional: bool = False,
    **rule_fields: Any,
) -> CaptchaResult | Coroutine[Any, Any, CaptchaResult | None] | None:
    """Solve the captcha on *page* and leave the page where its form leads.

    With ``after="return"`` the page then goes back to the address at which the captcha stood. What
    the page says in a way that leaves doubt is looked into by loading it again.

    Nothing is paid for before the field for the answer and the button have been found, and the
    image can be seen uncovered. Tabs of one browser context at the same site take turns, and those
    that find on reloading that another tab has opened the way return at once, with an empty answer
    after 0 attempts.

    :param page: page, frame or frame locator of Playwright's sync API, or of its async API: then
        the result must be awaited
    :param rule: how the captcha looks; its fields may be given one by one instead or in addition.
        Selectors may be whatever Playwright understands, and Locators of this page
    :param solver: brings client, journal and budget
    :param client: an AceCaptchaClient without these; by default one made of the environment and
        closed at the end
    :param timeout: milliseconds for the image to appear, for fields and buttons to be ready, and
        for each verdict; by default what ``page.set_default_timeout()`` has set, else 10 s
    :param optional: return None where no captcha appears: as soon as the page is at rest, or shows
        the rule's ``success``
    :return: the answer that the site took, and the page on which it stands
    :raises CaptchaNotFound: no captcha appeared, or the page went away
    :raises CaptchaImageError: there is no image that could be read
    :raises CaptchaFormError: the form cannot be filled in or sent
    :raises CaptchaUnsolved: every attempt was refused, or the answer was never sent
    :raises RuleError: the rule does not fit the page, or cannot work at all
    :raises ApiError: the recognition API said no past all retries
    :raises BudgetExhausted: the solver's budget is used up
    :raises SettingsError: there is no API token
    """
    session = Session(checked_scope(page), rule, rule_fields, timeout)
    steps = session.solve(solver, client, optional)
    return drive_async(steps) if session.is_async else drive(steps)
