"""A captcha on a page in a browser, for both of Playwright's APIs.

The methods of a challenge are generators that yield Playwright's calls. In the async API these are
awaitables, in the sync API they have done their work by then; flow.py has a driver for each. Every
wait in here is therefore `yield page.wait_for_timeout(...)`, which both APIs have.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.errors import (
    CaptchaFormError,
    CaptchaImageError,
    CaptchaNotFound,
    CaptchaUnsolved,
    RuleError,
)
from scrapy_acecaptcha.flow import ImageReplaced, Steps
from scrapy_acecaptcha.page.images import DEFAULT_MAX_BYTES
from scrapy_acecaptcha.playwright.answer import Answer
from scrapy_acecaptcha.playwright.bare_query import BareQuery
from scrapy_acecaptcha.playwright.controls import Control
from scrapy_acecaptcha.playwright.form import PageForm
from scrapy_acecaptcha.playwright.home import Home
from scrapy_acecaptcha.playwright.in_page import FILLED_IN
from scrapy_acecaptcha.playwright.judgement import Judgement
from scrapy_acecaptcha.playwright.network import FormHeaders, Network
from scrapy_acecaptcha.playwright.observer import Look, Observer
from scrapy_acecaptcha.playwright.picture import Picture
from scrapy_acecaptcha.playwright.scope import (
    DEFAULT_TIMEOUT_MS,
    POLL_MS,
    Scope,
    captcha_error,
    deadline,
)
from scrapy_acecaptcha.playwright.sight import CALM_SECONDS, Sight
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.verdict import Seen

T = TypeVar("T")

OWN_IMAGE_SECONDS = 2.0  # in which a page shows a new image by itself after a wrong answer


class PageChallenge:
    """The captcha on a page in a browser.

    :param given: page, frame or frame locator, of either API
    :param timeout: milliseconds for the image to appear, for fields and buttons to be ready, and
        for each verdict
    :param max_image_bytes: largest image to accept, in bytes
    :param locators: those that the user gave instead of selectors, by the rule's field
    """

    def __init__(
        self,
        given: Any,
        rule: CaptchaRule,
        timeout: float = DEFAULT_TIMEOUT_MS,
        max_image_bytes: int = DEFAULT_MAX_BYTES,
        locators: Mapping[str, Any] | None = None,
    ) -> None:
        self.scope = Scope(given, rule, locators or {})
        self.observer = Observer()
        self.sight = Sight(self.scope, rule, self.observer, timeout)
        self.page = self.scope.page
        self.is_async = self.scope.is_async
        self.result_page = self.page  # where the answer is
        self._timeout = timeout
        self._network = Network(self.scope, self.observer)
        self._form_headers = FormHeaders(self.scope)
        self._picture = Picture(self.sight, self.observer, max_image_bytes)
        self._answer = Answer(self.sight, self.observer)
        self.query = BareQuery(self)
        self._judgement = Judgement(self, self._answer)
        self.home = Home(self.scope, self.sight, timeout)
        self._seen: Look | None = None  # with the image that is read, or was
        self._filled_in: list[Control] | None = None  # by the user, before the first answer
        self._form: PageForm | None = None
        self._is_stale = False  # the image changed while it was read, so nothing was typed
        self._patience = 0.0  # seconds for which the page's own new image is waited for

    @property
    def rule(self) -> CaptchaRule:
        """The rule as it is for the page in hand."""
        return self.sight.rule

    @property
    def url(self) -> str:
        """Where the captcha stands."""
        return str(self.scope.frame.url)

    @property
    def loaded_at(self) -> float:
        """When the document with the captcha was asked for: milliseconds, the browser's clock."""
        return self._seen.origin if self._seen else 0.0

    @property
    def was_filled_in(self) -> bool:
        """Whether the user had filled in something before the first answer."""
        return self._judgement.is_filled_in

    @property
    def popup(self) -> Any:
        """The tab in which the form's answer is, if it has opened one."""
        return self._answer.popup

    @property
    def empty_fields(self) -> tuple[str, ...]:
        """Names of the form's other fields, as far as nothing was filled in."""
        fields = [c for c in self._filled_in or () if c["tag"] != "select" and not c["value"]]
        return tuple(c["name"] or c["id"] for c in fields)

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
            with self._network.watching():
                try:
                    yield self.sight.ask_for_life()
                    yield self.scope.check_selectors(self.rule)
                    result: T = yield steps
                    return result
                finally:
                    yield self._form_headers.unroute()
                    while self.observer.open_dialogs:
                        yield self.page.wait_for_timeout(POLL_MS)
        except CaptchaUnsolved as error:
            if self.observer.alerts:
                error.args = (f"{error}. The page said {self.observer.alerts[-1]!r}",)
            raise
        except PlaywrightError as error:
            raise captcha_error(error, self.url, self.rule.image) from error

    # Looking at the page

    def appear(self, *, optional: bool = False) -> Steps[bool]:
        """Wait for the captcha's image: there, loaded, drawn and still.

        :raises CaptchaImageError: it is there but does not load
        """
        look: Look | None = yield self.sight.appear(optional=optional)
        if look is None:
            return False
        self._seen = look
        self.home.is_at(look)
        return True

    def stands(self) -> Steps[bool | None]:
        """See :meth:`Sight.stands`."""
        return self.sight.stands()

    def is_filled_in(self) -> Steps[set[str]]:
        """Names of the controls in which somebody has filled in what a reload would lose."""
        controls = self.scope.frame.locator("input, select, textarea")
        return set((yield controls.evaluate_all(FILLED_IN)))

    def may_be_reloaded(self) -> Steps[bool]:
        """Whether what the user has filled in can be filled in again after a reload."""
        names: set[str] = yield self.is_filled_in()
        if not names:
            return True
        yield self._judgement.begin()
        form = self._new_form()
        yield form.prepare()
        controls: list[Control] = yield form.filled_in()
        if not names <= {c["name"] or c["id"] for c in controls}:
            return False
        self._filled_in = controls
        return True

    # The image

    def image(self) -> Steps[bytes]:
        """Fill in what the query needs, make sure that the answer can be sent, take the image.

        :raises CaptchaNotFound: it has disappeared
        :raises CaptchaImageError: there is none that may be read
        :raises RuleError: the form or one of its fields cannot be found
        :raises CaptchaFormError: they cannot be used
        """
        yield self._come_to_front()
        yield self._must_appear()
        if self._filled_in is None:
            yield self._judgement.begin()
        form = self._new_form()
        if (yield self._fill_in(form)):
            yield self._must_appear()
        yield form.prepare()
        self.sight.field_key = form.field_key
        if self._filled_in is None:
            self._filled_in = yield form.filled_in()
        elif (yield form.restore(self._filled_in)):
            yield self._quiet()
        give_up = deadline(self._timeout)
        while True:
            yield self._must_appear()
            assert self._seen is not None
            assert self._seen.image is not None
            picture: bytes | None = yield self._picture.take(self._seen.image)
            if picture is not None:
                return picture
            if time.monotonic() > give_up:
                raise CaptchaImageError(
                    "The captcha's image is of one colour: it is not drawn, or it is not a captcha",
                    url=self.url,
                    selector=self.rule.image,
                )
            yield self.sight.pause()

    def _must_appear(self) -> Steps[None]:
        if not (yield self.appear()):
            raise self.not_found()

    def _fill_in(self, form: PageForm) -> Steps[bool]:
        """Fill in the rule's fields, which may redraw the page; True if there are any."""
        for name, value in self.rule.fields.items():
            yield form.fill(name, value)
            yield self._quiet()
        return bool(self.rule.fields)

    # The form

    def _new_form(self) -> PageForm:
        image = self._seen.image if self._seen else None
        element = self.sight.image.nth(image.index) if image else None
        self._form = PageForm(self.scope, self.rule, element, self._timeout)
        return self._form

    def _come_to_front(self) -> Steps[None]:
        """Have the page drawn: in a tab behind others a screenshot or a click takes seconds."""
        if len(self.page.context.pages) > 1:
            yield self.page.bring_to_front()

    def _quiet(self) -> Steps[None]:
        """Let a page finish what a change of a field made it do."""
        give_up = deadline(self._timeout)
        yield self.sight.pause()
        while self.observer.is_busy and time.monotonic() < give_up:
            yield self.sight.pause()

    def submit(self, answer: str) -> Steps[None]:
        """Type the answer and send the form.

        :raises ImageReplaced: the image is another one by now, so nothing was typed
        :raises CaptchaNotFound: the captcha has gone
        :raises RuleError: the form or one of its fields cannot be found
        :raises CaptchaFormError: the page does not let us fill in or send the form
        """
        yield self._must_show()
        self._answer.text = answer
        if self._is_stale:
            raise ImageReplaced
        yield self._come_to_front()
        yield self._send(answer)

    def _must_show(self) -> Steps[None]:
        """See whether the image that was read is still there to be answered."""
        assert self._seen is not None
        give_up = deadline(self._timeout)
        while True:
            look: Look | None = yield self.sight.look(verdict=True)
            if look is not None and look.image is not None:
                break
            if time.monotonic() > give_up:
                raise CaptchaNotFound(
                    "The captcha went away while it was read",
                    url=self.url,
                    selector=self.rule.image,
                )
            yield self.sight.pause()
        self._answer.before = look
        self._is_stale = look.is_fresher_than(self._seen)

    def _send(self, answer: str) -> Steps[None]:
        self.observer.form_is_sent()
        form = self._new_form()
        try:
            yield self._form_headers.route()
            yield form.type(answer)
            yield self.sight.pause()
            if not self.observer.is_leaving:
                yield form.send()
        except (PlaywrightError, RuleError, CaptchaFormError):
            # Some pages send the form by themselves when the last letter is typed.
            look = yield self.sight.look()
            if look is not None and not self._answer.has_moved(look):
                raise

    # The verdict

    def solved(self) -> Steps[bool]:
        """Tell whether the page took the answer, and be on the page to hand on."""
        solved: bool = yield self._judgement.solved()
        return solved

    def reaction(self) -> Steps[Seen]:
        """Wait for what the page makes of the answer.

        :raises CaptchaUnsolved: the page does not send it
        """
        self._patience = 0.0
        seen: Seen | None = yield self._answer.wait()
        if seen is None and (yield self._is_unchanged()):
            # Pages are deaf until their scripts have run: once more, which costs nothing.
            yield self._send(self._answer.text)
            seen = yield self._answer.wait()
        if seen is None:
            raise CaptchaUnsolved(
                "The answer was never sent: the page asked its site for nothing and did not change "
                "when the form was sent. Name its button in `submit`, or in `success` what shows "
                "that the answer was taken",
                attempts=1,
                url=self.url,
                selector=self.rule.image,
            )
        return seen

    def _is_unchanged(self) -> Steps[bool]:
        look = yield self.sight.look()
        return look is not None and not self._answer.has_moved(look)

    def refused(self) -> Steps[None]:
        """After a refusal: close what the form opened, and know how long to wait for an image."""
        if self._answer.popup is not None:
            yield self._answer.popup.close()
            return
        self._patience = OWN_IMAGE_SECONDS if self._answer.is_silent else self._timeout / 1000

    # A fresh image

    def renew(self) -> Steps[bool]:
        """Have a fresh image, in the end by loading the page; False if there is no captcha now."""
        return bool((yield self.finds_new_image())) or not (yield self.reload())

    def finds_new_image(self) -> Steps[bool]:
        """Have a fresh image by `refresh`, or the page's own; False if there is none."""
        before = self._seen
        patience = self._timeout / 1000 if self._is_stale else self._patience
        self._is_stale = False
        if self.rule.refresh is not None:
            button = yield self.scope.only_shown(self.rule, "refresh")
            if button is not None:
                yield button.click(timeout=self._timeout)
                patience = self._timeout / 1000
        give_up = time.monotonic() + patience
        calm_since = time.monotonic()
        while True:
            look: Look | None = yield self.sight.look()
            if look is not None and before is not None and look.is_fresher_than(before):
                return True
            now = time.monotonic()
            if look is None or look.attached or not look.loaded or self.observer.is_busy:
                calm_since = now
            is_old = look is not None and look.is_from_history
            if is_old or now > give_up or now - calm_since > CALM_SECONDS:
                return False
            yield self.sight.pause()

    def reload(self) -> Steps[bool]:
        """Load the page again; True if no captcha stands in the way any more.

        Where that brings an empty form instead of what a query was to bring, it is sent.
        """
        if not (yield self.load_home()):
            return False
        if (yield self.query.must_be_sent()):
            answered: bool = yield self.query.send()
            return answered
        return True

    def load_home(self) -> Steps[bool]:
        """Load the page again, and nothing more; True if no captcha stands in the way."""
        look: Look | None = yield self.home.load()
        return look is None or look.image is None or look.success

    # The query, once no captcha is asked for any more

    def shows_bare_form(self, scope: Scope | None = None) -> Steps[bool]:
        """Whether the query's form stands here, or in *scope*, with no captcha in it."""
        names = [*self.rule.fields, *(c["name"] or c["id"] for c in self._filled_in or ())]
        if not names:
            return False
        form = PageForm(scope or self.scope, self.rule, None, self._timeout, of=names[0])
        shown: set[str] = yield form.visible_names()
        return shown.issuperset(names)

    def send_query(self) -> Steps[Seen | None]:
        """Send the query's form without a captcha; what came, or None if it was not sent."""
        names = [*self.rule.fields, *(c["name"] or c["id"] for c in self._filled_in or ())]
        form = PageForm(self.scope, self.rule, None, self._timeout, of=names[0])
        yield self._fill_in(form)
        yield form.restore(self._filled_in or [])
        self._answer.before = (yield self.sight.look(verdict=True)) or self._answer.before
        self.observer.form_is_sent()
        yield self._form_headers.route()
        yield form.send()
        seen: Seen | None = yield self._answer.wait()
        return seen
