"""How users write selectors: CSS, XPath, or `text=` for a piece of visible text."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

import cssselect
from cssselect import parser as css
from parsel import Selector
from parsel.csstranslator import HTMLTranslator

if TYPE_CHECKING:
    from parsel import SelectorList

_TRANSLATOR = HTMLTranslator()
_XPATH_STARTS = ("/", "(", "./", "xpath=")
# Letters for which no named character reference stands, unlike `_`, which may be `&lowbar;`.
_WORD = re.compile(r"[A-Za-z0-9-]{3,}")
# A page may spell such letters as numeric references (`&#99;aptcha`). Those of other characters, as
# in `it&#39;s`, are frequent; numbers of eight digits are anybody's guess.
_SPELT_LETTER = re.compile(
    rb"&#(?:"
    rb"0*(?:45|4[89]|5[0-7]|6[5-9]|[78]\d|90|9[7-9]|1[01]\d|12[0-2])(?!\d)|\d{8}"
    rb"|[xX](?:0*(?:2[dD]|3\d|[46][1-9a-fA-F]|[57][\daA])(?![\da-fA-F])|[\da-fA-F]{8}))"
)
_UNQUOTED_ENDS = re.compile(rb"[ \t\n\f\r>]")
MAX_MENTIONS = 20  # of a word on a page that are looked at more closely
# libxml2 only finds unknown functions, variables and prefixes once it comes upon them.
_TRIAL_PAGE = Selector(
    "<form><label><input><select><option></select><textarea></textarea><button></form>"
    "<div><p><a><span><img></span></a></p><svg></svg><canvas></canvas></div>"
)


def is_xpath(selector: str) -> bool:
    """XPath starts with `/`, `(`, `./` or `xpath=`."""
    return selector.startswith(_XPATH_STARTS)


def text_of(selector: str) -> str | None:
    """The text that a `text=` selector looks for; None for CSS and XPath."""
    if not selector.startswith("text="):
        return None
    return squeeze(selector[len("text=") :].strip("\"'"))


def frame_steps(selector: str) -> list[str]:
    """The selectors of a rule's ``frame``, from the outermost frame to the one inside of it."""
    return [step.strip() for step in selector.split(" >> ")]


@lru_cache(maxsize=1024)
def to_xpath(selector: str) -> str:
    """Translate CSS or XPath as users write it into plain XPath.

    :raises ValueError: the selector is broken; the message says how
    """
    if text_of(selector) is not None:
        raise ValueError("`text=` and some text may name a button or decide a verdict only")
    try:
        if is_xpath(selector):
            xpath = selector.removeprefix("xpath=")
        else:
            xpath = str(_TRANSLATOR.css_to_xpath(selector.removeprefix("css=")))
        _TRIAL_PAGE.xpath(xpath)
    except (cssselect.SelectorError, RecursionError, ValueError) as error:
        kind = "XPath" if is_xpath(selector) else "CSS selector"
        hint = "" if is_xpath(selector) else _hint_for_colons(selector)
        raise ValueError(f"bad {kind} {selector!r}: {error}{hint}") from None
    return xpath


def _hint_for_colons(selector: str) -> str:
    """What to write for `#form:captcha`, an id as JSF makes them, which CSS reads as `#form`."""
    ids = _ID_WITH_COLON.findall(selector)
    return f"; for the id {ids[0][1:]!r} write [id={ids[0][1:]!r}]" if ids else ""


_ID_WITH_COLON = re.compile(r"#[A-Za-z_][\w-]*(?::[\w-]+)+")


def select(root: Selector, selector: str, *, limit: int = 0) -> SelectorList[Selector]:
    """Return what *selector* (CSS or XPath) matches below *root*.

    :param limit: so many matches are enough; 0 for all
    """
    xpath = to_xpath(selector)
    if limit:
        with suppress(ValueError):  # an XPath that is no set of nodes
            return root.xpath(f"({xpath})[position() <= {limit}]")
    return root.xpath(xpath)


def same_text(shown: str | None, text: str) -> bool:
    """Whether an element that shows *shown* is meant by a `text=` selector for *text*."""
    return text in squeeze(shown or "")


def squeeze(text: str) -> str:
    """*text* with single spaces and in lower case."""
    return " ".join(text.split()).casefold()


@lru_cache(maxsize=1024)
def needed_words(selector: str) -> tuple[bytes, ...] | None:
    """Words of which an element that *selector* matches has at least one in its attributes.

    None if no such word is known, as for XPath or for `form img`.

    :raises ValueError: the selector is broken
    """
    to_xpath(selector)
    if is_xpath(selector):
        return None
    words = []
    for alternative in css.parse(selector.removeprefix("css=")):
        found = [w for value in _literals(alternative.parsed_tree) for w in _WORD.findall(value)]
        if not found:
            return None
        words.append(max(found, key=len).encode("ascii"))
    return tuple(words)


def may_have(source: bytes, words: tuple[bytes, ...]) -> bool:
    """Whether an attribute may have one of *words*, looking at a page's source without parsing it.

    This costs a twentieth of parsing the page, and most pages have no captcha.
    """
    return (
        any(_is_in_a_value(word, source) for word in words)
        or not has_ascii_letters(source)
        or _SPELT_LETTER.search(source) is not None
    )


def _is_in_a_value(word: bytes, source: bytes) -> bool:
    """Whether *word* may stand in an attribute's value, and not only in text."""
    start = -1
    for _ in range(MAX_MENTIONS):
        start = source.find(word, start + 1)
        if start < 0:
            return False
        if _is_value_until(start, source):
            return True
    return True


def _is_value_until(end: int, source: bytes) -> bool:
    """Whether *source* may have, up to *end*, an `=` and a value that has not ended."""
    for quote in (b'"', b"'"):
        opened = source.rfind(quote, 0, end)
        if opened > 0 and source[:opened].rstrip().endswith(b"="):
            return True
    return not _UNQUOTED_ENDS.search(source[source.rfind(b"=", 0, end) + 1 : end].lstrip())


def has_ascii_letters(source: bytes) -> bool:
    """Whether the letters of HTML's own words stand in *source* as in ASCII, and all in a row.

    In UTF-16 NULs are between them, and in pages that break their words with NULs, which parsel
    drops; in EBCDIC a `<` is another byte. Asking for the page's encoding would take longer.
    """
    return b"<" in source and b"\0" not in source


def _literals(node: object) -> list[str]:
    """Ids, classes and attribute values that an element must have to match *node*."""
    found: list[str] = []
    while node is not None:
        if isinstance(node, css.Hash):
            found.append(node.id)
        elif isinstance(node, css.Class):
            found.append(node.class_name)
        elif isinstance(node, css.Attrib):
            # `[x="a" i]` is newer than some cssselect
            any_case = getattr(node, "flag", None) == "i"
            if node.value is not None and node.operator != "!=" and not any_case:
                found.append(node.value.value or "")
        elif isinstance(node, css.CombinedSelector):
            found.extend(_literals(node.subselector))
        node = getattr(node, "selector", None)
    return found
