"""Which responses are pages."""

from __future__ import annotations

import pytest
from scrapy.http import HtmlResponse, Response, TextResponse, XmlResponse

from scrapy_acecaptcha.crawl.pages import frames_of, is_page, page_of
from scrapy_acecaptcha.page.source import MAX_PAGE

IMAGE = "<img id=captcha src=/c.png>"
XHTML = (
    f'<?xml version="1.0"?>\n<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml">{IMAGE}'
)
PARTIAL = (
    "<?xml version='1.0'?><partial-response><changes><update id='form'><![CDATA["
    f"<form id='form:login'>{IMAGE}</form>]]></update><update id='state'><![CDATA[12]]></update>"
)


def response(kind: str, body: str, cls: type[TextResponse] = TextResponse) -> TextResponse:
    return cls("http://a.example/", headers={"Content-Type": kind}, body=body, encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "body", "cls"),
    [
        ("text/html", IMAGE, HtmlResponse),
        ("text/plain", f"<!-- x -->\n <!DOCTYPE html><html>{IMAGE}", TextResponse),
        ("text/plain; charset=utf-8", f"\ufeff<form>{IMAGE}</form>", TextResponse),
        ("", f"<html>{IMAGE}", TextResponse),
        ("application/xml", XHTML, XmlResponse),
        ("application/xhtml+xml", XHTML, XmlResponse),
        ("text/xml", PARTIAL, XmlResponse),
    ],
)
def test_a_page_is_told_by_its_bytes(kind: str, body: str, cls: type[TextResponse]) -> None:
    page = page_of(response(kind, body, cls))
    assert page is not None
    assert page.css("#captcha::attr(src)").getall() == ["/c.png"]


@pytest.mark.parametrize(
    ("kind", "body", "cls"),
    [
        ("text/plain", "error: <b>wrong</b>", TextResponse),
        ("text/plain", "", TextResponse),
        ("application/json", "<html>", TextResponse),
        ("application/xml", "<records><img id='captcha'/></records>", XmlResponse),
        ("application/xml", "<a><b/></a>", XmlResponse),
        ("text/csv", "<html>", TextResponse),
    ],
)
def test_what_is_no_page_is_none(kind: str, body: str, cls: type[TextResponse]) -> None:
    assert not is_page(response(kind, body, cls))


def test_a_file_is_no_page() -> None:
    assert not is_page(Response("http://a.example/", body=b"<html>"))


def test_an_ordinary_page_is_parsed_once_for_the_spider_and_for_us() -> None:
    html = response("text/html", "<p>" * 20_000, HtmlResponse)
    assert page_of(html) is html


def test_of_a_large_page_the_beginning_is_looked_at() -> None:
    body = IMAGE + "text " * 800_000 + "<i>"
    page = page_of(response("text/html", body, HtmlResponse))
    assert page is not None
    assert len(page.body) == MAX_PAGE
    assert len(page.css("img")) == 1


def test_a_tag_of_many_attributes_is_cut() -> None:
    attributes = " ".join(f"a{i}" for i in range(50_000))
    page = page_of(response("text/html", f"<p {attributes}>{IMAGE}", HtmlResponse))
    assert page is not None
    assert len(page.css("p")[0].attrib) < 400
    assert page.css("#captcha")


def test_frames_are_named_as_a_rule_would() -> None:
    body = (
        '<iframe id=a src=/a></iframe><iframe name="b c" src=/b></iframe><iframe src="/c?x=1">'
        "</iframe><iframe srcdoc=x></iframe>"
    )
    html = response("text/html", body, HtmlResponse)
    assert frames_of(html) == ['iframe[id="a"]', 'iframe[name="b c"]', 'iframe[src^="/c"]']
    for selector in frames_of(html):
        assert len(html.css(selector)) == 1
