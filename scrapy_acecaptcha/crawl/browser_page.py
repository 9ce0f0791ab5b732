"""A page in a browser as the crawl needs it: what stands on it, and what was asked for once more.

All of this is done in the event loop of the page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scrapy.http import Headers, Response, TextResponse
from scrapy.responsetypes import responsetypes

if TYPE_CHECKING:
    from scrapy import Request

_TEXT_TYPES = ("text/plain", "application/json")
_WORDS_ALONE = """() => !document.head?.childElementCount && !document.body?.childElementCount"""
_SHOWN_TEXT = "() => document.body ? document.body.innerText : ''"
TRIES = 20  # to read a page that is on its way elsewhere
PAUSE_SECONDS = 0.1
_BROWSERS_OWN = {"cookie", "content-length", "host"}  # headers that it sets better itself


@dataclass(frozen=True)
class Document:
    """What stood on a page at one moment.

    :param body: the page's source as its scripts have left it, or the bytes of a file
    :param text: what is to be seen of it
    :param is_text: it is plain text or JSON, around which the browser has put some HTML
    :param was_got: a GET has brought it
    """

    url: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    text: str = ""
    is_text: bool = False
    was_got: bool = False

    def response(self, flags: list[str] | None = None) -> Response:
        """The response that a spider gets for it."""
        headers = Headers(self.headers)
        kind = responsetypes.from_args(headers=headers, url=self.url, body=self.body)
        more: dict[str, Any] = {"encoding": "utf-8"} if issubclass(kind, TextResponse) else {}
        return kind(
            self.url, status=self.status, headers=headers, body=self.body, flags=flags, **more
        )


class BrowserPage:
    """The page of one request.

    :param page: scrapy-playwright's, or what it has opened
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self._navigation: Any = None
        self._first: Any = None  # the request of the first navigation
        page.on("response", self._came)

    def stop(self) -> None:
        """Listen to the page no more."""
        self.page.remove_listener("response", self._came)

    def forget(self) -> None:
        """Forget what has come so far: a form is sent."""
        self._navigation = None

    def _came(self, response: Any) -> None:
        with suppress(Exception):  # a service worker's requests have no frame
            if response.request.is_navigation_request() and response.frame == self.page.main_frame:
                self._first = self._first or response.request
                if not 300 <= response.status < 400:
                    self._navigation = response

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of what came last; 200 if a script has put it into the page."""
        if self._navigation is None:
            return 200, {}
        headers = dict(await self._navigation.all_headers())
        headers.pop("content-encoding", None)
        return int(self._navigation.status), headers

    async def document(self) -> Document:
        """What stands on the page."""
        html, text, is_bare = await self._read()
        status, headers = await self.head()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        navigation = self._navigation
        return Document(
            self.page.url,
            status,
            headers,
            html.encode(),
            text=text,
            is_text=is_bare or kind in _TEXT_TYPES,
            was_got=navigation is not None and navigation.request.method == "GET",
        )

    async def _read(self) -> tuple[str, str, bool]:
        from playwright.async_api import Error  # noqa: PLC0415 - an optional companion

        for attempt in range(TRIES):
            try:
                return (
                    await self.page.content(),
                    await self.page.evaluate(_SHOWN_TEXT),
                    await self.page.evaluate(_WORDS_ALONE),
                )
            except Error:
                if self.page.is_closed() or attempt == TRIES - 1:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError

    async def file(self, download: Any) -> Document:
        """The file that the page was answered by."""
        status, headers = await self.head()
        return Document(
            download.url, status, headers, (await download.path()).read_bytes(), is_text=False
        )

    async def load(self, request: Request) -> None:
        """Make *request* once more, as scrapy-playwright has made it.

        :raises playwright.async_api.Error: it fails
        """
        given = dict(request.meta.get("playwright_page_goto_kwargs") or {})
        given.pop("url", None)
        self.forget()
        is_plain = (request.method == "GET" and not request.body) or self._first is None
        post = None if is_plain else await self._route_post(request)
        try:
            # To the same address with a #fragment, a browser would not go again.
            if self.page.url.partition("#")[0] == request.url.partition("#")[0] != request.url:
                await self.page.goto("about:blank")
            await self.page.goto(request.url, **given)
        finally:
            if post is not None:
                with suppress(Exception):  # the page may be closed
                    await self.page.unroute("**", post)

    async def _route_post(self, request: Request) -> Callable[[Any, Any], Awaitable[None]]:
        """Have the next navigation be a POST or the like, as scrapy-playwright does the first."""
        headers = {
            name: value
            for name, value in (await self._first.all_headers()).items()
            if name not in _BROWSERS_OWN and not name.startswith(":")
        }
        is_sent = False

        async def send(route: Any, asked: Any) -> None:
            nonlocal is_sent
            if is_sent or not asked.is_navigation_request():
                await route.fallback()
                return
            is_sent = True
            await route.continue_(method=request.method, headers=headers, post_data=request.body)

        await self.page.route("**", send)
        return send
