"""What the spider asked for, behind the redirects that led its request elsewhere.

A redirect makes a new request of an old one, and the old one's address, method, body, priority and
some headers are forgotten. They are found again when the new one is scheduled, as the old one is
still in Scrapy's hands then. Nothing is written on a request but between scheduler and download,
where a queue on disk may lie; spiders see nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4
from weakref import WeakKeyDictionary

from scrapy import Request

NOTE = "_acecaptcha"  # request.meta key, between the scheduler and the download
REDIRECT_META = ("redirect_times", "redirect_ttl", "redirect_urls", "redirect_reasons")
_ORIGIN = "origin"  # in a note: what the spider asked for
_FILTERED = "filtered"  # in a note: the duplicate filter has dropped the request
_TO_FILTER = "to_filter"  # in a note: as the spider made it, the request may be filtered


class Origin(NamedTuple):
    """What the spider asked for by a request that was redirected.

    :param headers: those that a redirect takes away or changes
    :param sent_at: solves in the crawl when the request was sent
    :param chain: pages between it and the newest request, by their fingerprints
    """

    url: str
    method: str
    body: bytes
    priority: int
    headers: dict[str, list[str]]
    sent_at: int
    chain: tuple[int, ...] = ()


_origins: WeakKeyDictionary[Request, Origin] = WeakKeyDictionary()  # of redirected requests


def is_redirected(request: Request) -> bool:
    """Whether *request* is where a redirect led."""
    return request in _origins


def origin_of(request: Request) -> Origin | None:
    """What the spider asked for by a *request* that was redirected; None if it was not."""
    return _origins.get(request)


def original_url(request: Request) -> str:
    """The address that the spider asked for."""
    origin = _origins.get(request)
    return request.url if origin is None else origin.url


def original_request(request: Request) -> Request:
    """The request that the spider made, before redirects changed it."""
    origin = _origins.get(request)
    if origin is None:
        return request
    meta = {k: v for k, v in request.meta.items() if k not in (*REDIRECT_META, NOTE)}
    if meta.get("download_slot") == urlsplit(request.url).hostname:
        del meta["download_slot"]  # the downloader's own note, not the spider's wish
    headers = request.headers.copy()
    headers.pop("Referer", None)  # the redirect's
    headers.update({k: [v.encode("latin-1") for v in vs] for k, vs in origin.headers.items()})
    return request.replace(
        url=origin.url,
        method=origin.method,
        body=origin.body,
        priority=origin.priority,
        headers=headers,
        meta=meta,
    )


def again(request: Request) -> Request:
    """What the spider asked for by *request*, for the scheduler, which is not to filter it."""
    request = original_request(request)
    note = {} if request.dont_filter else {NOTE: {_TO_FILTER: True}}
    return request.replace(dont_filter=True, meta={**request.meta, **note})


class Redirects:
    """Follows the requests of one crawl through their redirects.

    :param page_of: what the duplicate filter tells a request's page by
    """

    def __init__(self, page_of: Callable[[Request], int]) -> None:
        self._page_of = page_of
        self._run = uuid4().hex  # tells what was noted in this run of the crawl
        # Requests in Scrapy's hands -> solves in the crawl when they were sent.
        self._out: WeakKeyDictionary[Request, int] = WeakKeyDictionary()

    def sent(self, request: Request, solves: int) -> None:
        """*request* goes on to the downloader.

        :param solves: in the crawl until now
        """
        self._out[request] = solves

    def ended(self, request: Request) -> None:
        """Whatever is made of *request* from now on is a request of its own."""
        self._out.pop(request, None)
        _origins.pop(request, None)

    def scheduled(self, request: Request) -> Request | None:
        """Look whether *request* was made of one that was sent, by a redirect or to retry one.

        Return that one.
        """
        if request in _origins or NOTE in request.meta or not self._out:
            return None
        times = request.meta.get("redirect_times")
        if not times:
            return None
        for sent, solves in list(self._out.items()):
            if _is_redirect(request, sent):
                _origins[request] = self._followed(sent, request, solves)
            elif sent in _origins and _is_retry(request, sent):
                _origins[request] = _origins[sent]
            else:
                continue
            del self._out[sent]
            return sent
        return None

    def note(self, request: Request, *, filtered: bool = False) -> None:
        """Write on a redirected *request* what is known of it, as it goes into a queue.

        :param filtered: the duplicate filter has dropped it
        """
        origin = _origins.get(request)
        if origin is None:
            return
        note: dict[str, Any] = {
            **request.meta.get(NOTE, {}),
            _ORIGIN: [
                *origin[:2],
                origin.body.decode("latin-1"),
                *origin[3:-1],
                list(origin.chain),
                self._run,
            ],
        }
        if filtered:
            note[_FILTERED] = True
        request.meta[NOTE] = note

    def brought_back(self, request: Request, *, filtered: bool) -> Request:
        """The redirected *request* that was dropped, for the scheduler, which is not to filter it.

        :param filtered: it is to be filtered all the same if its page shows no captcha
        """
        back = request.replace(dont_filter=True, meta={**request.meta, NOTE: {_TO_FILTER: True}})
        _origins[back] = _origins[request]
        self.note(back, filtered=filtered)
        return back

    def arrived(self, request: Request) -> bool:
        """*request* has come from the scheduler: take what is noted on it.

        Return whether the duplicate filter had dropped it.
        """
        note = request.meta.pop(NOTE, None)
        if note is None:
            self.scheduled(request)  # it may come from no scheduler: engine.download_async()
            return False
        if note.get(_TO_FILTER):
            request.dont_filter = False
        if _ORIGIN in note:
            url, method, body, priority, headers, sent_at, chain, run = note[_ORIGIN]
            # The solves of another run of the crawl were in sessions that are no more.
            sent_at = sent_at if run == self._run else 0
            _origins[request] = Origin(
                url, method, body.encode("latin-1"), priority, headers, sent_at, tuple(chain)
            )
        return bool(note.get(_FILTERED))

    def _followed(self, sent: Request, request: Request, solves: int) -> Origin:
        """The origin of *request*, to which *sent* was redirected."""
        origin = _origins.get(sent)
        if origin is not None:
            return origin._replace(chain=(*origin.chain, self._page_of(sent)))
        return Origin(
            sent.url,
            sent.method,
            sent.body,
            sent.priority,
            {name.decode(): values for name, values in _lost_headers(sent, request)},
            solves,
        )


def _is_redirect(request: Request, sent: Request) -> bool:
    """Whether *request* is where a redirect of *sent* leads, and not one with an old one's meta."""
    meta, old = request.meta, sent.meta
    return (
        meta.get("redirect_urls") == [*old.get("redirect_urls", ()), sent.url]
        and meta["redirect_times"] == old.get("redirect_times", 0) + 1
        # The very object, which each download notes anew: two requests may be for one address.
        and meta.get("download_latency") is old.get("download_latency")
        and request.callback == sent.callback
    )


def _is_retry(request: Request, sent: Request) -> bool:
    meta, old = request.meta, sent.meta
    return request.url == sent.url and meta.get("redirect_urls") is old.get("redirect_urls")


def _lost_headers(sent: Request, request: Request) -> Iterable[tuple[bytes, list[str]]]:
    for name in sent.headers:
        # Cookies are in the jar, and newer there.
        if name == b"Cookie" and not sent.meta.get("dont_merge_cookies"):
            continue
        values = sent.headers.getlist(name)
        if values != request.headers.getlist(name):
            yield name, [value.decode("latin-1") for value in values]
