"""What a challenge downloads: the image, the form's answer, and the spider's page once more.

A page names the addresses of its image and its form, so it must not aim the crawl at others: forms
stay on the page's own site or go to the rule's ``hosts``, nothing leads from outside into a private
network, and other origins get no more than a browser would send. Redirects are held to the same.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from scrapy.http.request import NO_CALLBACK
from scrapy.settings.default_settings import RETRY_EXCEPTIONS
from scrapy.spidermiddlewares.referer import RefererMiddleware
from scrapy.utils.misc import load_object

from scrapy_acecaptcha.crawl.name_lookup import addresses_of
from scrapy_acecaptcha.crawl.redirects import NOTE, REDIRECT_META
from scrapy_acecaptcha.errors import CaptchaFormError
from scrapy_acecaptcha.hosts import (
    Space,
    host_of,
    is_covered,
    same_host,
    same_origin,
    same_site,
    space_of,
)
from scrapy_acecaptcha.page.forms import Submission, leaves_site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

    from scrapy_acecaptcha.crawl.waiting import Waits

INNER = "_acecaptcha_inner"  # request.meta key of requests made in here
_PAGE = "page"  # in meta[INNER]: the page that named the address; none for the spider's own
_HOSTS = "hosts"  # in meta[INNER]: other hosts that the rule allows
_SPACE = "space"  # in meta[INNER]: the network that the page came from, if Scrapy knows

_FRAME = "frame"  # in meta[INNER]: it is for the document of a frame

# What Scrapy and its plugins noted on the outer request, and would act on once more.
NOTED_META = (
    *REDIRECT_META,
    "retry_times",
    "download_latency",
    "cached_response",
    "cache_timestamp",
    "_dont_cache",
    "is_start_request",
    "acecaptcha_result",
    NOTE,
)
# What the spider wants for its own page, not for the captcha's image and form.
_PAGE_META = (
    "dont_redirect",
    "dont_retry",
    "handle_httpstatus_list",
    "handle_httpstatus_all",
    "download_maxsize",
)
_CONDITIONS = ("If-None-Match", "If-Modified-Since", "Range")
_ABOUT_BODY = ("Content-Type", "Content-Length", "Content-Encoding")
# What a browser says to every host, whichever page it comes from.
_BROWSERS_OWN = frozenset(
    {
        *(b"Sec-Ch-Ua", b"Sec-Ch-Ua-Mobile", b"Sec-Ch-Ua-Platform", b"Sec-Gpc"),
        b"Accept",
        b"Accept-Encoding",
        b"Accept-Language",
        b"Content-Type",
        b"Dnt",
        b"Proxy-Authorization",  # for the proxy
        b"Referer",
        b"Upgrade-Insecure-Requests",
        b"User-Agent",
    }
)
IMAGE_ACCEPT = "image/png,image/jpeg,image/gif,image/webp,image/*;q=0.8,*/*;q=0.5"


class InnerRequests:
    """Sends the requests of challenges.

    :param download: sends a request, through the downloader and all its middlewares
    :param find_referer: what sets the Referer header as Scrapy does; None for no such header
    """

    def __init__(
        self,
        download: Callable[[Request], Awaitable[Response]],
        find_referer: Callable[[], RefererMiddleware | None],
    ) -> None:
        self._download = download
        self._find_referer = find_referer

    @classmethod
    def from_crawler(cls, crawler: Crawler, waits: Waits) -> Self:
        """Make one that goes through *crawler*, whose engine may still be to come.

        Its downloads end with the crawl, by Stopped.
        """

        def download(request: Request) -> Awaitable[Response]:
            assert crawler.engine is not None
            return waits.for_download(partial(crawler.engine.download_async, request))

        return cls(download, partial(crawler.get_spider_middleware, RefererMiddleware))

    async def image(
        self, page: Response, url: str, *, hosts: Sequence[str], max_bytes: int
    ) -> Response:
        """Download the image at *url* that *page* shows, in the session of *page*.

        :param page: a response that has its request
        :param hosts: the rule's hosts
        :param max_bytes: largest image to accept
        :raises CaptchaFormError: it, or a redirect of it, must not be asked for from *page*
        """
        request = self._for(page, url, hosts, headers={"Accept": IMAGE_ACCEPT})
        request.meta["download_maxsize"] = max_bytes
        return await self._download(request)

    async def frame(self, page: Response, url: str, *, hosts: Sequence[str]) -> Response:
        """Download the document of a frame of *page*, in the session of *page*.

        :raises CaptchaFormError: it must not be asked for from *page*
        """
        request = self._for(page, url, hosts, headers={})
        request.meta[INNER][_FRAME] = True
        return await self._download(request)

    async def form(self, page: Response, sent: Submission, *, hosts: Sequence[str]) -> Response:
        """Send the form of *page* as *sent*, in the session of *page*.

        :param hosts: the rule's hosts
        :raises CaptchaFormError: it, or a redirect of it, must not go where it leads
        """
        request = self._for(
            page, sent.url, hosts, method=sent.method, headers=sent.headers, body=sent.body
        )
        # A second submission of the same answer would be refused, so nothing retries this one.
        request.meta["dont_retry"] = True
        return await self._download(request)

    async def again(self, request: Request) -> Response:
        """Download once more what the spider asked for by *request*."""
        meta = {k: v for k, v in request.meta.items() if k not in NOTED_META}
        meta[INNER] = {}
        return await self._download(_marked(request.replace(cookies=None, meta=meta)))

    def _for(
        self,
        page: Response,
        url: str,
        hosts: Sequence[str],
        *,
        headers: dict[str, str],
        method: str = "GET",
        body: bytes = b"",
    ) -> Request:
        base = page.request
        assert base is not None
        meta = {k: v for k, v in base.meta.items() if k not in (*NOTED_META, *_PAGE_META)}
        known = page.ip_address and not meta.get("proxy")
        space = space_of(str(page.ip_address)) if known else None
        meta[INNER] = {_PAGE: page.url, _SPACE: space, _HOSTS: list(hosts)}
        kept = base.headers.copy()
        for name in (*_ABOUT_BODY, "Referer"):
            kept.pop(name, None)
        if not same_origin(page.url, url):
            meta.pop("download_slot", None)
            for name in set(kept) - _BROWSERS_OWN:
                del kept[name]
        request = base.replace(
            url=url,
            method=method,
            headers=kept,
            body=body,
            cookies=None,  # those the site has set since are in the jar
            meta=meta,
        )
        request.headers.update(headers)
        self._set_referer(request, page)
        return _marked(request)

    def _set_referer(self, request: Request, page: Response) -> None:
        """Set the Referer as REFERER_ENABLED, REFERRER_POLICY and the page's policy say."""
        referer = self._find_referer()
        if referer is not None:
            referer.get_processed_request(request, page)


def is_passing(error: Exception) -> bool:
    """Whether a download failed for a reason that passes: RetryMiddleware has tried it again."""
    return isinstance(error, _passing())


@cache
def _passing() -> tuple[type[Exception], ...]:
    kinds: list[Any] = list(RETRY_EXCEPTIONS)
    return tuple(map(load_object, kinds))


def as_frame(page: Response) -> Request:
    """The request of *page*, as that of a frame whose document stands in the page itself."""
    assert page.request is not None
    return page.request.replace(meta={**page.request.meta, INNER: {_FRAME: True}})


def is_frame(response: Response) -> bool:
    """Whether *response* is the document of a frame."""
    request = response.request
    return request is not None and bool(request.meta.get(INNER, {}).get(_FRAME))


def _marked(request: Request) -> Request:
    request.meta.update({"dont_cache": True, "allow_offsite": True})
    for name in _CONDITIONS:
        request.headers.pop(name, None)
    return request.replace(callback=NO_CALLBACK, errback=None, cb_kwargs={}, dont_filter=True)


async def check_target(request: Request) -> None:
    """Refuse an inner request, or a redirect of one, that must not go where it leads.

    Another origin than that of the page gets no headers that the spider set for its own.

    :raises CaptchaFormError: a form would leave the page's site, or a page from elsewhere would
        reach into a private network
    """
    noted: dict[str, Any] = request.meta[INNER]
    page = noted.get(_PAGE)
    if page is None or same_origin(page, request.url):
        return
    _keep_browsers_own(request, page)
    if is_covered(request.url, noted[_HOSTS]):
        return
    if request.body and not same_site(page, request.url):
        raise CaptchaFormError(leaves_site(request.url), url=page)
    if not same_host(page, request.url) and await _leads_inside(page, noted, request):
        where = host_of(request.url)
        raise CaptchaFormError(
            f"{request.url[:200]} was not requested: {where} is in a private network and the page "
            f'is not; if it may be reached, name it in the rule: "hosts": [{where!r}]',
            url=page,
        )


def _keep_browsers_own(request: Request, page: str) -> None:
    kept = set(_BROWSERS_OWN)
    if same_site(page, request.url):
        kept.add(b"Authorization")  # HttpAuthMiddleware's: the spider's is not here any more
    for name in set(request.headers) - kept:
        del request.headers[name]


async def _leads_inside(page: str, noted: dict[str, Any], request: Request) -> bool:
    """Whether *request* leads further into a private network than the page stands."""
    host, here = host_of(request.url), space_of(host_of(page))
    if (there := space_of(host)) is not None:
        # A name may be anybody's, so a page that has one is never inside of an address.
        return there != "public" and here not in (there, "loopback")
    if request.meta.get("proxy"):
        return False  # the proxy looks the name up
    inside = await _spaces_of_name(host) - {"public"}
    if not inside:
        return False
    here = here or noted.get(_SPACE)
    around = {here} if here else await _spaces_of_name(host_of(page))
    return "loopback" not in around and not inside <= around


async def _spaces_of_name(host: str) -> set[Space | None]:
    return {space_of(address) for address in await addresses_of(host)}
