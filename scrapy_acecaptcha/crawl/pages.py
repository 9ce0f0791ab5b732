"""Which responses are HTML pages, by their bytes, and how much of one is looked at."""

from __future__ import annotations

import re
from weakref import WeakKeyDictionary, WeakSet

from scrapy.http import HtmlResponse, Response, TextResponse

from scrapy_acecaptcha.page.source import MAX_PAGE, bounded, is_bounded

_START = 2_000  # bytes in which a page says that it is one
# What may stand before the first tag. Source: WHATWG MIME Sniffing, 7.1, and what XHTML adds.
_BEFORE = re.compile(r"(?:\ufeff|\s+|<\?xml[^>]*>|<!--(?:(?!-->).)*-->)*", re.DOTALL)
_HTML = re.compile(
    r"<(?:!doctype\s+html|html|head|body|title|meta|script|style|link|iframe|frameset|h1|div|font|"
    r"table|a|b|p|br|form|img|input|center|span)(?=[\s/>])",
    re.IGNORECASE,
)
_XHTML = re.compile(r"<(?:!doctype\s+html|html)(?=[\s/>])", re.IGNORECASE)
_PARTIAL = re.compile(r"<partial-response(?=[\s/>])")
_CDATA, _CDATA_END = "<![CDATA[", "]]>"
_PAGE_TYPES = (b"text/plain", b"text/xml", b"application/xml", b"application/xhtml+xml")

_bounded_pages: WeakSet[Response] = WeakSet()  # those that are looked at as they are
_pages: WeakKeyDictionary[Response, HtmlResponse | None] = WeakKeyDictionary()  # all others


def page_of(response: Response) -> HtmlResponse | None:
    """*response* as an HTML page that can be looked at in bounded time; None if it is none.

    Pages of the types text/plain, XML and XHTML are told by their bytes. Of a JSF
    ``<partial-response>`` the page is the HTML in its CDATA. A page of more than 2 MB is its
    beginning. Most pages are returned as they are, with the selector that the spider uses, too.
    """
    if response in _bounded_pages:
        assert isinstance(response, HtmlResponse)
        return response
    if response not in _pages:
        page = _look_at(response)
        if page is response:
            _bounded_pages.add(page)
            return page
        _pages[response] = page
    return _pages[response]


def is_page(response: Response) -> bool:
    """Whether *response* is an HTML page by its bytes, whatever type its server names."""
    return page_of(response) is not None


def _look_at(response: Response) -> HtmlResponse | None:
    if not isinstance(response, TextResponse):
        return None
    html: str | None
    if isinstance(response, HtmlResponse):
        if is_bounded(response.body):
            return response
        html = response.text
    else:
        html = _html_of(response)
    if html is None:
        return None
    return HtmlResponse(
        response.url,
        status=response.status,
        headers=response.headers,
        body=bounded(html).encode("utf-8", "replace"),
        encoding="utf-8",
        request=response.request,
    )


def _html_of(response: TextResponse) -> str | None:
    """The HTML of a response that is not said to be HTML."""
    kind = (response.headers.get("Content-Type") or b"").partition(b";")[0].strip().lower()
    if (kind and kind not in _PAGE_TYPES) or b"<" not in response.body[:_START]:
        return None
    start = response.body[:_START].decode(response.encoding, "replace")
    begin = _BEFORE.match(start)
    place = begin.end() if begin else 0
    if _PARTIAL.match(start, place):
        return _updates(response.text)
    told = _HTML if kind in (b"", b"text/plain") else _XHTML
    return response.text if told.match(start, place) else None


def _updates(text: str) -> str:
    """What stands in the CDATA of a <partial-response>."""
    pieces = []
    for piece in text[:MAX_PAGE].split(_CDATA)[1:]:
        html, end, _ = piece.partition(_CDATA_END)
        if end:
            pieces.append(html)
    return "\n".join(pieces)


def frames_of(response: Response) -> list[str]:
    """Selectors of the frames on a page: up to ten, as a rule's ``frame`` would name them."""
    page = page_of(response)
    if page is None:
        return []
    found = page.xpath("(//iframe[@src] | //frame[@src])[position() <= 10]")
    return [_frame_selector(frame.root.tag, frame.attrib) for frame in found]


def _frame_selector(tag: str, attributes: dict[str, str]) -> str:
    for name in ("id", "name", "title"):
        value = attributes.get(name, "")[:100]
        if value and '"' not in value and "\\" not in value:
            return f'{tag}[{name}="{value}"]'
    address = attributes["src"].partition("?")[0][:200]
    is_plain = address and '"' not in address and "\\" not in address
    return f'{tag}[src^="{address}"]' if is_plain else tag
