"""Where on a page the captcha stands: the frame, and the elements that a rule names in it.

Methods that ask the browser are generators that yield Playwright's calls, which are awaitables in
one API and results in the other; the drivers of flow.py run both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from playwright import async_api, sync_api
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from scrapy_acecaptcha.errors import CaptchaError, CaptchaFormError, CaptchaNotFound, RuleError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright.in_page import SHOWN_NAMES
from scrapy_acecaptcha.rules import SELECTORS, CaptchaRule
from scrapy_acecaptcha.selectors import is_xpath

SyncScope = sync_api.Page | sync_api.Frame | sync_api.FrameLocator
AsyncScope = async_api.Page | async_api.Frame | async_api.FrameLocator
SyncLocator = sync_api.Locator | sync_api.FrameLocator
AsyncLocator = async_api.Locator | async_api.FrameLocator
AnyLocator = SyncLocator | AsyncLocator

POLL_MS = 50
DEFAULT_TIMEOUT_MS = 10_000.0

GONE = re.compile(r"crashed|has been closed|connection closed|detached|already stopped", re.I)
_IN_THE_WAY = re.compile(r"(<[^\n]*?) intercepts pointer events")
_BAD_SELECTOR = re.compile(r"while (?:parsing|querying)|not a valid|Unknown engine|selector", re.I)


def split_locators(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide a rule's fields from the Locators among them.

    :return: fields in which words stand for the Locators, and the Locators by field
    """
    locators = {
        name: value
        for name, value in fields.items()
        if isinstance(value, SyncLocator | AsyncLocator)
    }
    wrong = [name for name in locators if name not in SELECTORS]
    if wrong:
        raise RuleError("takes no Locator", field=wrong[0])
    return {**fields, **{name: _wording(value) for name, value in locators.items()}}, locators


def _wording(locator: Any) -> str:
    """What a Locator looks for, as Playwright shows it."""
    found = re.search(r"selector=(['\"])(.*)\1>$", repr(locator), re.S)
    return found.group(2).replace("\\'", "'") if found else repr(locator)


def locate(scope: Any, selector: str) -> Any:
    """Make a locator of a selector as rules write it: Playwright's own, or our short XPath."""
    if is_xpath(selector) and not selector.startswith("xpath="):
        selector = f"xpath={selector}"
    return scope.locator(selector)


def shown(locator: Any) -> Any:
    """Those elements of *locator* that can be seen."""
    return locator.locator("visible=true")


def first_shown(scope: Any, selector: str) -> Any:
    """The first element that *selector* matches and that can be seen."""
    return shown(locate(scope, selector)).first


def default_timeout(page: Any) -> float:
    """The page's own default timeout in milliseconds, if somebody has set one.

    Playwright has no public name for it.
    """
    settings = getattr(getattr(page, "_impl_obj", None), "_timeout_settings", None)
    while settings is not None:
        value = getattr(settings, "_default_timeout", None)
        if isinstance(value, (int, float)):
            return float(value)
        settings = getattr(settings, "_parent", None)
    return DEFAULT_TIMEOUT_MS


class Scope:
    """The frame in which a captcha stands, found anew when it is replaced.

    :param given: what the user handed in: page, frame or frame locator, of either API
    :param locators: those that the user gave instead of selectors, by the rule's field
    """

    def __init__(self, given: Any, rule: CaptchaRule, locators: Mapping[str, Any]) -> None:
        self.is_async = isinstance(given, AsyncScope)
        self.locators = dict(locators)
        self._frames: list[Any] = []
        self._start: Any = given
        if isinstance(given, sync_api.FrameLocator | async_api.FrameLocator):
            self._frames.append(given.owner)
            self.page: Any = given.owner.page
            self._start = self.page
        else:
            self.page = given if hasattr(given, "main_frame") else given.page
        self._frames += self._named_frames(rule)
        image = self.locators.get("image")
        self._is_by_image = image is not None and not self._frames
        self._frame: Any = None if self._frames else _frame_of(self._start)

    def _named_frames(self, rule: CaptchaRule) -> list[Any]:
        given = self.locators.pop("frame", None)
        if given is not None:
            return [getattr(given, "owner", given)]
        return [part.strip() for part in (rule.frame or "").split(" >> ") if part.strip()]

    @property
    def frame(self) -> Any:
        """The frame; the page's main frame where it was not found, or has gone."""
        return self.page.main_frame if self.is_gone else self._frame

    @property
    def is_whole_page(self) -> bool:
        """Whether no frame inside of the page is meant."""
        return bool(self._frame == self.page.main_frame)

    @property
    def is_gone(self) -> bool:
        """Whether the frame has been taken out of the page, or was never there."""
        return self._frame is None or bool(self._frame.is_detached())

    def enter(self) -> Steps[bool]:
        """Find the frame as it is now; False if it is not there.

        :raises RuleError: what the rule calls a frame is none, or is several
        """
        if not self.is_gone and not self._is_by_image:
            return True
        if self._is_by_image:
            entered: bool = yield self._enter_frame_of_image()
            return entered
        inner = _frame_of(self._start)
        for part in self._frames:
            locator = locate(inner, part) if isinstance(part, str) else part
            names = yield shown(locator).evaluate_all(SHOWN_NAMES)
            if len(names) > 1:
                raise self.ambiguous("frame", str(part), names)
            if not names and not (yield locator.count()):
                return False
            handle = yield (shown(locator) if names else locator).first.element_handle()
            inner = yield handle.content_frame()
            if inner is None:
                raise RuleError(f"{part!r} is no frame", field="frame", host=self.page.url)
        self._frame = inner
        return True

    def _enter_frame_of_image(self) -> Steps[bool]:
        """The user's own locator may lead into a frame: the form stands in the same one."""
        image = self.locators["image"].first
        if not (yield self.locators["image"].count()):
            return not self.is_gone
        handle = yield image.element_handle()
        owner = yield handle.owner_frame()
        yield handle.dispose()
        self._frame = owner or self._frame
        self._is_by_image = False
        return True

    # Elements

    def locator(self, rule: CaptchaRule, field: str) -> Any:
        """What the rule's *field* names; None if the rule does not have it."""
        if field in self.locators:
            return self.locators[field]
        selector = getattr(rule, field)
        return None if selector is None else locate(self.frame, selector)

    def only_shown(self, rule: CaptchaRule, field: str) -> Steps[Any]:
        """The one visible element that the rule's *field* names; None if there is none.

        :raises RuleError: there are several
        """
        visible = shown(self.locator(rule, field))
        names = yield visible.evaluate_all(SHOWN_NAMES)
        if len(names) > 1:
            raise self.ambiguous(field, getattr(rule, field), names)
        return visible.first if names else None

    def missing(self, rule: CaptchaRule, field: str, is_there: bool) -> RuleError:
        """The error for a field of the rule that names nothing, or nothing that can be seen."""
        selector = getattr(rule, field)
        message = f"no element matches {selector!r}"
        if is_there:
            message = f"what {selector!r} matches cannot be seen"
        return RuleError(message, field=field, host=self.frame.url)

    def ambiguous(self, field: str, selector: str, names: list[str]) -> RuleError:
        """The error for a selector that matches several elements, as in strict mode."""
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return RuleError(
            f"strict mode violation: {selector!r} matches {len(names)} visible elements: {listed}",
            field=field,
            host=self.page.url,
        )

    def check_selectors(self, rule: CaptchaRule) -> Steps[None]:
        """Refuse selectors that Playwright does not understand.

        :raises RuleError: there is one
        """
        for field in SELECTORS:
            selector = getattr(rule, field)
            if selector is None or field in self.locators or (field, selector) == ("image", "auto"):
                continue
            parts = self._frames if field == "frame" else [selector]
            for part in parts:
                if isinstance(part, str):
                    yield self._check(field, part)

    def _check(self, field: str, selector: str) -> Steps[None]:
        try:
            yield locate(self.frame, selector).count()
        except PlaywrightError as error:
            if _BAD_SELECTOR.search(error.message):
                raise RuleError(
                    f"Playwright does not understand {selector!r}: {first_line(error)}",
                    field=field,
                    host=self.page.url,
                ) from None
            if not self.is_gone:
                raise


def _frame_of(given: Any) -> Any:
    return getattr(given, "main_frame", given)


def first_line(error: PlaywrightError) -> str:
    """What an error of Playwright's says first."""
    return error.message.partition("\n")[0]


def deadline(timeout: float) -> float:
    """When *timeout* milliseconds will have passed, by time.monotonic()."""
    return time.monotonic() + timeout / 1000


def has_passed(moment: float) -> bool:
    """Whether *moment*, which deadline() told, is over."""
    return time.monotonic() > moment


def captcha_error(error: PlaywrightError, url: str, selector: str) -> CaptchaError:
    """What an error of Playwright's means for the captcha."""
    place = {"url": url, "selector": selector}
    told = first_line(error)
    if GONE.search(error.message):
        return CaptchaNotFound(f"The page went away before it was solved: {told}", **place)
    if isinstance(error, PlaywrightTimeout):
        above = _IN_THE_WAY.findall(error.message)
        if above:
            told = f"{told}: {above[-1]} lies in the way"
        return CaptchaFormError(f"The page did not let us do this in time: {told}", **place)
    return CaptchaNotFound(f"The captcha was lost on the way: {told}", **place)
