"""Look a host's addresses up without blocking, where the download will look them up, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from scrapy.utils.defer import maybe_deferred_to_future
from scrapy.utils.reactor import is_reactor_installed
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer


async def addresses_of(host: str) -> Sequence[str]:
    """The addresses of *host*; none if it is not known.

    With a reactor, Scrapy's own resolver is asked: it remembers what it said, so that the download
    goes to an address that was seen here, and DNS_RESOLVER and DNS_TIMEOUT hold.
    """
    if is_reactor_installed():
        from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one

        receiver = _Receiver()
        resolver: Any = reactor
        resolver.nameResolver.resolveHostName(receiver, host)
        return await maybe_deferred_to_future(receiver.done)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:
        return []
    return [str(socket_address[0]) for *_, socket_address in found]


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self) -> None:
        self.done: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        self._found.append(str(getattr(address, "host", "")))

    def resolutionComplete(self) -> None:
        self.done.callback(self._found)
