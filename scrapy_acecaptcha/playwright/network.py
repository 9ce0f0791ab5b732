"""What a page says while its captcha is solved: requests, dialogs, downloads, tabs that it opens.

scrapy-playwright replaces the headers of all navigation requests by those of the Scrapy request. A
form that is POSTed so loses its Content-Type, and servers find it empty: FormHeaders mends that.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.flow import Steps, drive, drive_async
from scrapy_acecaptcha.playwright.observer import Observer
from scrapy_acecaptcha.playwright.scope import Scope

logger = logging.getLogger(__name__)

DIALOG_MS = 100  # head start for the user's own dialog handler
# What a form's own request says better than the one for its page.
_FORMS_OWN = {"content-type", "content-length", "cookie", "host", "origin", "referer"}


class Network:
    """Playwright's events, brought to an Observer as long as a captcha is solved."""

    def __init__(self, scope: Scope, observer: Observer) -> None:
        self._scope = scope
        self._page = scope.page
        self._observer = observer

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Listen to the page."""
        observer = self._observer
        listeners: dict[str, Callable[..., Any]] = {
            "request": observer.starts,
            "requestfinished": observer.finishes,
            "requestfailed": observer.fails,
            "response": self._came,
            "websocket": self._opens_socket,
            "download": self._downloads,
            "popup": self._opens_tab,
            "dialog": self._meet_dialog,
        }
        for event, listener in listeners.items():
            self._page.on(event, listener)
        try:
            yield
        finally:
            for event, listener in listeners.items():
                self._page.remove_listener(event, listener)

    def _came(self, response: Any) -> None:
        self._observer.came(response)
        with suppress(PlaywrightError):  # a service worker's requests have no frame
            if (
                response.request.is_navigation_request()
                and response.frame == self._scope.frame
                and not 300 <= response.status < 400
            ):
                self._observer.navigation = response

    def _opens_socket(self, socket: Any) -> None:
        socket.on("framesent", self._observer.sends_message)

    def _downloads(self, download: Any) -> None:
        self._observer.download = download

    def _opens_tab(self, page: Any) -> None:
        self._observer.popup = page
        page.on("download", self._downloads)

    def _meet_dialog(self, dialog: Any) -> Any:
        steps = self._accept(dialog)
        return drive_async(steps) if self._scope.is_async else drive(steps)

    def _accept(self, dialog: Any) -> Steps[None]:
        """Accept an alert, which would block the page, unless the user has a handler for it."""
        self._observer.alerts.append(dialog.message)
        self._observer.open_dialogs += 1
        try:
            yield self._page.wait_for_timeout(DIALOG_MS)
            yield dialog.accept()
        except PlaywrightError as error:
            logger.debug("The page's dialog was dealt with elsewhere: %s", error)
        finally:
            self._observer.open_dialogs -= 1


def addresses_of_document(page: Any) -> Steps[list[str]]:
    """The addresses that have led to the page's document by GET, the one asked for first.

    Empty if the document is the answer to a POST.
    """
    if not hasattr(page, "requests"):  # Playwright < 1.56: as if it were as simple as that
        return [str(page.url)]
    frame = page.main_frame
    for request in reversed((yield page.requests())):
        with suppress(PlaywrightError):  # a service worker's requests have no frame
            if request.is_navigation_request() and request.frame == frame:
                break
    else:
        return [str(page.url)]  # the browser remembers the last hundred requests
    addresses: list[str] = []
    while request is not None and request.method == "GET":
        addresses.insert(0, str(request.url))
        request = request.redirected_from
    return addresses


class FormHeaders:
    """Gives forms back the headers that scrapy-playwright takes from them."""

    def __init__(self, scope: Scope) -> None:
        self._page = scope.page
        self._is_needed = "scrapy_playwright" in sys.modules and scope.is_async
        self._is_routed = False

    def route(self) -> Steps[None]:
        """Begin, if scrapy-playwright may be at work."""
        if self._is_needed and not self._is_routed:
            self._is_routed = True
            yield self._page.route("**", self._send_form)

    def unroute(self) -> Steps[None]:
        """End it."""
        if self._is_routed:
            with suppress(PlaywrightError):  # the page may be closed
                yield self._page.unroute("**", self._send_form)

    async def _send_form(self, route: Any, request: Any) -> None:
        """Send a form with the headers of the request for its page and those of its own."""
        if request.method == "GET" or not request.is_navigation_request():
            await route.fallback()
            return
        headers = await request.all_headers()
        before = await self._page.requests() if hasattr(self._page, "requests") else []
        for earlier in before:
            if earlier.is_navigation_request() and earlier.method == "GET":
                for name, value in (await earlier.all_headers()).items():
                    if name not in _FORMS_OWN and not name.startswith(("sec-", ":")):
                        headers[name] = value
        await route.continue_(headers=headers)
