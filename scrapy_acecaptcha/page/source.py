"""How much of a page's source is looked at, so that no page takes long."""

from __future__ import annotations

import re
from itertools import islice

MAX_PAGE = 2_000_000
"""Characters or bytes of a page that are looked at."""

MAX_TAGS = 60_000
"""Elements of a page that are looked at."""

MAX_TAG = 700
"""Characters of a tag with many attributes: libxml2 compares each attribute with all before it."""

_MAY_BE_SLOW = 30_000  # a shorter page is parsed in no time, whatever is in it
_MANY_ATTRIBUTES = 100
# A tag ends at a > outside of quotes, else at the end of the page. Nothing follows the loop, so
# there is nothing for which the expression would go back.
_TAG = re.compile(r"""<[A-Za-z](?:[^"'>]+|"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))*""")
_VALUE = re.compile(r"""=\s*(?:"[^"]*"|'[^']*')""")


def is_bounded(body: bytes) -> bool:
    """Whether a page can be parsed as it is; looks at the bytes only."""
    if len(body) <= _MAY_BE_SLOW:
        return True
    if too_large(body):
        return False
    return _cut_tags(body.decode("latin-1")) is None


def too_large(body: bytes) -> str:
    """Of what a page has more than is looked at; empty if it has not."""
    if len(body) > MAX_PAGE:
        return f"has {len(body):,} bytes; {MAX_PAGE:,} are looked at"
    if body.count(b"<") > MAX_TAGS and next(
        islice(_TAG_START.finditer(body), MAX_TAGS, None), None
    ):
        return f"has more than {MAX_TAGS:,} elements"
    return ""


_TAG_START = re.compile(rb"<[A-Za-z]")


def bounded(source: str) -> str:
    """The beginning of a page's *source*, with tags that have too many attributes cut."""
    source = source[:MAX_PAGE]
    if len(source) <= _MAY_BE_SLOW:
        return source
    return _cut_tags(source) or source


def _cut_tags(source: str) -> str | None:
    """*source* with its slow tags cut; None if there are none."""
    pieces: list[str] = []
    end = 0
    for count, tag in enumerate(_TAG.finditer(source)):
        if count >= MAX_TAGS:
            return "".join([*pieces, source[end : tag.start()]])
        if tag.end() - tag.start() > MAX_TAG and _has_many_attributes(tag[0]):
            pieces.append(source[end : tag.start() + MAX_TAG] + "'\">")
            end = tag.end()
    return "".join([*pieces, source[end:]]) if pieces else None


def _has_many_attributes(tag: str) -> bool:
    bare = _VALUE.sub("= ", tag)
    return len(bare.replace("/", " ").split()) > _MANY_ATTRIBUTES
