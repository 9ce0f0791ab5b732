"""Hosts: how URLs spell them, which belong to one site, and which stand in a private network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from tldextract import TLDExtract

Space = Literal["public", "private", "link-local", "loopback"]

# The list of public suffixes that comes with tldextract: it is never asked for online.
_suffixes = TLDExtract(
    suffix_list_urls=(), cache_dir=None, fallback_to_snapshot=True, include_psl_private_domains=True
)
_NOT_IN_HOSTS = re.compile(r"[/\\?#\s@*]")


def spell_host(host: str | None) -> str:
    """Spell a host as in the URLs of requests: lower case, punycode, IPv6 in brackets.

    :raises ValueError: there cannot be such a host
    """
    name = (host or "").lower().rstrip(".")
    if ":" in name:
        return f"[{ipaddress.IPv6Address(name)}]"
    return name.encode("idna").decode("ascii")


def parse_host(text: object) -> str:
    """Spell what users write for a host, ``example.org`` or ``example.org:8000``, as URLs do.

    :raises ValueError: it is no host; the message says what to write
    """
    host = str(text).strip()
    parts = urlsplit(f"//{host}")
    name = spell_host(parts.hostname)
    if not name or _NOT_IN_HOSTS.search(host):
        raise ValueError("write `example.org` (it covers its subdomains) or `example.org:8000`")
    return f"{name}:{parts.port}" if parts.port else name


def is_covered(url: str, hosts: Iterable[str]) -> bool:
    """Whether the host of *url* is one of *hosts* or below one of them."""
    host, port = _host_and_port(url)
    names = {parse_host(name) for name in hosts}
    while host and names:
        if host in names or f"{host}:{port}" in names:
            return True
        host = "" if _address(host) else host.partition(".")[2]
    return False


def same_site(url: str, other: str) -> bool:
    """Whether two URLs belong to one site: one registrable domain, or the same address.

    Schemes and ports do not matter. Hosts without a public suffix (``localhost``, names of an
    intranet) are sites of their own.
    """
    one, two = _host_and_port(url)[0], _host_and_port(other)[0]
    return bool(one) and (one == two or "" != _domain(one) == _domain(two))


def same_host(url: str, other: str) -> bool:
    """Whether two URLs name the same host, on whatever port."""
    return _host_and_port(url)[0] == _host_and_port(other)[0]


def same_origin(url: str, other: str) -> bool:
    """Whether two URLs have scheme, host and port in common."""
    return urlsplit(url).scheme == urlsplit(other).scheme and (
        _host_and_port(url) == _host_and_port(other)
    )


def same_page(one: str, other: str) -> bool:
    """Whether two addresses are the same but for scheme, `www.` and a slash at the end."""
    return _bare_address(one) == _bare_address(other)


def _bare_address(url: str) -> tuple[str, str, str]:
    parts = urlsplit(url)
    return parts.netloc.removeprefix("www."), parts.path.rstrip("/"), parts.query


def host_of(url: str) -> str:
    """The host of *url* as it stands in requests; empty if there cannot be such a host."""
    return _host_and_port(url)[0]


def space_of(host: str) -> Space | None:
    """In which kind of network *host* stands; None for a name, which must be looked up for that.

    :param host: a host as host_of() returns it, or an address
    """
    if host == "localhost" or host.endswith(".localhost"):
        return "loopback"
    address = _address(host)
    if address is None:
        return None
    if (
        address.is_loopback or address.is_unspecified
    ):  # a connection to 0.0.0.0 reaches this machine
        return "loopback"
    if address.is_link_local:
        return "link-local"
    return "public" if address.is_global else "private"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that *host* is, in whatever way that connections take it; None for a name."""
    text = host.strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _old_ipv4(text)
    # ::ffff:127.0.0.1 and 64:ff9b::7f00:1 lead to the IPv4 address that they hold.
    if isinstance(address, ipaddress.IPv6Address):
        held = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            held = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return held or address
    return address


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _old_ipv4(text: str) -> ipaddress.IPv4Address | None:
    """Read `127.1`, `0x7f000001`, `2130706433` and `0177.0.0.1`, as the C library's inet_aton."""
    parts = text.split(".")
    if not 1 <= len(parts) <= 4 or not all(map(_OLD_NUMBER.fullmatch, parts)):
        return None
    *heads, tail = [_old_number(part) for part in parts]
    width = 8 * (4 - len(heads))
    if any(head > 255 for head in heads) or tail >= 1 << width:
        return None
    value = 0
    for head in heads:
        value = value << 8 | head
    return ipaddress.IPv4Address(value << width | tail)


_OLD_NUMBER = re.compile(r"0[xX][\da-fA-F]{1,8}|0[0-7]{0,11}|[1-9]\d{0,9}")


def _old_number(text: str) -> int:
    if text[:2].lower() == "0x":
        return int(text, 16)
    return int(text, 8 if text[0] == "0" else 10)


@lru_cache(maxsize=1024)
def _host_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return spell_host(parts.hostname), port
    except ValueError:
        return "", None


@lru_cache(maxsize=1024)
def _domain(host: str) -> str:
    """The registrable domain of *host*; empty if it has none."""
    if _address(host):
        return ""
    found = _suffixes(host)
    return f"{found.domain}.{found.suffix}" if found.domain and found.suffix else ""
