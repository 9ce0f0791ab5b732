"""Takes the picture of a captcha: uncovered, not blank, as bytes that the API can read."""

from __future__ import annotations

import base64
import logging
import time
from typing import Any

from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.errors import CaptchaImageError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.page.images import decode_data_uri, image_format, readable_image
from scrapy_acecaptcha.playwright.in_page import ABOVE_FRAME, HIT, IS_UNIFORM, READ_BLOB
from scrapy_acecaptcha.playwright.observer import Image, Observer, asked_for
from scrapy_acecaptcha.playwright.scope import deadline
from scrapy_acecaptcha.playwright.sight import Sight

logger = logging.getLogger(__name__)


class Picture:
    """The picture of the captcha that *sight* sees.

    :param max_bytes: largest picture to accept
    """

    def __init__(self, sight: Sight, observer: Observer, max_bytes: int) -> None:
        self._sight = sight
        self._scope = sight.scope
        self._observer = observer
        self._max_bytes = max_bytes

    def take(self, image: Image) -> Steps[bytes | None]:
        """The picture; None if it is of one colour, and so not drawn yet.

        :raises CaptchaImageError: it cannot be read, or something lies over it
        """
        yield self._uncover(image)
        try:
            data: bytes = readable_image((yield self._capture(image)), self._max_bytes)
        except CaptchaImageError as error:
            raise error if error.url else self._error(str(error)) from None
        text = base64.b64encode(data).decode("ascii")
        return None if (yield self._scope.frame.evaluate(IS_UNIFORM, text)) else data

    def _uncover(self, image: Image) -> Steps[None]:
        """Scroll to the picture until nothing lies over it."""
        if self._sight.rule.capture == "source" and image.source:
            return
        give_up = deadline(self._sight.timeout)
        element = self._sight.image.nth(image.index)
        while True:
            above = yield element.evaluate(HIT, False, timeout=self._sight.timeout)
            above = above or (yield self._above_frame(element))
            if above is None:
                return
            if time.monotonic() > give_up:
                raise self._error(f"The captcha's image cannot be seen: {above} lies over it")
            yield self._sight.pause()

    def _above_frame(self, element: Any) -> Steps[str | None]:
        """What the page around a frame has over the picture inside of it."""
        if self._scope.is_whole_page:
            return None
        yield element.scroll_into_view_if_needed(timeout=self._sight.timeout)
        box = yield element.bounding_box(timeout=self._sight.timeout)
        if box is None:
            return None
        middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        above: str | None = yield self._scope.page.evaluate(ABOVE_FRAME, middle)
        return above

    def _capture(self, image: Image) -> Steps[bytes]:
        if self._sight.rule.capture == "source":
            try:
                data = yield self._received(image.source)
            except (PlaywrightError, CaptchaImageError) as error:
                data = None
                logger.debug("The bytes of %.100s cannot be had: %s", image.source, error)
            # An SVG is drawn by nobody as well as by the browser that it was made for.
            if data and image_format(data) not in (None, "svg"):
                return bytes(data)
            logger.debug("Taking a screenshot of %r instead of its source", self._sight.rule.image)
        element = self._sight.image.nth(image.index)
        shot = element.screenshot(animations="disabled", timeout=self._sight.timeout)
        return bytes((yield shot))

    def _received(self, source: str) -> Steps[bytes | None]:
        """The image's bytes as the page received them; never a second download."""
        if source.startswith("data:"):
            return decode_data_uri(source)
        if source.startswith("blob:"):
            return decode_data_uri((yield self._sight.image.evaluate_all(READ_BLOB, source)))
        page = self._scope.page
        response = self._observer.images.get(source)
        if response is None and hasattr(page, "requests"):  # Playwright >= 1.56
            for request in (yield page.requests()):
                if request.resource_type == "image" and asked_for(request) == source:
                    response = yield request.response()
        return (yield response.body()) if response is not None else None

    def _error(self, message: str) -> CaptchaImageError:
        return CaptchaImageError(
            message, url=self._scope.frame.url, selector=self._sight.rule.image
        )
