"""What can be seen on a page: the captcha, drawn to the end, or a page at rest without one.

Methods are generators that yield Playwright's calls; the drivers of flow.py run them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from parsel import Selector
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from scrapy_acecaptcha.detect.find import resolve
from scrapy_acecaptcha.errors import CaptchaFormError, CaptchaImageError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.page.answer_field import answer_fields
from scrapy_acecaptcha.playwright.in_page import (
    ANY_SHOWN,
    CONTROLS,
    LEADS_ON_IN,
    LOOK,
    SCROLL_TO,
)
from scrapy_acecaptcha.playwright.observer import FRAME_IS_GONE, Image, Look, Observer
from scrapy_acecaptcha.playwright.rest import Rest, Stillness
from scrapy_acecaptcha.playwright.scope import GONE, POLL_MS, Scope, deadline, shown
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import text_of

CALM_SECONDS = 0.3  # a page that has not changed for so long has said what it has to say
LEAST_LIFE_MS = 1500.0  # a busy machine may take so long to answer
DETECT_SECONDS = 0.3  # between two searches of a page for a captcha that no selector names


class Sight:
    """Looks at the page.

    :param timeout: milliseconds for the image to appear
    """

    def __init__(self, scope: Scope, rule: CaptchaRule, observer: Observer, timeout: float) -> None:
        self.scope = scope
        self.rule = rule  # as it is for this page
        self.timeout = timeout
        self.field_key = ""  # a selector of the field for the answer
        self._rule_as_given = rule
        self._observer = observer
        self._searched = 0.0  # when the page was last searched for a captcha, if the rule says auto
        self._searched_in = 0.0  # and the document
        self._is_restless = False

    @property
    def image(self) -> Any:
        """Locator of the captcha's element."""
        return self.scope.locator(self.rule, "image")

    def raise_if_gone(self, error: PlaywrightError) -> None:
        """Let errors pass that a page raises between two documents, and no others."""
        page = self.scope.page
        is_child_gone = self.scope.is_gone and not page.is_closed()
        if GONE.search(error.message) and not is_child_gone:
            raise error

    def pause(self) -> Any:
        """Wait until the next look."""
        return self.scope.page.wait_for_timeout(POLL_MS)

    # One look

    def look(self, *, verdict: bool = False) -> Steps[Look | None]:
        """See what stands on the page; None if it is between two documents.

        :param verdict: look for the rule's success and failure and for the field, too
        :raises CaptchaFormError: a script on the page runs without end
        """
        try:
            yield self.ask_for_life()
            look: Look = FRAME_IS_GONE
            is_there = yield self.scope.enter()
            if is_there:
                look = self._parsed((yield self.image.evaluate_all(LOOK)))
                if look.image is None and (yield self._search(look)):
                    look = self._parsed((yield self.image.evaluate_all(LOOK)))
            if not verdict:
                return look
            return replace(
                look,
                success=(yield self._shows("success")),
                failure=(yield self._shows("failure")),
                field=is_there and look.image is None and (yield self._shows_field()),
            )
        except PlaywrightError as error:
            self.raise_if_gone(error)
            return None

    def ask_for_life(self) -> Steps[None]:
        """Tell a page whose script never ends: what is evaluated on it has no timeout.

        :raises CaptchaFormError: it is such a page
        """
        timeout = max(self.timeout, LEAST_LIFE_MS)
        try:
            yield self.scope.page.locator(":root").wait_for(state="attached", timeout=timeout)
        except PlaywrightTimeout:
            raise CaptchaFormError(
                f"The page does not answer within {timeout / 1000:g} s: a script on it runs "
                "without end, or its document never comes",
                url=self.scope.page.url,
                selector=self.rule.image,
            ) from None

    def _search(self, look: Look) -> Steps[bool]:
        """Search the page for the captcha that the rule leaves to detection."""
        if self._rule_as_given.image != "auto":
            return False
        now = time.monotonic()
        if look.origin == self._searched_in and now - self._searched < DETECT_SECONDS:
            return False
        self._searched, self._searched_in = now, look.origin
        frame = self.scope.frame
        source = Selector(text=(yield frame.content()), type="html")
        found = resolve(self._rule_as_given, source, frame.url, browser=True)
        if found is None:
            return False
        self.rule = found
        return True

    def _parsed(self, seen: dict[str, Any]) -> Look:
        image = seen["image"] and Image(**seen["image"])
        loads = self._observer.loads[image.source] if image else 0
        if image and self._is_restless:
            image = replace(image, print="")
        return Look(**{**seen, "image": image, "loads": loads})

    def _shows(self, field: str) -> Steps[bool]:
        """Whether the rule's success or failure is to be seen, or was said by a dialog."""
        selector = getattr(self.rule, field)
        if selector is None:
            return False
        text = text_of(selector)
        if text and any(text in " ".join(s.split()).casefold() for s in self._observer.said):
            return True
        locator = self.scope.locator(self.rule, field)
        return bool((yield locator.evaluate_all(ANY_SHOWN)))

    def _shows_field(self) -> Steps[bool]:
        if self.rule.input is not None:
            locator = self.scope.locator(self.rule, "input")
        elif self.field_key:
            locator = self.scope.frame.locator(self.field_key)
        else:
            return False
        return bool((yield locator.evaluate_all(ANY_SHOWN)))

    # Until the captcha is there

    def appear(self, *, optional: bool = False) -> Steps[Look | None]:
        """Wait for the captcha's image: there, loaded, drawn and still.

        :param optional: return None as soon as the page is at rest without one, or shows `success`
        :raises CaptchaImageError: it is there but does not load
        :raises RuleError: the selector matches several
        """
        give_up = deadline(self.timeout)
        still = Stillness()
        rest = Rest(self._observer)
        last = None
        while True:
            look: Look | None = yield self.look(verdict=optional)
            if optional and look is not None and look.success:
                return None  # no page on which it shows is a captcha's
            if look is not None and look.image is not None and look.image.ready:
                still.see(look, last)
                self._is_restless = self._is_restless or still.is_restless
                if still.is_reached(look, self._observer):
                    self._refuse_several(look.image)
                    return look
            else:
                still = Stillness()
                yield self._scroll_to_image(look, last)
            if optional and (yield self._is_at_rest(rest, look)):
                return None
            if time.monotonic() > give_up:
                if look is None or look.image is None:
                    return None
                raise CaptchaImageError(
                    f"The captcha's image did not load within {self.timeout / 1000:g} s",
                    url=self.scope.frame.url,
                    selector=self.rule.image,
                )
            last = look
            yield self.pause()

    def _scroll_to_image(self, look: Look | None, last: Look | None) -> Steps[None]:
        """Have an image loaded that waits to be scrolled to."""
        if look is None or not look.attached:
            return
        is_new = last is None or last.origin != look.origin or not last.attached
        if look.is_lazy or (look.image is not None and is_new):
            try:
                yield self.image.evaluate_all(SCROLL_TO)
            except PlaywrightError as error:
                self.raise_if_gone(error)

    def _refuse_several(self, image: Image) -> None:
        if image.others:
            names = [f"element {image.index + 1}", *image.others]
            raise self.scope.ambiguous("image", self.rule.image, names)

    # Until the page is at rest

    def stands(self) -> Steps[bool | None]:
        """Tell whether a page that was just loaded shows the captcha, as soon as it is at rest.

        :return: False if it is there but hidden, None if there is no trace of it
        """
        look = yield self.settle()
        if look is None or not look.attached or look.success:
            return None
        return look.image is not None

    def settle(self) -> Steps[Look | None]:
        """Wait until the captcha or `success` shows, or the page is at rest without either."""
        yield self._be_led_on()
        give_up = deadline(self.timeout)
        rest = Rest(self._observer)
        last = None
        while True:
            look: Look | None = yield self.look(verdict=True)
            if look is not None and look.image is not None:
                return look
            yield self._scroll_to_image(look, last)
            last = look
            if (yield self._is_at_rest(rest, look)) or time.monotonic() > give_up:
                return look
            yield self.pause()

    def _be_led_on(self) -> Steps[None]:
        """Wait for where the page leads in a moment by a meta refresh, if it shows no captcha."""
        look = yield self.look(verdict=True)
        if look is None or look.attached or look.success:
            return
        try:
            wait = yield self.scope.page.evaluate(LEADS_ON_IN)
            if wait is not None:
                yield self.scope.page.wait_for_timeout(wait + POLL_MS)
        except PlaywrightError as error:
            self.raise_if_gone(error)

    def _is_at_rest(self, rest: Rest, look: Look | None) -> Steps[bool]:
        """Whether nothing more is to come: the document has loaded all that it began to load."""
        if not rest.is_reached(look):
            return False
        if look is None or look.success or look.is_static or rest.is_long:
            return True
        if look.field or (yield self._asks_for_an_answer()):
            return False
        try:
            yield self.scope.page.wait_for_load_state("networkidle", timeout=1)
        except PlaywrightTimeout:
            return False
        return True

    def _asks_for_an_answer(self) -> Steps[bool]:
        """Whether a field speaks of a captcha, so that its image is to be expected."""
        if self.rule.input is not None:
            return False  # this is what Look.field tells
        fields = shown(self.scope.frame.locator("input"))
        controls = yield fields.evaluate_all(CONTROLS, [None] * 3)
        return bool(answer_fields([control["said"] for control in controls]))
