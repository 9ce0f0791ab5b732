"""The words of a page: what people see, what scripts alert()."""

from __future__ import annotations

import pytest
from parsel import Selector

from scrapy_acecaptcha.page.page_text import PageText


def text_of(page: str) -> PageText:
    return PageText(Selector(page, type="html").root)


@pytest.mark.parametrize(
    ("page", "text", "shown"),
    [
        ("<p>Wrong\n  CODE</p>", "wrong code", True),
        ("<p>Wrong <b>code</b></p>", "wrong code", True),
        ("<p>W<b>rong</b> code</p>", "wrong code", True),
        ("<td>Wrong</td><td>code</td>", "wrong code", True),
        ("<p>Wrong&nbsp;code</p>", "wrong code", True),
        ("<p>FALSCHER SCHLÜSSEL; STRASSE</p>", "straße".casefold(), True),
        ("<p>right code</p>", "wrong code", False),
        ("<script>var m = 'wrong code'</script>", "wrong code", False),
        ("<style>/* wrong code */</style>", "wrong code", False),
        ("<noscript>wrong code</noscript>", "wrong code", False),
        ("<!-- wrong code -->", "wrong code", False),
        ("<title>wrong code</title><p>Hello", "wrong code", False),
        ("<p title='wrong code'>", "wrong code", False),
        ("", "wrong code", False),
        ("<p>Wrong<!-- or not --> code</p>", "wrong code", True),
        ("<p>Wrong<?php ?> code</p>", "wrong code", True),
        ("<p>Wrong<script>0</script> code</p>", "wrong code", True),
        ("<noscript><noscript>so</noscript>wrong code</noscript>", "wrong code", False),
    ],
)
def test_text_is_looked_for_where_people_see_it(page: str, text: str, shown: bool) -> None:
    assert text_of(page).has(text) == shown


def test_the_text_of_a_page_is_all_that_is_shown() -> None:
    page = "<title>T</title><body onload=\"alert('Hi  THERE')\">a<p>B <i>c</i>d<!-- e -->f</p>\n g"
    assert text_of(page).visible == "a b c d f g"
    assert text_of(page).alerts == ["hi there"]


@pytest.mark.parametrize(
    ("page", "blank"),
    [
        ("<script>alert(1)</script>", True),
        ("<input type=hidden name=a>", True),
        ("<input name=a>", False),
        ("<div><img></div>", False),
        ("a", False),
        ("<p> \n</p>", True),
    ],
)
def test_a_blank_page_has_nothing_to_see(page: str, blank: bool) -> None:
    assert text_of(page).is_blank == blank
