"""Style sheets, as far as they name pictures: rules with an url(), read in one pass.

This follows the tokens of CSS Syntax Level 3 that may hide a brace: comments, strings, url().
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import cssselect
from cssselect import parser as css
from parsel import Selector

from scrapy_acecaptcha.selectors import to_xpath

MAX_SHEETS = 200_000  # characters of a page's style sheets that are read
MAX_RULES = 500  # with a picture; later ones win, so the last ones are kept
MAX_SELECTOR = 300  # characters of a selector
MAX_SEARCHES = 5  # of the whole page for one element

_TOKEN = re.compile(r"/\*|[\"']|url\(|[{}]", re.IGNORECASE)
_URL = re.compile(r"url\(\s*", re.IGNORECASE)
_QUOTED = {
    '"': re.compile(r'"([^"\\\n]*(?:\\.[^"\\\n]*)*)("|\n|\Z)?', re.DOTALL),
    "'": re.compile(r"'([^'\\\n]*(?:\\.[^'\\\n]*)*)('|\n|\Z)?", re.DOTALL),
}


class PictureRule(NamedTuple):
    """One selector of a style sheet's rule that has a picture."""

    parsed: Any
    selector: str
    url: str


def first_url(declarations: str) -> str | None:
    """The address in the first url() of *declarations*; None if there is none."""
    start = _URL.search(declarations)
    return None if start is None else _read_url(declarations, start.end())[0]


def _read_url(text: str, place: int) -> tuple[str | None, int]:
    """The address that begins at *place*, behind `url(`, and where it ends."""
    quoted = _QUOTED[text[place]].match(text, place) if text[place : place + 1] in _QUOTED else None
    if quoted is not None:
        return quoted[1], quoted.end()
    end = text.find(")", place)
    return (None, len(text)) if end < 0 else (text[place:end].strip(), end + 1)


def _blocks(sheet: str) -> Iterator[tuple[str, str]]:
    """What stands before each brace pair, and the picture directly inside of it."""
    open_blocks: list[tuple[str, str | None]] = []
    start = place = 0
    while token := _TOKEN.search(sheet, place):
        place = token.end()
        found = token[0].lower()
        if found == "/*":
            end = sheet.find("*/", place)
            if end < 0:
                return
            place = end + 2
        elif found in _QUOTED:
            string = _QUOTED[found].match(sheet, token.start())
            place = string.end() if string else len(sheet)
        elif found == "url(":
            url, place = _read_url(sheet, _URL.match(sheet, token.start()).end())  # type: ignore[union-attr]
            if open_blocks and url is not None:
                prelude, shown = open_blocks[-1]
                open_blocks[-1] = prelude, shown or url
        elif found == "{":
            open_blocks.append((_prelude(sheet[start : token.start()]), None))
            start = place
        else:
            start = place
            if open_blocks:
                prelude, shown = open_blocks.pop()
                if shown is not None and prelude and not prelude.startswith("@"):
                    yield prelude, shown


def _prelude(text: str) -> str:
    if len(text) > 2 * MAX_SELECTOR:
        return ""
    return re.sub(r"/\*[^*]*\*+(?:[^/*][^*]*\*+)*/", "", text).rpartition(";")[2].strip()


class StyleSheets:
    """The pictures that a page's <style> blocks name, by what must match."""

    def __init__(self, page: Selector) -> None:
        self._page = page
        self._rules: dict[str, list[tuple[int, PictureRule]]] = {}
        left = MAX_SHEETS
        found: list[tuple[str, str]] = []
        for style in page.root.iter("style"):
            found += _blocks((style.text or "")[:left])
            left -= len(style.text or "")
            if left <= 0:
                break
        for place, (selectors, url) in enumerate(found[-MAX_RULES:]):
            for rule in _rules_of(selectors, url):
                self._rules.setdefault(_key(rule.parsed), []).append((place, rule))

    def picture_of(self, element: Any) -> str | None:
        """The picture that the last matching rule gives to *element*."""
        keys = ["", element.tag, f"#{element.get('id')}"]
        keys += [f".{name}" for name in (element.get("class") or "")[:MAX_SELECTOR].split()]
        rules = [rule for key in dict.fromkeys(keys) for rule in self._rules.get(key, ())]
        searches = 0
        for _, rule in sorted(rules, key=lambda placed: placed[0], reverse=True):
            matches = _matches_alone(rule.parsed, element)
            if matches is None and searches < MAX_SEARCHES:
                searches += 1
                matches = self._is_among(element, rule.selector)
            if matches:
                return rule.url
        return None

    def _is_among(self, element: Any, selector: str) -> bool:
        try:
            return any(match.root is element for match in self._page.xpath(to_xpath(selector)))
        except ValueError:  # :hover and whatever else pages write
            return False


def _rules_of(selectors: str, url: str) -> Iterator[PictureRule]:
    try:
        for parsed in css.parse(selectors):
            yield PictureRule(parsed.parsed_tree, parsed.canonical(), url)
    except (cssselect.SelectorError, RecursionError, ValueError):
        return


def _last(tree: Any) -> Any:
    """The part of a selector that speaks of the element itself."""
    while isinstance(tree, css.CombinedSelector):
        tree = tree.subselector
    return tree


def _key(tree: Any) -> str:
    """What an element must have to be matched: an id, a class, or a name; empty if unknown."""
    tree = _last(tree)
    name = ""
    while tree is not None:
        if isinstance(tree, css.Hash):
            return f"#{tree.id}"
        if isinstance(tree, css.Class):
            name = f".{tree.class_name}"
        elif isinstance(tree, css.Element):
            return name or (tree.element or "")
        tree = getattr(tree, "selector", None)
    return name


def _matches_alone(tree: Any, element: Any) -> bool | None:
    """Whether a selector of names, ids and classes matches; None if more must be known."""
    unknown = isinstance(tree, css.CombinedSelector)
    tree = _last(tree)
    classes = set((element.get("class") or "")[:MAX_SELECTOR].split())
    while tree is not None:
        if isinstance(tree, css.Hash):
            fits = tree.id == element.get("id")
        elif isinstance(tree, css.Class):
            fits = tree.class_name in classes
        elif isinstance(tree, css.Element):
            fits = tree.element in (None, element.tag)
        else:
            unknown, fits = True, True
        if not fits:
            return False
        tree = getattr(tree, "selector", None)
    return None if unknown else True


_sheets: WeakKeyDictionary[Selector, StyleSheets] = WeakKeyDictionary()


def background(element: Any, page: Selector) -> str | None:
    """The CSS background of *element*: its own style, else the page's <style> blocks."""
    own = first_url(element.get("style") or "")
    if own is not None:
        return own
    if page not in _sheets:
        _sheets[page] = StyleSheets(page)
    return _sheets[page].picture_of(element)
