"""A captcha on a page in a browser, for both of Playwright's APIs.

The methods of a challenge are generators that yield Playwright's calls. In the async API these are
awaitables, in the sync API they have done their work by then; flow.py has a driver for each. Every
wait in here is therefore `yield page.wait_for_timeout(...)`, which both APIs have.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from parsel import Selector
from playwright import async_api, sync_api
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from scrapy_acecaptcha.detect.find import resolve
from scrapy_acecaptcha.errors import (
    CaptchaError,
    CaptchaFormError,
    CaptchaImageError,
    CaptchaNotFound,
    CaptchaUnsolved,
    RuleError,
)
from scrapy_acecaptcha.flow import Step, Steps, drive, drive_async
from scrapy_acecaptcha.page.images import (
    DEFAULT_MAX_BYTES,
    decode_data_uri,
    image_format,
    readable_image,
)
from scrapy_acecaptcha.playwright.form import POLL_MS, PageForm, first_shown, locate
from scrapy_acecaptcha.playwright.in_page import ANY_SHOWN, FILLED_IN, LEADS_ON_IN, LOOK, READ_BLOB
from scrapy_acecaptcha.playwright.observer import FRAME_IS_GONE, Image, Look, Observer, asked_for
from scrapy_acecaptcha.rules import CaptchaRule

logger = logging.getLogger(__name__)

T = TypeVar("T")
SyncScope = sync_api.Page | sync_api.Frame
AsyncScope = async_api.Page | async_api.Frame

TIMEOUT_MS = 10_000
CALM_SECONDS = 0.3  # a page that has not changed for so long has said what it has to say
REST_SECONDS = 0.1  # an image that has not changed for so long is drawn to the end
RESTLESS_SECONDS = 2.0  # an image that changes for longer never stops
OWN_IMAGE_SECONDS = 2.0  # in which a page shows a new image by itself after a wrong answer
DETECT_SECONDS = 0.3  # between two searches of a page for a captcha that no selector names
DIALOG_MS = 100  # head start for the user's own dialog handler

_GONE = re.compile(r"crashed|has been closed|connection closed|detached|already stopped", re.I)
_BAD_SELECTOR = re.compile(r"while (?:parsing|querying)|not a valid|Unknown engine|selector", re.I)
_INTERRUPTED = re.compile(r"interrupted by another navigation|ERR_ABORTED", re.I)
# What a form's own request says better than the one for its page.
_FORMS_OWN = {"content-type", "content-length", "cookie", "host", "origin", "referer"}


class PageChallenge:
    """The captcha on a page in a browser.

    :param scope: page or frame, of either API
    :param timeout: milliseconds for the image to appear and for each verdict
    :param max_image_bytes: largest image to accept, in bytes
    """

    def __init__(
        self,
        scope: Any,
        rule: CaptchaRule,
        timeout: float = TIMEOUT_MS,
        max_image_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.scope = scope
        self.rule = rule
        self.is_async = bool(isinstance(scope, AsyncScope))
        is_page = bool(isinstance(scope, sync_api.Page | async_api.Page))
        self.page: Any = self.scope if is_page else self.scope.page
        self.observer = Observer()
        self._frame: Any = self.page.main_frame if is_page else self.scope
        self._timeout = timeout
        self._max_image_bytes = max_image_bytes
        self._rule_as_given = rule
        self._image = locate(self.scope, rule.image)
        self._searched = 0.0  # when the page was last searched for a captcha, if the rule says auto
        self._searched_in = 0.0  # and the document
        self._home = scope.url
        self._home_origin: float | None = None
        self._seen: Look | None = None  # with the image that is read, or was
        self._sent: Look | None = None  # just before the form was sent
        self._is_routed = False
        self._is_restless = False
        self._is_silent = False  # the page did not react to the newest answer in time

    @property
    def url(self) -> str:
        """Where the captcha stands."""
        return str(self.scope.url)

    @property
    def loaded_at(self) -> float:
        """When the document with the captcha was asked for: milliseconds, the browser's clock."""
        return self._seen.origin if self._seen else 0.0

    def go_home_to(self, url: str) -> None:
        """Have :meth:`reload` load *url*, which has led to the page with the captcha."""
        self._home, self._home_origin = url, -1.0

    def not_found(self) -> CaptchaNotFound:
        """The error for a page on which no captcha appeared."""
        return CaptchaNotFound(
            f"No captcha appeared within {self._timeout / 1000:g} s",
            url=self.url,
            selector=self.rule.image,
        )

    # What goes on around the steps

    def guarded(self, steps: Steps[T]) -> Steps[T]:
        """Run *steps* while the page is watched, and raise nothing but this package's errors."""
        try:
            with self._watching():
                try:
                    yield self._check_selectors()
                    result: T = yield steps
                    return result
                finally:
                    yield self._unroute()
                    while self.observer.open_dialogs:
                        yield self.page.wait_for_timeout(POLL_MS)
        except CaptchaUnsolved as error:
            if self.observer.alerts:
                error.args = (f"{error}. The page said {self.observer.alerts[-1]!r}",)
            raise
        except PlaywrightError as error:
            raise self._typed(error) from error

    @contextmanager
    def _watching(self) -> Iterator[None]:
        listeners: dict[str, Callable[..., Any]] = {
            "request": self.observer.started,
            "requestfinished": self.observer.ended,
            "requestfailed": self.observer.ended,
            "response": self._came,
            "download": self._downloads,
            "dialog": self._meet_dialog,
        }
        for event, listener in listeners.items():
            self.page.on(event, listener)
        try:
            yield
        finally:
            for event, listener in listeners.items():
                self.page.remove_listener(event, listener)

    def _came(self, response: Any) -> None:
        self.observer.came(response)
        if response.request.is_navigation_request() and response.frame == self._frame:
            self.observer.navigation = response

    def _downloads(self, download: Any) -> None:
        self.observer.download = download

    def _meet_dialog(self, dialog: Any) -> Any:
        steps = self._accept(dialog)
        return drive_async(steps) if self.is_async else drive(steps)

    def _accept(self, dialog: Any) -> Steps[None]:
        """Accept an alert, which would block the page, unless the user has a handler for it."""
        self.observer.alerts.append(dialog.message)
        self.observer.open_dialogs += 1
        try:
            yield self.page.wait_for_timeout(DIALOG_MS)
            yield dialog.accept()
        except PlaywrightError as error:
            logger.debug("The page's dialog was dealt with elsewhere: %s", error)
        finally:
            self.observer.open_dialogs -= 1

    def _check_selectors(self) -> Steps[None]:
        for name in ("image", "input", "form", "submit", "refresh", "success", "failure"):
            selector = getattr(self.rule, name)
            if selector is None:
                continue
            try:
                yield locate(self.scope, selector).count()
            except PlaywrightError as error:
                if _BAD_SELECTOR.search(error.message):
                    raise RuleError(
                        f"Playwright does not understand {selector!r}: {_first_line(error)}",
                        field=name,
                        host=self.url,
                    ) from None
                self._raise_if_gone(error)

    def _typed(self, error: PlaywrightError) -> CaptchaError:
        """What an error of Playwright's means for the captcha."""
        place = {"url": self.url, "selector": self.rule.image}
        told = _first_line(error)
        if _GONE.search(error.message):
            return CaptchaNotFound(f"The page went away before it was solved: {told}", **place)
        if isinstance(error, PlaywrightTimeout):
            return CaptchaFormError(f"The page did not let us do this in time: {told}", **place)
        return CaptchaNotFound(f"The captcha was lost on the way: {told}", **place)

    def _raise_if_gone(self, error: PlaywrightError) -> None:
        """Let errors pass that a page raises between two documents, and no others."""
        is_child_gone = self._frame.is_detached() and not self.page.is_closed()
        if _GONE.search(error.message) and not is_child_gone:
            raise error

    def _pause(self) -> Step[None]:
        return self.page.wait_for_timeout(POLL_MS)  # type: ignore[no-any-return]

    @property
    def _deadline(self) -> float:
        return time.monotonic() + self._timeout / 1000

    # Looking at the page

    def _look(self, *, verdict: bool = False) -> Steps[Look | None]:
        """See what stands on the page; None if it is between two documents.

        :param verdict: look for the rule's success and failure, too
        """
        try:
            look: Look = FRAME_IS_GONE
            if not self._frame.is_detached():
                look = self._parsed((yield self._image.evaluate_all(LOOK)))
                if look.image is None and (yield self._search(look)):
                    look = self._parsed((yield self._image.evaluate_all(LOOK)))
            if not verdict:
                return look
            success = yield self._shows(self.rule.success)
            failure = yield self._shows(self.rule.failure)
            return replace(look, success=success, failure=failure)
        except PlaywrightError as error:
            self._raise_if_gone(error)
            return None

    def _search(self, look: Look) -> Steps[bool]:
        """Search the page for the captcha that the rule leaves to detection."""
        if self._rule_as_given.image != "auto":
            return False
        now = time.monotonic()
        if look.origin == self._searched_in and now - self._searched < DETECT_SECONDS:
            return False
        self._searched, self._searched_in = now, look.origin
        source = Selector(text=(yield self.scope.content()), type="html")
        found = resolve(self._rule_as_given, source, self.url, browser=True)
        if found is None:
            return False
        self.rule = found
        self._image = locate(self.scope, found.image)
        return True

    def _parsed(self, seen: dict[str, Any]) -> Look:
        image = seen["image"] and Image(**seen["image"])
        loads = self.observer.loads[image.source] if image else 0
        if image and self._is_restless:
            image = replace(image, print="")
        return Look(seen["origin"], seen["loaded"], seen["attached"], image, loads)

    def _shows(self, selector: str | None) -> Steps[bool]:
        if selector is None:
            return False
        scope = self.page if self._frame.is_detached() else self.scope
        return bool((yield locate(scope, selector).evaluate_all(ANY_SHOWN)))

    def appear(self) -> Steps[bool]:
        """Wait for the captcha's image: there, loaded, drawn and at rest.

        :raises CaptchaImageError: it is there but does not load
        """
        deadline = self._deadline
        ready_since = rest_since = None
        last = None
        while True:
            now = time.monotonic()
            look = yield self._look()
            if look is not None and look.image is not None and look.image.ready:
                ready_since = ready_since or now
                if last is None or look.shows_other_image_than(last) or rest_since is None:
                    rest_since = now
                if now - ready_since > RESTLESS_SECONDS:
                    self._is_restless = True  # its changes are overlooked from now on
                if now - rest_since >= REST_SECONDS:
                    self._seen = look
                    self._home_origin = self._home_origin or look.origin
                    return True
            else:
                ready_since = rest_since = None
            if now > deadline:
                if look is None or look.image is None:
                    return False
                raise CaptchaImageError(
                    f"The captcha's image did not load within {self._timeout / 1000:g} s",
                    url=self.url,
                    selector=self.rule.image,
                )
            last = look
            yield self._pause()

    def stands(self) -> Steps[bool | None]:
        """Tell at once, or almost, whether a page that was just loaded shows the captcha.

        :return: False if it is there but hidden, None if there is no trace of it
        """
        look = yield self._look()
        if look is not None and not look.attached:
            try:
                wait = yield self.page.evaluate(LEADS_ON_IN)
                if wait is None:
                    return None
                yield self.page.wait_for_timeout(wait + POLL_MS)
            except PlaywrightError as error:
                self._raise_if_gone(error)
        look = yield self.settle()
        if look is None or not look.attached:
            return None
        return look.image is not None

    def settle(self) -> Steps[Look | None]:
        """Wait until the captcha shows, or the page has come to rest without one."""
        deadline = self._deadline
        last, calm_since = None, time.monotonic()
        while True:
            look: Look | None = yield self._look()
            if look is not None and look.image is not None:
                return look
            now = time.monotonic()
            if look is None or look != last or not look.loaded or self.observer.is_busy:
                last, calm_since = look, now
            if now - calm_since >= CALM_SECONDS or now > deadline:
                return look
            yield self._pause()

    def is_filled_in(self) -> Steps[bool]:
        """Whether somebody has filled in what a reload would lose."""
        controls = self.scope.locator("input, select, textarea")
        return bool((yield controls.evaluate_all(FILLED_IN)))

    # The image

    def image(self) -> Steps[bytes]:
        """Fill in the rule's fields, which may redraw the page, and take the image.

        :raises CaptchaNotFound: it has disappeared
        :raises CaptchaImageError: there is none that may be read
        """
        yield self._come_to_front()
        if not (yield self.appear()):
            raise self.not_found()
        for name, value in self.rule.fields.items():
            yield self._form().fill(name, value)
            yield self._quiet()
        if self.rule.fields and not (yield self.appear()):
            raise self.not_found()
        try:
            return readable_image((yield self._capture()), self._max_image_bytes)
        except CaptchaImageError as error:
            if error.url:
                raise
            raise CaptchaImageError(str(error), url=self.url, selector=self.rule.image) from None

    def _capture(self) -> Steps[bytes]:
        assert self._seen is not None
        assert self._seen.image is not None
        image = self._seen.image
        if self.rule.capture == "source":
            try:
                data = yield self._received(image.source)
            except (PlaywrightError, CaptchaImageError) as error:
                data = None
                logger.debug("The bytes of %.100s cannot be had: %s", image.source, error)
            # An SVG is drawn by nobody as well as by the browser that it was made for.
            if data and image_format(data) not in (None, "svg"):
                return bytes(data)
            logger.debug("Taking a screenshot of %r instead of its source", self.rule.image)
        shot = self._image.nth(image.index).screenshot(animations="disabled", timeout=self._timeout)
        return bytes((yield shot))

    def _received(self, source: str) -> Steps[bytes | None]:
        """The image's bytes as the page received them; never a second download."""
        if source.startswith("data:"):
            return decode_data_uri(source)
        if source.startswith("blob:"):
            return decode_data_uri((yield self._image.evaluate_all(READ_BLOB, source)))
        response = self.observer.images.get(source)
        if response is None and hasattr(self.page, "requests"):  # Playwright >= 1.56
            for request in (yield self.page.requests()):
                if request.resource_type == "image" and asked_for(request) == source:
                    response = yield request.response()
        return (yield response.body()) if response is not None else None

    # The form

    def _form(self) -> PageForm:
        assert self._seen is not None
        assert self._seen.image is not None
        image = self._image.nth(self._seen.image.index)
        return PageForm(self.scope, self.rule, image, self._timeout)

    def _come_to_front(self) -> Steps[None]:
        """Have the page drawn: in a tab behind others a screenshot or a click takes seconds."""
        if len(self.page.context.pages) > 1:
            yield self.page.bring_to_front()

    def _quiet(self) -> Steps[None]:
        """Let a page finish what a change of a field made it do."""
        deadline = self._deadline
        yield self._pause()
        while self.observer.is_busy and time.monotonic() < deadline:
            yield self._pause()

    def submit(self, answer: str) -> Steps[None]:
        """Type the answer and send the form.

        :raises RuleError: the form or one of its fields cannot be found
        :raises CaptchaFormError: the page does not let us fill in or send the form
        """
        self._sent = yield self._look(verdict=True)
        try:
            self.observer.form_is_sent()
            yield self._come_to_front()
            yield self._route()
            yield self._form().type(answer)
            yield self._pause()
            if not self.observer.is_leaving:
                yield self._form().send()
        except (PlaywrightError, RuleError):
            # Some pages send the form by themselves when the last letter is typed.
            look = yield self._look()
            if look is not None and not self._has_moved(look):
                raise

    # scrapy-playwright replaces the headers of all navigation requests by those of the Scrapy
    # request. A form that is POSTed so loses its Content-Type, and servers find it empty.

    def _route(self) -> Steps[None]:
        if "scrapy_playwright" in sys.modules and self.is_async and not self._is_routed:
            self._is_routed = True
            yield self.page.route("**", self._send_form)

    def _unroute(self) -> Steps[None]:
        if self._is_routed:
            with suppress(PlaywrightError):  # the page may be closed
                yield self.page.unroute("**", self._send_form)

    async def _send_form(self, route: Any, request: Any) -> None:
        """Send a form with the headers of the request for its page and those of its own."""
        if request.method == "GET" or not request.is_navigation_request():
            await route.fallback()
            return
        headers = await request.all_headers()
        before = await self.page.requests() if hasattr(self.page, "requests") else []
        for earlier in before:
            if earlier.is_navigation_request() and earlier.method == "GET":
                for name, value in (await earlier.all_headers()).items():
                    if name not in _FORMS_OWN and not name.startswith(("sec-", ":")):
                        headers[name] = value
        await route.continue_(headers=headers)

    def _has_moved(self, look: Look) -> bool:
        """Whether the page has changed since the form was sent."""
        before = self._sent
        if before is None or look.origin != before.origin or look.image is None:
            return True
        return look.shows_other_image_than(before)

    # The verdict

    def solved(self) -> Steps[bool]:
        """Wait for the page to say whether it took the answer, and go back if the rule says so."""
        accepted: bool = yield self._answered()
        if accepted and self.rule.after == "return" and self.observer.download is None:
            accepted = yield self.reload()
        return accepted

    def _answered(self) -> Steps[bool]:
        deadline = self._deadline
        last, calm_since = None, time.monotonic()
        while True:
            look = yield self._look(verdict=True)
            now = time.monotonic()
            if self.observer.download is not None:
                return True  # the PDF behind the captcha
            if look is None or look != last or not look.loaded or self.observer.is_busy:
                last, calm_since = look, now
            if look is not None:
                is_calm = now - calm_since >= CALM_SECONDS or now > deadline
                verdict = self._verdict(look, is_calm)
                if verdict is not None:
                    return verdict
            if now > deadline:
                self._is_silent = True
                return False
            yield self._pause()

    def _verdict(self, look: Look, is_calm: bool) -> bool | None:
        """What *look* means; None if it is too early to tell.

        What stood there before the form was sent means nothing until the site has answered.
        """
        before = self._sent or look
        is_new_document = look.origin != before.origin
        has_answered = is_new_document or (is_calm and self.observer.answered > 0)
        if look.failure and (has_answered or not before.failure):
            return False
        if look.success and (has_answered or not before.success):
            return True
        if not (is_calm or (look.image and not self.rule.success and not self.rule.failure)):
            return None
        if look.image is None:
            was_accepted = self._was_accepted()
            return None if self.rule.success and was_accepted else was_accepted
        if not self._has_moved(look) and not (self.rule.failure and has_answered):
            return None
        return bool(self.rule.failure and not self.rule.success)

    def _was_accepted(self) -> bool:
        navigation = self.observer.navigation
        return navigation is None or bool(navigation.status < 400)

    # A fresh image

    def renew(self) -> Steps[bool]:
        """Have a fresh image: by `refresh`, else the page's own, else by loading the page again.

        Return False if there is no captcha any more.
        """
        before = self._seen
        patience = OWN_IMAGE_SECONDS if self._sent and not self._is_silent else 0.0
        self._sent, self._is_silent = None, False
        if self.rule.refresh is not None:
            button = first_shown(self.scope, self.rule.refresh)
            if (yield button.count()):
                yield button.click(timeout=self._timeout)
                patience = self._timeout / 1000
        give_up = time.monotonic() + patience
        while True:
            look: Look | None = yield self._look()
            if look is not None and before is not None and look.is_fresher_than(before):
                return True
            is_gone = look is not None and look.image is None and look.loaded
            if time.monotonic() > give_up - (OWN_IMAGE_SECONDS - CALM_SECONDS) * is_gone:
                return not (yield self.reload())
            yield self._pause()

    def reload(self) -> Steps[bool]:
        """Load the page again; True if no captcha stands in the way any more."""
        if self.url.startswith(("http:", "https:", "file:")):
            try:
                yield self._load()
            except PlaywrightError as error:
                if not _INTERRUPTED.search(error.message):  # the page is going somewhere itself
                    raise
        look = yield self.settle()
        self._home_origin = look.origin if look else None
        return look is None or look.image is None

    def _load(self) -> Steps[None]:
        """Load the page at which we started, even if a form has led elsewhere."""
        before = yield self._look()
        is_home = before is not None and before.origin == self._home_origin
        if self.scope is not self.page or not is_home:
            # What stands here may be the answer to a POST, which a reload would send again.
            yield self.scope.goto(self._home, timeout=self._timeout)
            look = yield self._look()
            if look is None or before is None or look.origin != before.origin:
                return  # it was not just another #fragment of the same page
        yield self.page.reload(timeout=self._timeout)


def _first_line(error: PlaywrightError) -> str:
    return error.message.partition("\n")[0]
