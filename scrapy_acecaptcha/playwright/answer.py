"""What a page makes of an answer: waits until it has said something, and sums that up."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright.in_page import ANY_SHOWN, LOOK
from scrapy_acecaptcha.playwright.observer import Look, Observer
from scrapy_acecaptcha.playwright.scope import deadline, locate
from scrapy_acecaptcha.playwright.sight import CALM_SECONDS, Sight
from scrapy_acecaptcha.verdict import NOTHING, Seen

SURE_SECONDS = 2.0  # an image that is hidden, and not taken away, may come back within these


class Answer:
    """The answer to a captcha, as the page reacts to it."""

    def __init__(self, sight: Sight, observer: Observer) -> None:
        self.text = ""
        self.before: Look | None = None  # just before the form was sent
        self.popup: Any = None  # the tab in which the form's answer is
        self.is_silent = False  # the page did not show what it made of the answer
        self._sight = sight
        self._observer = observer
        self._rule = sight.rule

    def has_moved(self, look: Look) -> bool:
        """Whether the page has changed since the form was sent."""
        before = self.before
        if before is None or look.origin != before.origin or look.image is None:
            return True
        return look.shows_other_image_than(before)

    def wait(self) -> Steps[Seen | None]:
        """Wait for the page's reaction: what came, or None if nothing was sent in time.

        What stood there before the form was sent means nothing until the site has answered.
        """
        self._rule, self.popup, self.is_silent = self._sight.rule, None, False
        give_up = deadline(self._sight.timeout)
        last, calm_since = None, time.monotonic()
        while True:
            look: Look | None = yield self._sight.look(verdict=True)
            now = time.monotonic()
            if self._observer.download is not None:
                return Seen("file")
            if look is None or look != last or not look.loaded or self._observer.is_busy:
                last, calm_since = look, now
            if look is not None:
                is_final = look.is_static and look.loaded and not self._observer.is_busy
                calm = CALM_SECONDS if is_final and self.is_new(look) else now - calm_since
                if self._observer.popup is not None and not self._has_answered(look, calm):
                    seen: Seen | None = yield self._in_popup(give_up)
                else:
                    seen = self._seen(look, calm)
                if seen is not None:
                    return seen
            if now > give_up:
                return self._at_last(look)
            yield self._sight.pause()

    def is_new(self, look: Look) -> bool:
        """Whether the form has led to another document."""
        return self.before is not None and look.origin != self.before.origin

    def _has_answered(self, look: Look, calm: float) -> bool:
        return self.is_new(look) or (calm >= CALM_SECONDS and self._observer.answered > 0)

    def _seen(self, look: Look, calm: float) -> Seen | None:
        """What *look* says of the answer; None if it is too early to tell."""
        before = self.before or look
        has_answered = self._has_answered(look, calm) or bool(self._observer.said)
        if look.failure and (has_answered or not before.failure):
            return self._sum_up(look, failure=True)
        if look.success and (has_answered or not before.success):
            return self._sum_up(look, success=True)
        is_new = self.is_new(look)
        is_undecided = not (self._rule.success or self._rule.failure)
        if calm < CALM_SECONDS and not (look.image and is_new and is_undecided):
            return None
        if look.image is None:
            return self._without_image(look, calm, is_new)
        return self._sum_up(look) if self._shows_refusal(look, has_answered) else None

    def _shows_refusal(self, look: Look, has_answered: bool) -> bool:
        """Whether a page that shows an image has said what it has to say."""
        if self.has_moved(look):
            return True
        self.is_silent = True
        if self._rule.success:
            return False
        return bool(self._observer.said) or bool(self._rule.failure and has_answered)

    def _without_image(self, look: Look, calm: float, is_new: bool) -> Seen | None:
        """A page that shows no image. It may be drawn late, or be hidden until the site answers."""
        is_error = self._status(look) >= 400
        if is_new and (is_error or look.is_blank or look.is_static):
            return self._sum_up(look)
        if self._rule.success or look.field:
            return None
        has_answered = is_new or self._observer.answered > 0
        if look.attached and not has_answered:
            return None
        if has_answered and not look.attached:
            return self._sum_up(look)
        return self._sum_up(look) if calm >= SURE_SECONDS else None

    def _at_last(self, look: Look | None) -> Seen | None:
        """What is to be said when the time is up."""
        self.is_silent = True
        if look is None:
            return NOTHING
        if look.image is None and not self._rule.success:
            return NOTHING  # it does not say anything: the field still stands there
        if not self.has_moved(look) and not self._observer.started and not self._observer.said:
            return None
        return self._sum_up(look)

    def _status(self, look: Look) -> int:
        navigation = self._observer.navigation
        if not self.is_new(look):
            return 200
        return int(navigation.status) if navigation is not None else look.status or 200

    def _sum_up(self, look: Look, *, success: bool = False, failure: bool = False) -> Seen:
        return Seen(
            "text" if look.is_text and self.is_new(look) else "page",
            status=self._status(look),
            is_blank=look.is_blank,
            captcha=look.image is not None and not success,
            success=success if self._rule.success else None,
            failure=failure if self._rule.failure else None,
        )

    # A tab that the form opened

    def _in_popup(self, give_up: float) -> Steps[Seen | None]:
        """What stands in the tab that the page opened, once it is loaded."""
        tab = self._observer.popup
        rule = self._rule
        try:
            if tab.url in ("", "about:blank"):
                return None
            yield tab.wait_for_load_state(timeout=max(1.0, (give_up - time.monotonic()) * 1000))
            look = Look(**{**(yield locate(tab, rule.image).evaluate_all(LOOK)), "loads": 0})
            shows: dict[str, bool] = {}
            for name in ("success", "failure"):
                selector = getattr(rule, name)
                if selector is not None:
                    shows[name] = bool((yield locate(tab, selector).evaluate_all(ANY_SHOWN)))
        except PlaywrightError:
            return None  # it goes on elsewhere, or was closed as its document became a download
        self.popup = tab
        return Seen(
            "text" if look.is_text else "page",
            status=look.status or 200,
            is_blank=look.is_blank,
            captcha=look.image is not None and not shows.get("success"),
            success=shows.get("success"),
            failure=shows.get("failure"),
        )
