"""Selectors that match one element of a page and will still do so when it is served again."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from lxml import etree
from parsel import Selector

from scrapy_acecaptcha.detect.vocabulary import names_captcha, spelled

MAX_LEVELS = 12  # of boxes around an element that may help to name it
MAX_OWN = 12  # selectors of an element by itself that are tried
MAX_OUTER = 20  # elements that the selector of a box may match
MAX_STEPS = 24  # of a path; longer ones are counted instead
MAX_VALUE = 80  # characters of an id, a class or a description worth naming

_DESCRIPTIONS = ("alt", "title", "placeholder", "aria-label", "type")
_PLAIN = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_TAG = re.compile(r"[a-z][a-z0-9-]*")


class _Own(NamedTuple):
    """A selector of an element by itself.

    :param css: as it is written
    :param tag: the tag that it asks for, empty for any
    :param attribute: the attribute that it asks for, empty for none
    :param operator: =, ~= (one of its words), *= (in it) or ^= (its beginning)
    """

    css: str
    tag: str = ""
    attribute: str = ""
    operator: str = "="
    value: str = ""


class UniqueSelectors:
    """Makes selectors for the elements of a page, by an index of its names made once.

    :param page: the parsed page
    """

    def __init__(self, page: Selector) -> None:
        self._last: dict[Any, int] = {}  # the place of the last element inside an element
        self._place: dict[Any, int] = {}
        self._elements: list[Any] = []
        self._by_tag: dict[str, list[int]] = defaultdict(list)
        self._by_attribute: dict[str, list[int]] = defaultdict(list)
        self._by_value: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._by_class: dict[str, list[int]] = defaultdict(list)
        self._matches: dict[_Own, list[int]] = {}
        for event, element in etree.iterwalk(page.root, events=("start", "end")):
            if event == "start":
                self._note(element)
            else:
                self._last[element] = len(self._elements) - 1

    def of(self, element: Any) -> str:
        """A selector that matches *element* and no other element of the page.

        The shortest of what will hold longest: id, name, the stable part of the address, class, a
        description, each alone or inside a box; else the path from the nearest element with an id;
        where that is too long, an XPath that counts.
        """
        own = list(islice(_own_selectors(element), MAX_OWN))
        for selector in own:
            if self._is_only(selector):
                return selector.css
        if is_plain_tag(element.tag):
            own.append(_Own(element.tag, element.tag))
        for box in islice(element.iterancestors(), MAX_LEVELS):
            for outer in islice(_own_selectors(box), MAX_OWN):
                for inner in own:
                    if self._is_only_in(outer, inner):
                        return f"{outer.css} {inner.css}"
        return self._path_to(element)

    def _note(self, element: Any) -> None:
        place = self._place[element] = len(self._elements)
        self._elements.append(element)
        self._by_tag[element.tag].append(place)
        for name, value in element.attrib.items():
            self._by_attribute[name].append(place)
            if name == "class":
                for word in set(value.split()):
                    self._by_class[word].append(place)
            elif len(value) <= MAX_VALUE:
                self._by_value[name, value].append(place)

    # Matching

    def _is_only(self, selector: _Own) -> bool:
        return len(self._matching(selector)) == 1

    def _is_only_in(self, outer: _Own, inner: _Own) -> bool:
        boxes, found = self._matching(outer), self._matching(inner)
        if len(boxes) > MAX_OUTER:
            return False
        inside = 0
        for box in boxes:
            last = self._last[self._elements[box]]
            inside += bisect_right(found, last) - bisect_left(found, box + 1)
        return inside == 1

    def _matching(self, selector: _Own) -> list[int]:
        """The places of the elements that *selector* matches."""
        if selector not in self._matches:
            self._matches[selector] = [
                place
                for place in self._named(selector)
                if selector.tag in ("", self._elements[place].tag)
            ]
        return self._matches[selector]

    def _named(self, selector: _Own) -> list[int]:
        _, tag, attribute, operator, value = selector
        if not attribute:
            return self._by_tag[tag]
        if operator == "=":
            return self._by_value[attribute, value]
        if operator == "~=":
            return self._by_class[value]
        is_beginning = operator == "^="
        return [
            place
            for place in self._by_attribute[attribute]
            for other in (self._elements[place].get(attribute),)
            if (other.startswith(value) if is_beginning else value in other)
        ]

    # Paths

    def _path_to(self, element: Any) -> str:
        steps: list[str] = []
        for one in [element, *islice(element.iterancestors(), MAX_STEPS)]:
            if steps and len(steps) <= MAX_LEVELS:
                for outer in islice(_own_selectors(one), MAX_OWN):
                    if self._is_only(outer):
                        return " > ".join([outer.css, *steps])
            if not is_plain_tag(one.tag):
                break
            steps.insert(0, self._step_to(one))
            if one.getparent() is None:
                return " > ".join(steps)
        tag = element.tag if is_plain_tag(element.tag) else "*"
        alike = self._by_tag[tag] if tag != "*" else range(len(self._elements))
        return f"(//{tag})[{1 + bisect_left(alike, self._place[element])}]"

    def _step_to(self, element: Any) -> str:
        place = 1 + sum(1 for _ in element.itersiblings(element.tag, preceding=True))
        is_alone = place == 1 and next(element.itersiblings(element.tag), None) is None
        return str(element.tag) if is_alone else f"{element.tag}:nth-of-type({place})"


def is_plain_tag(tag: str) -> bool:
    """Whether a tag can be written in a selector as it is, unlike `o:p`."""
    return _TAG.fullmatch(tag) is not None


def _own_selectors(element: Any) -> Iterator[_Own]:
    """Ways to name an element by itself, the best first."""
    tag = element.tag
    if tag in ("html", "body") or not is_plain_tag(tag):
        return
    yield from _by_names(element)
    source = element.get("src") or ""
    if tag in ("img", "image", "input") and source[:5].lower() != "data:":
        for part in _stable_parts(source):
            yield _Own(f'{tag}[src*="{_escaped(part)}"]', tag, "src", "*=", part)
    yield from _by_classes(element)
    yield from _by_descriptions(element)
    if tag in ("form", "canvas", "svg"):
        yield _Own(tag, tag)


def _by_names(element: Any) -> Iterator[_Own]:
    tag = element.tag
    for name in ("id", "name"):
        value = element.get(name) or ""
        if not _is_stable(value):
            continue
        if name == "id" and _PLAIN.fullmatch(value):
            yield _Own(f"#{value}", "", name, "=", value)
        else:
            yield _Own(f"{tag}[{name}={_quoted(value)}]", tag, name, "=", value)


def _by_classes(element: Any) -> Iterator[_Own]:
    classes = (element.get("class") or "").split(None, 20)[:20]
    for name in sorted(classes, key=lambda c: names_captcha(spelled(c[:MAX_VALUE])) is None):
        if _is_stable(name) and _PLAIN.fullmatch(name):
            yield _Own(f"{element.tag}.{name}", element.tag, "class", "~=", name)


def _by_descriptions(element: Any) -> Iterator[_Own]:
    tag = element.tag
    for name in _DESCRIPTIONS:
        value = element.get(name) or ""
        if len(value) <= 40 and _is_stable(value.replace(" ", "")):
            yield _Own(f"{tag}[{name}={_quoted(value)}]", tag, name, "=", value)
    for name in ("id", "name"):
        prefix = re.split(r"[0-9a-f]{0,9}\d|\s", (element.get(name) or "")[:MAX_VALUE])[0]
        if 4 <= len(prefix) < 40:
            yield _Own(f"{tag}[{name}^={_quoted(prefix)}]", tag, name, "^=", prefix)


def _stable_parts(src: str) -> Iterator[str]:
    """Parts of an address that will be the same next time: file, folders, words of the query."""
    path, _, query = src.strip()[:1000].partition("?")
    path = re.sub(r"^\w{1,9}://[^/]*|;.*", "", path)
    folder, _, file = path.rpartition("/")
    if _is_stable(file):
        yield file
    for part in [p for p in folder.split("/") if p and _is_stable(p)][::-1]:
        if names_captcha(spelled(part)):
            yield f"{part}/"
    for pair in re.split("[&;]", query):
        name, _, value = pair.partition("=")
        if name and re.fullmatch(r"[A-Za-z/]{3,30}", value):
            yield pair
        elif len(name) > 2 and _is_stable(name):
            yield f"{name}="


def _is_stable(value: str) -> bool:
    """Whether a name looks as if somebody had chosen it."""
    return (
        0 < len(value) <= MAX_VALUE
        and not re.search(r"[\s\x00-\x1f\x7f]|\d{5,}|(?=[a-f]*\d)[0-9a-f]{6,}", value)
        and bool(re.search(r"[^\W\d_]", value))
    )


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else f'"{_escaped(value)}"'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
