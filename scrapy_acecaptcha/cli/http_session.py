"""A visitor who keeps to robots.txt: Scrapy's requests over a requests session, without a reactor.

It does what Scrapy's default middlewares do for a crawl: robots.txt, cookies, redirects, meta
refresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests
from protego import Protego
from scrapy import Request
from scrapy.exceptions import DownloadConnectionRefusedError, IgnoreRequest
from scrapy.http import HtmlResponse, Response
from scrapy.responsetypes import responsetypes
from scrapy.settings import default_settings
from scrapy.utils.response import get_meta_refresh
from urllib3.exceptions import NewConnectionError

from scrapy_acecaptcha.crawl.inner_requests import INNER, check_target
from scrapy_acecaptcha.errors import CaptchaNotFound

TIMEOUT = 30.0  # seconds for one reply
MAX_BYTES = 10_000_000
MAX_REDIRECTS = default_settings.REDIRECT_MAX_TIMES
MAX_META_REFRESH = default_settings.METAREFRESH_MAXDELAY  # seconds; a page that waits longer stays


class HttpSession:
    """Sends Scrapy requests, one after the other, in one browsing session.

    :param user_agent: what robots.txt is asked about, too; by default Scrapy's
    """

    def __init__(self, user_agent: str | None = None) -> None:
        self.user_agent = user_agent or default_settings.USER_AGENT
        self._robots: dict[str, Protego | None] = {}
        self._session = requests.Session()
        self._session.auth = _no_auth  # a ~/.netrc is nothing to a crawl
        self._session.headers.update(default_settings.DEFAULT_REQUEST_HEADERS)
        self._session.headers["User-Agent"] = self.user_agent

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    async def download(self, request: Request) -> Response:
        """Send *request* and follow redirects; a coroutine as Scrapy's own, but one that blocks.

        :raises IgnoreRequest: robots.txt forbids it
        :raises requests.RequestException: no reply
        :raises DownloadConnectionRefusedError: it did not even get to the site
        :raises CaptchaNotFound: redirects without end, or a page without end
        :raises CaptchaFormError: a challenge's request, or a redirect of it, must not go there
        """
        limit = min(request.meta.get("download_maxsize") or MAX_BYTES, MAX_BYTES)
        prepared = self._session.prepare_request(_as_theirs(request))
        for _ in range(MAX_REDIRECTS + 1):
            await _check_target(request, prepared)
            self.check_robots(prepared.url or request.url)
            settings = self._session.merge_environment_settings(
                prepared.url or request.url, {}, True, None, None
            )
            with (
                _connected(),
                self._session.send(
                    prepared, timeout=TIMEOUT, allow_redirects=False, **settings
                ) as reply,
            ):
                if reply.next is None:
                    response = _as_scrapys(reply, request, limit)
                    refresh = _refresh(response)
                    if refresh is None:
                        return response
                    prepared = self._session.prepare_request(requests.Request("GET", refresh))
                else:
                    prepared = reply.next
        raise CaptchaNotFound("It redirects without end", url=request.url)

    def check_robots(self, url: str) -> None:
        """Refuse what robots.txt forbids.

        :raises IgnoreRequest: it does
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._robots:
            self._robots[origin] = self._robots_of(origin)
        rules = self._robots[origin]
        if rules is not None and not rules.can_fetch(url, self.user_agent):
            raise IgnoreRequest(f"{origin}/robots.txt forbids {url} for {self.user_agent}")

    def _robots_of(self, origin: str) -> Protego | None:
        try:
            reply = self._session.get(f"{origin}/robots.txt", timeout=TIMEOUT)
        except requests.RequestException:
            return None  # as Scrapy does; if the site is down, the page tells
        return Protego.parse(reply.text) if reply.ok else None


@contextmanager
def _connected() -> Iterator[None]:
    """Tell a request that did not get to the site as Scrapy does."""
    try:
        yield
    except requests.ConnectionError as error:
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(reason, NewConnectionError):  # refused, or a name without an address
            raise DownloadConnectionRefusedError(str(reason)) from error
        raise


async def _check_target(request: Request, step: requests.PreparedRequest) -> None:
    """Hold *step*, the request itself or a redirect of it, to what holds in a crawl."""
    if INNER in request.meta:
        await check_target(
            request.replace(
                url=step.url or request.url, method=step.method or "GET", body=step.body or b""
            )
        )


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _as_theirs(request: Request) -> requests.Request:
    return requests.Request(
        request.method,
        request.url,
        headers=dict(request.headers.to_unicode_dict()),
        data=request.body or None,
    )


def _as_scrapys(reply: requests.Response, request: Request, limit: int) -> Response:
    body = b""
    for chunk in reply.iter_content(65536):
        body += chunk
        if len(body) > limit:
            raise CaptchaNotFound(f"The reply has more than {limit:,} bytes", url=reply.url)
    headers = {name: value for name, value in reply.headers.items() if name != "Content-Encoding"}
    kind = responsetypes.from_args(
        headers={
            # Scrapy looks for names in this case; servers write them in any.
            name.title().encode(): value.encode("latin-1", "replace")
            for name, value in headers.items()
        },
        url=reply.url,
        body=body,
    )
    method = reply.request.method or "GET"
    sent = request.replace(url=reply.url, method=method)
    if method == "GET":
        sent = sent.replace(body=b"")
    return kind(reply.url, status=reply.status_code, headers=headers, body=body, request=sent)


def _refresh(response: Response) -> str | None:
    """Where a page sends browsers by itself."""
    if not isinstance(response, HtmlResponse):
        return None
    seconds, url = get_meta_refresh(response)
    if url is None or seconds is None or seconds >= MAX_META_REFRESH or url == response.url:
        return None
    return url if urlsplit(url).scheme in ("http", "https") else None
