"""How users write selectors: CSS, XPath, or `text=` for a piece of visible text."""

from __future__ import annotations

import re
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
# A page that spells a word otherwise has one of these: numeric references, as in `&#99;aptcha`, or
# NULs, which parsel drops.
_SPELT_OTHERWISE = (b"&#", b"\0")
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
    return _squeeze(selector[len("text=") :].strip("\"'"))


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
        raise ValueError(f"bad {kind} {selector!r}: {error}") from None
    return xpath


def select(root: Selector, selector: str) -> SelectorList[Selector]:
    """Return what *selector* (CSS or XPath) matches below *root*."""
    return root.xpath(to_xpath(selector))


def has_text(root: Selector, text: str) -> bool:
    """Whether the page shows *text*, whatever the case and white space, as in Playwright."""
    shown = root.xpath(
        "//text()[not(ancestor::head or ancestor::script or ancestor::style or ancestor::noscript)]"
    ).getall()
    # Two pieces of text are one word (`<b>W</b>rong`) or two (cells of a table).
    return any(text in _squeeze(glue.join(shown)) for glue in ("", " "))


def same_text(shown: str | None, text: str) -> bool:
    """Whether an element that shows *shown* is meant by a `text=` selector for *text*."""
    return text in _squeeze(shown or "")


def _squeeze(text: str) -> str:
    return " ".join(text.split()).casefold()


def needed_words(selector: str) -> tuple[bytes, ...] | None:
    """Words of which one must stand in a page's source for *selector* to match there.

    The source is in an encoding that has ASCII's letters.

    Looking for a word costs a hundredth of parsing the page, and most pages have no captcha. None
    if no such word is known, as for XPath or for `form img`.

    :raises ValueError: the selector is broken
    """
    to_xpath(selector)
    if is_xpath(selector):
        return None
    words = list(_SPELT_OTHERWISE)
    for alternative in css.parse(selector.removeprefix("css=")):
        found = [w for value in _literals(alternative.parsed_tree) for w in _WORD.findall(value)]
        if not found:
            return None
        words.append(max(found, key=len).encode("ascii"))
    return tuple(words)


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
