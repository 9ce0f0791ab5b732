"""What the spider asked for, behind the redirects that led its request elsewhere."""

from __future__ import annotations

from urllib.parse import urlsplit

from scrapy import Request

from scrapy_acecaptcha import hosts

same_page = hosts.same_page

DELIVERED = "_acecaptcha_delivered"  # request.meta key: the spider has had the response
SENT = "_acecaptcha_sent"  # request.meta key: what a redirect makes a request forget
SENT_AT = "_acecaptcha_sent_at"  # request.meta key: solves in the crawl when it was first sent

_REDIRECTS_DROP = frozenset({b"Content-Type", b"Referer"})
REDIRECT_META = ("redirect_times", "redirect_ttl", "redirect_urls", "redirect_reasons")


def is_redirected(request: Request) -> bool:
    """Whether *request* is where a redirect led, and not a new one with an old response's meta."""
    meta = request.meta
    if "redirect_urls" not in meta or DELIVERED in meta or SENT not in meta:
        return False
    redirects: int = meta[SENT]["redirects"]
    return len(meta["redirect_urls"]) > redirects


def original_url(request: Request) -> str:
    """The address that the spider asked for."""
    return str(request.meta[SENT]["url"]) if is_redirected(request) else request.url


def original_request(request: Request) -> Request:
    """The request that the spider made, before redirects changed it."""
    if not is_redirected(request):
        return request
    sent = request.meta[SENT]
    meta = {k: v for k, v in request.meta.items() if k not in REDIRECT_META}
    if meta.get("download_slot") == urlsplit(request.url).hostname:
        del meta["download_slot"]  # the downloader's own note, not the spider's wish
    meta[SENT] = {**sent, "redirects": 0}
    headers = request.headers.copy()
    headers.pop("Referer", None)  # the redirect's
    headers.update({k: sent[k] for k in map(bytes.decode, _REDIRECTS_DROP) if k in sent})
    return request.replace(
        url=sent["url"],
        method=sent["method"],
        body=sent["body"].encode("latin-1"),
        priority=sent["priority"],
        headers=headers,
        meta=meta,
    )


def note_original(request: Request) -> None:
    """Note what a redirect would take from a request, or change in it."""
    meta = request.meta
    meta.pop(DELIVERED, None)
    headers = request.headers
    meta[SENT] = {
        "url": request.url,
        "redirects": len(meta.get("redirect_urls", ())),
        "method": request.method,
        "body": request.body.decode("latin-1"),
        "priority": request.priority,
    }
    for name in headers.keys() & _REDIRECTS_DROP:
        meta[SENT][name.decode()] = (headers[name] or b"").decode("latin-1")
