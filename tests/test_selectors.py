"""Selectors as users write them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import cssselect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parsel import Selector

from scrapy_acecaptcha.selectors import (
    is_xpath,
    may_have,
    needed_words,
    same_text,
    select,
    text_of,
    to_xpath,
)

# Newer than what Python 3.10 gets: `[x="a" i]`, `:has(#x)`
IS_NEW_CSS = tuple(map(int, cssselect.__version__.split(".")[:2])) >= (1, 6)
new_css = pytest.mark.skipif(not IS_NEW_CSS, reason="needs cssselect 1.6")

PAGE = Selector("<form id=f><p class=a>One</p><p>Two</p><img id=c alt='x y'></form>")


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("img#c", ["img"]),
        ("css=img#c", ["img"]),
        ("p, img", ["p", "p", "img"]),
        ("form > p.a", ["p"]),
        pytest.param('[alt="X Y" i]', ["img"], marks=new_css),
        ("p:not(.a)", ["p"]),
        ("form:has(img)", ["form"]),
        ("#nobody", []),
        ("//p", ["p", "p"]),
        ("(//p)[2]", ["p"]),
        ("xpath=//form[img]", ["form"]),
        ('//p[re:test(., "^t", "i")]', ["p"]),
        ('//p[has-class("a")]', ["p"]),
    ],
)
def test_css_and_xpath_find_elements(selector: str, found: list[str]) -> None:
    assert [match.root.tag for match in select(PAGE, selector)] == found


@pytest.mark.parametrize(
    ("selector", "xpath"),
    [("//p", True), ("(//p)[1]", True), ("./p", True), ("xpath=p", True), ("p", False)],
)
def test_xpath_is_told_by_its_beginning(selector: str, xpath: bool) -> None:
    assert is_xpath(selector) == xpath


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ("text=Log in", "log in"),
        ('text="Log in"', "log in"),
        ("text='Log  in'", "log in"),
        ("text= Straße ", "strasse"),
        ("text=", ""),
        ("p", None),
        ("//p[text()='x']", None),
    ],
)
def test_text_selectors_are_told_by_their_beginning(selector: str, text: str | None) -> None:
    assert text_of(selector) == text


@pytest.mark.parametrize(
    ("selector", "kind"),
    [
        ("", "CSS selector"),
        ("img[", "CSS selector"),
        ("img:visible", "CSS selector"),
        ("p >> img", "CSS selector"),
        ("img::before", "CSS selector"),
        (":is(" * 5000, "CSS selector"),
        ("//img[", "XPath"),
        ("//img[f(.)]", "XPath"),
        ("//input[$answer]", "XPath"),
        ("//svg:svg", "XPath"),
        ("//a\x00", "XPath"),
        ("//\ud800", "XPath"),
        ("(" * 50_000, "XPath"),
        ("xpath=", "XPath"),
    ],
)
def test_bad_selectors_are_refused(selector: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"^bad {kind} "):
        to_xpath(selector)


@given(st.text() | st.text("abp#.:[]=\"'()>+~*,\\ |$^/@i") | st.builds("/{}".format, st.text()))
def test_whatever_is_written_is_xpath_or_a_value_error(selector: str) -> None:
    try:
        xpath = to_xpath(selector)
    except ValueError:
        return
    assert isinstance(PAGE.xpath(xpath), list)


@pytest.mark.parametrize(
    ("shown", "same"),
    [(" Log\n IN ", True), ("Please log in now", True), ("Log", False), (None, False)],
)
def test_a_button_is_told_by_its_text(shown: str | None, same: bool) -> None:
    assert same_text(shown, "log in") == same


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("img#captcha", {b"captcha"}),
        ("css=img.captcha", {b"captcha"}),
        ("#login img[src*='kaptcha.jpg?d=']", {b"kaptcha"}),
        ("#captcha, .verify", {b"captcha", b"verify"}),
        ("#captcha, img", None),
        ("#ab", None),
        ("img", None),
        ("//img[@id='captcha']", None),
        pytest.param("[alt='captcha' i]", None, marks=new_css),
        pytest.param("[alt='captcha' s]", {b"captcha"}, marks=new_css),
        ("[captcha]", None),
        ("img[alt!=captcha]", None),
        ("img:not(#captcha)", None),
        ("#form:not(#captcha)", {b"form"}),
        ("img:is(#captcha, .code)", None),
        pytest.param("form:has(#captcha)", None, marks=new_css),
        ("#captcha:has(img)", {b"captcha"}),
        ("#\\63 aptcha", {b"captcha"}),
        ("#captcha\\:image", {b"captcha"}),
        ("#my_captcha", {b"captcha"}),
        ("#sicherheitsprüfung", {b"sicherheitspr"}),
    ],
)
def test_words_that_a_page_needs(selector: str, words: set[bytes] | None) -> None:
    needed = needed_words(selector)
    assert (needed and set(needed)) == words


def test_a_bad_selector_needs_no_words() -> None:
    with pytest.raises(ValueError, match=r"^bad CSS selector 'img\['"):
        needed_words("img[")


ODD_ENCODINGS = ["utf-16", "utf-32-be", "cp037"]
words = st.sampled_from(["captcha", "code", "img-1", "a_b", "x.yz", "<&>", "Ünïon", "/c.php?a=1&y"])
tags = st.sampled_from(["img", "p", "div"])
equals = st.sampled_from(["=", "=", " = ", "\n=\t"])
QUOTES = ['"{}"', "'{}'", "{} ", "'a=\"b\">{}'", "\"<c='d'>{}\"", "a='{} "]


# How a page may write the characters of an attribute.
NAMED = {"_": "&lowbar;", ".": "&period;", "/": "&sol;", "?": "&quest;"}
SPELLINGS: list[Callable[[str], str]] = [
    html.escape,
    html.escape,
    lambda character: NAMED.get(character, html.escape(character)),
    lambda character: f"&#{ord(character)};",
    lambda character: f"&#x{ord(character):X};",
    lambda character: f"{html.escape(character)}\0",
]


@st.composite
def elements(draw: st.DrawFn, depth: int = 1) -> str:
    attributes = ""
    for name in draw(st.sets(st.sampled_from(["id", "class", "alt"]), min_size=1)):
        value = "".join(map(draw(st.sampled_from(SPELLINGS)), draw(words)))
        attributes += " " + name + draw(equals) + draw(st.sampled_from(QUOTES)).format(value)
    tag = draw(tags)
    inside = draw(st.lists(elements(depth - 1), max_size=2)) if depth and tag != "img" else []
    return f"<{tag}{attributes}>" + ("" if tag == "img" else "".join(inside) + f"</{tag}>")


def quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def escaped(word: str) -> str:
    """*word* as a CSS identifier, every character of it escaped."""
    return "".join(f"\\{ord(character):x} " for character in word)


def passed_by(name: str, value: str) -> st.SearchStrategy[str]:
    """CSS that an element with the attribute *name* passes."""
    length = len(value)
    sure = [
        f"[{name}]",
        f"[{name}={quoted(value)}]",
        f"[{name}~={quoted(value)}]",
        f"[{name}|={quoted(value)}]",
        f"[{name}^={quoted(value[: length - 1])}]",
        f"[{name}$={quoted(value[1:])}]",
        f"[{name}*={quoted(value[1 : length - 1])}]",
        f"[{name}!='another']",
        *([f"#{escaped(value)}"] if name == "id" else []),
        *([f".{escaped(value)}"] if name == "class" else []),
    ]
    if IS_NEW_CSS:
        sure.append(f"[{name}={quoted(value)} s]")
    if IS_NEW_CSS and value.isascii():
        sure.append(f"[{name}={quoted(value.swapcase())} i]")
    test = st.sampled_from(sure)
    return test | test.map(":is(#nobody, {})".format) | st.just(":not(#nobody)")


def compounds_of(element: Any) -> st.SearchStrategy[str]:
    """CSS that matches *element*."""
    chosen = st.tuples(*(passed_by(*item) for item in element.attrib.items()))
    return st.tuples(st.sampled_from([element.tag, "*"]), chosen.map("".join)).map("".join)


@given(st.data(), elements())
@settings(max_examples=300)
def test_what_matches_has_one_of_the_words(data: st.DataObject, source: str) -> None:
    page = Selector(source, type="html")
    element = data.draw(st.sampled_from([match.root for match in page.xpath("//*[@*]")]))
    selector = data.draw(compounds_of(element))
    if element.getparent().attrib:
        selector = data.draw(compounds_of(element.getparent())) + " > " + selector
    if data.draw(st.booleans()):
        selector = f"#nobody, {selector}"
    assert element in [match.root for match in select(page, selector)]
    needed = needed_words(selector)
    assert needed is None or may_have(source.encode(), needed)


def test_references_may_spell_words_if_they_stand_for_letters() -> None:
    def spelled(reference: str) -> bool:
        return may_have(f"<p>&#{reference}</p>".encode(), (b"captcha",))

    for code in range(1, 0x180):
        may = re.fullmatch("[A-Za-z0-9-]", chr(code)) is not None
        for reference in (f"{code};", f"00{code}", f"x{code:x};", f"X{code:X}", f"x00{code:x} "):
            assert spelled(reference) == may, reference


@pytest.mark.parametrize(
    ("source", "may"),
    [
        ("<p class='note'>Type the captcha.", False),
        ('<p class="note" hidden>Type "the captcha".', False),
        ("<p class=note>The captcha is case-sensitive.", False),
        ("<script>captcha()</script>" * 19, False),
        ("<script>captcha()</script>" * 20, True),
        ("", True),
        *[(source.encode(encoding), True) for source in ["<b>"] for encoding in ODD_ENCODINGS],
    ],
)
def test_words_are_looked_for_in_attributes(source: str | bytes, may: bool) -> None:
    source = source if isinstance(source, bytes) else source.encode()
    assert may_have(source, (b"captcha",)) == may


@pytest.mark.parametrize("number", ["4294967395", "x100000063"])
def test_what_huge_references_spell_is_left_to_the_parser(number: str) -> None:
    assert may_have(f"<p>&#{number};</p>".encode(), (b"captcha",))
