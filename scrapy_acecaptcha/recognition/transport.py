"""HTTP with an end: replies of bounded size, and calls that are over at their deadline.

The timeouts of requests are between two bytes: a server that sends one now and then could hold a
call for ever. Here the connection is shut down at the deadline.
"""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

MAX_REPLY = 64_000  # bytes, unpacked; those of the API have a few hundred
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_in_use: dict[int, HTTPConnection] = {}  # thread -> connection on which it has sent last


class ReplyTooLarge(Exception):
    """A reply of more than MAX_REPLY bytes, or one that cannot be unpacked."""


class _Connection(HTTPConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _in_use[threading.get_ident()] = self
        super().request(*args, **kwargs)


class _SecureConnection(HTTPSConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _in_use[threading.get_ident()] = self
        super().request(*args, **kwargs)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Adapter(HTTPAdapter):
    """An adapter for requests whose connections :func:`until` can shut down."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pools behind a proxy of our connections, too."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Shut this thread's connection down at *deadline*, as of time.monotonic().

    :raises requests.Timeout: that happened, and what was received may be cut off
    """
    thread = threading.get_ident()
    _in_use.pop(thread, None)
    timer = threading.Timer(
        max(0.0, deadline - time.monotonic()), _shut_down, [thread, cut := threading.Event()]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
        if cut.is_set():
            raise requests.Timeout("the reply took too long")
    finally:
        timer.cancel()
        _in_use.pop(thread, None)


def _shut_down(thread: int, cut: threading.Event) -> None:
    cut.set()
    sock = getattr(_in_use.get(thread), "sock", None)
    if sock is not None:
        with suppress(OSError, ValueError):
            # Not SSLSocket's own, which would take the reader's TLS state away.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def read(response: requests.Response) -> bytes:
    """Return the unpacked body of a response that was asked for with ``stream=True``.

    :raises ReplyTooLarge: it has more than MAX_REPLY bytes, or is packed in a way we do not know
    :raises requests.ConnectionError: the connection broke
    """
    try:
        body = b""
        while len(body) <= MAX_REPLY:
            piece = response.raw.read(MAX_REPLY + 1 - len(body), decode_content=False)
            if not piece:
                break
            body += piece
        packing = response.headers.get("Content-Encoding", "identity").strip().lower()
        if packing in ("gzip", "x-gzip", "deflate"):
            body = zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, MAX_REPLY + 1)
        elif packing not in ("", "identity"):
            raise ReplyTooLarge(f"a reply packed with {packing[:20]!r}")
    except zlib.error:
        raise ReplyTooLarge("a reply that cannot be unpacked") from None
    except (HTTPError, OSError) as error:
        raise requests.ConnectionError(*error.args) from None
    finally:
        response.close()
    if len(body) > MAX_REPLY:
        raise ReplyTooLarge(f"a reply of more than {MAX_REPLY:,} bytes")
    return body
