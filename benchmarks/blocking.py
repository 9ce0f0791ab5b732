"""The middleware that people write for themselves, for comparison.

Public repositories are full of it: `process_response` finds the captcha, downloads its image and
calls the API with `requests`, waits for the answer, and returns the form as a new request; a
counter in the meta ends it after three attempts.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, cast

import requests
from scrapy import FormRequest, Request

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import HtmlResponse, Response
    from typing_extensions import Self

MAX_ATTEMPTS = 3
BASE_URL_VARIABLE = "ACEDATACLOUD_API_BASE_URL"


class BlockingCaptchaMiddleware:
    """Solves the captcha of a page while the whole crawl waits."""

    def __init__(self, crawler: Crawler) -> None:
        base = crawler.settings["ACECAPTCHA_API_BASE_URL"] or os.environ[BASE_URL_VARIABLE]
        self.api_url = f"{base}/captcha/recognition/image2text"
        self._stats = crawler.stats

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Scrapy's way to make a middleware."""
        return cls(crawler)

    def process_response(self, request: Request, response: Response) -> Request | Response:
        """Answer the captcha, if there is one."""
        source = response.css("img#captcha::attr(src)").get()
        if source is None:
            return response
        attempts = request.meta.get("captcha_attempts", 0)
        if attempts >= MAX_ATTEMPTS:
            return response
        image = requests.get(response.urljoin(source), headers=self._session(request, response))
        self._stats.inc_value("usual/api_requests")
        reply = requests.post(
            self.api_url,
            json={"image": base64.b64encode(image.content).decode()},
            headers={"authorization": "Bearer token"},
        )
        return FormRequest.from_response(
            cast("HtmlResponse", response),
            formdata={"code": reply.json()["text"]},
            callback=request.callback,
            errback=request.errback,
            meta={**request.meta, "captcha_attempts": attempts + 1},
            dont_filter=True,
        )

    def _session(self, request: Request, response: Response) -> dict[str, str]:
        """The cookie that the page was asked for with, or the one that it has just set."""
        cookie = response.headers.get("Set-Cookie") or request.headers.get("Cookie") or b""
        return {"Cookie": cookie.decode().partition(";")[0]}
