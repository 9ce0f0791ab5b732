"""What a page in a browser shows at one moment, and what happens on it meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

LONG_POLL_SECONDS = 2.0  # a script's request that takes longer waits for something else


@dataclass(frozen=True)
class Image:
    """The captcha's image, as in_page.LOOK sees it.

    :param is_drawn_by_script: a canvas or an svg, which may be drawn stroke by stroke
    :param others: other visible elements that the selector matches
    """

    index: int
    ready: bool
    print: str
    source: str
    is_drawn_by_script: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What stood on the page at one moment.

    :param origin: names the document: milliseconds at which its loading began
    :param status: HTTP status of the document, 0 if the browser does not tell
    :param is_from_history: a script has gone back to it, so its image may be the one of before
    :param text: changes with the page's elements and text, digits aside: clocks tick
    :param is_blank: there is nothing to see
    :param is_text: the document is no HTML, but plain text, JSON or XML; as text/html, too, which
        then has no element but html, head and body
    :param is_static: there are no scripts, nor anything else that may change it by itself
    :param is_loading: a spinner or the like is to be seen, or the image is on its way
    :param attached: elements match the captcha's selector, visible or not
    :param is_lazy: the image is to be loaded once it is scrolled into view
    :param loads: how often the image's address has been loaded
    :param field: the field for the answer is to be seen
    """

    origin: float
    loaded: bool
    attached: bool
    image: Image | None
    status: int = 0
    is_from_history: bool = False
    text: str = ""
    is_blank: bool = False
    is_text: bool = False
    is_static: bool = False
    is_loading: bool = False
    is_lazy: bool = False
    loads: int = 0
    field: bool = False
    success: bool = False
    failure: bool = False

    def shows_other_image_than(self, other: Look) -> bool:
        """Whether the image has been changed, or loaded again from the same address."""
        if self.image is None or other.image is None:
            return False
        return (self.image.print, self.loads) != (other.image.print, other.loads)

    def is_fresher_than(self, other: Look) -> bool:
        """Whether there is an image to read that was not there in *other*."""
        if self.image is None:
            return False
        if self.origin != other.origin:
            return not self.is_from_history
        return self.shows_other_image_than(other)


# The captcha's frame has gone, as when its form leads the whole page elsewhere.
FRAME_IS_GONE = Look(origin=0.0, loaded=True, attached=False, image=None)


@dataclass
class Observer:
    """What happens on a page meanwhile, by Playwright's events.

    :param pending: requests under way whose answers may change the page, and since when
    :param started: requests of that kind, and messages of web sockets, since the form was sent
    :param answered: how many of them were answered
    :param navigation: the last answer that became the document
    :param popup: a tab that the page opened since the form was sent
    """

    pending: dict[Any, float] = field(default_factory=dict)
    started: int = 0
    answered: int = 0
    navigation: Any = None
    popup: Any = None
    download: Any = None
    alerts: list[str] = field(default_factory=list)
    alerts_before: int = 0
    open_dialogs: int = 0
    images: dict[str, Any] = field(default_factory=dict)
    loads: Counter[str] = field(default_factory=Counter)

    def form_is_sent(self) -> None:
        """Forget what came before."""
        self.pending.clear()
        self.started = self.answered = 0
        self.navigation = self.popup = self.download = None
        self.alerts_before = len(self.alerts)

    @property
    def said(self) -> list[str]:
        """What dialogs have said since the form was sent."""
        return self.alerts[self.alerts_before :]

    def starts(self, request: Any) -> None:
        """Note a request that may be the form's."""
        if request.resource_type in ("document", "xhr", "fetch"):
            self.pending[request] = time.monotonic()
            self.started += 1

    def finishes(self, request: Any) -> None:
        """Note that a request was answered."""
        if self.pending.pop(request, None) is not None:
            self.answered += 1

    def fails(self, request: Any) -> None:
        """Note that a request was not answered."""
        self.pending.pop(request, None)

    def sends_message(self, _: object = None) -> None:
        """Note a message on a web socket, which is answered by another or not at all."""
        self.started += 1
        self.answered += 1

    @property
    def is_leaving(self) -> bool:
        """Whether another document is on its way."""
        return any(request.resource_type == "document" for request in self.pending)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is on its way that may change the page; some are never given."""
        now = time.monotonic()
        return self.is_leaving or any(
            now - since < LONG_POLL_SECONDS for since in self.pending.values()
        )

    def came(self, response: Any) -> None:
        """Note an image that came."""
        if response.request.resource_type == "image":
            url = asked_for(response.request)
            self.images[url] = response
            self.loads[url] += 1


def asked_for(request: Any) -> str:
    """The address that the page asked for, before redirects."""
    while request.redirected_from is not None:
        request = request.redirected_from
    return str(request.url)
