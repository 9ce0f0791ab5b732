"""How browsers write a filled-in form: addresses, bodies, encodings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from urllib3.filepost import choose_boundary
from w3lib.encoding import resolve_encoding
from w3lib.url import safe_url_string

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

_ENCODING_NAMES = {
    "utf-8": "UTF-8",
    "gbk": "GBK",
    "big5": "Big5",
    "cp932": "Shift_JIS",
    "cp949": "EUC-KR",
    "euc_jp": "EUC-JP",
    "iso2022_jp": "ISO-2022-JP",
}


@dataclass(frozen=True)
class Submission:
    """An HTTP request that submits a form."""

    url: str
    method: str
    headers: dict[str, str]
    body: bytes


class Posted(NamedTuple):
    """A form that the spider has sent itself.

    :param url: where it was sent
    """

    url: str
    values: Mapping[str, list[str]]


class Entry(NamedTuple):
    """One name and value that a form sends."""

    name: str
    value: str
    is_file: bool = False


class FormEncoder:
    """Writes what a form sends in the encoding that a browser would use.

    :param page_encoding: the page's encoding, as Scrapy names it
    :param accept_charset: the form's attribute of that name
    """

    def __init__(self, page_encoding: str, accept_charset: str | None) -> None:
        self._page_encoding = _browser_encoding(page_encoding)
        self.encoding = _accepted(accept_charset) or self._page_encoding

    @property
    def name(self) -> str:
        """The name that the Encoding Standard has for the codec."""
        known = _ENCODING_NAMES.get(self.encoding)
        return known or re.sub("^cp(?=125|874)", "windows-", self.encoding)

    def encode(
        self, url: str, method: str, enctype: str | None, entries: Sequence[Entry]
    ) -> Submission:
        """Write the request for a form that is sent to *url*."""
        if method == "GET":
            query = self._urlencoded(entries)
            return Submission(f"{url.partition('?')[0]}?{query}", "GET", {}, b"")
        enctype = (enctype or "").lower()
        if enctype == MULTIPART:
            boundary = choose_boundary()
            content_type, body = f"{MULTIPART}; boundary={boundary}", self._parts(entries, boundary)
        elif enctype == "text/plain":
            content_type = enctype
            body = b"".join(self._bytes(f"{e.name}={e.value}\r\n") for e in entries)
        else:
            content_type, body = URLENCODED, self._urlencoded(entries).encode("ascii")
        return Submission(url, "POST", {"Content-Type": content_type}, body)

    def ascii_url(self, url: str) -> str:
        """Write a URL's path in UTF-8, but its query in the page's encoding, as browsers do."""
        path, mark, query = url.partition("?")
        encoding = self._page_encoding
        query = re.sub(
            r"[^\x00-\x7f]+", lambda text: quote(text[0], "", encoding, "xmlcharrefreplace"), query
        )
        return str(safe_url_string(path + mark + query))

    def _parts(self, entries: Sequence[Entry], boundary: str) -> bytes:
        parts = []
        for name, value, is_file in entries:
            quoted = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{quoted}"'
            if is_file:
                head += '; filename=""\r\nContent-Type: application/octet-stream'
            parts.append(f"{head}\r\n\r\n{value}\r\n")
        return self._bytes("".join(parts) + f"--{boundary}--\r\n")

    def _urlencoded(self, entries: Sequence[Entry]) -> str:
        return "&".join(f"{self._quote(e.name)}={self._quote(e.value)}" for e in entries)

    def _quote(self, text: str) -> str:
        # The set of unreserved characters is the URL Standard's, which is not Python's.
        return quote_plus(self._bytes(text), safe="*").replace("~", "%7E")

    def _bytes(self, text: str) -> bytes:
        return text.encode(self.encoding, "xmlcharrefreplace")


def _accepted(labels: str | None) -> str | None:
    """The encoding that a form's accept-charset asks for."""
    known = filter(resolve_encoding, (labels or "")[:200].replace(",", " ").split())
    return next(map(_browser_encoding, known), None)


def _browser_encoding(label: str) -> str:
    """The codec in which a browser writes forms and queries of a page with this encoding."""
    codec = (resolve_encoding(label) or "utf-8").lower()
    if codec.startswith(("utf-16", "utf-32")):
        return "utf-8"
    # Scrapy widens GBK and Big5 for reading, but browsers do not write the letters that this adds.
    return {"gb18030": "gbk", "big5hkscs": "big5"}.get(codec, codec)
