"""What a Scrapy response shows, summed up for the verdict."""

from __future__ import annotations

from typing import Literal
from weakref import WeakKeyDictionary

from scrapy.http import HtmlResponse, Response, TextResponse
from scrapy.utils.python import binary_is_text

from scrapy_acecaptcha.crawl.pages import page_of
from scrapy_acecaptcha.page.page_text import PageText
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import select, squeeze, text_of
from scrapy_acecaptcha.verdict import Seen

_texts: WeakKeyDictionary[HtmlResponse, PageText] = WeakKeyDictionary()


def page_text(page: HtmlResponse) -> PageText:
    """The words of a page, gathered once."""
    if page not in _texts:
        _texts[page] = PageText(page.selector.root)
    return _texts[page]


def see(
    response: Response, rule: CaptchaRule, *, captcha: bool, is_bare_form: bool = False
) -> Seen:
    """Sum up what *response* shows.

    :param captcha: the rule's captcha stands on it
    :param is_bare_form: it is the query's form, with no captcha in it
    """
    page = page_of(response)
    text = None if page is None else page_text(page)
    return Seen(
        response_kind(response),
        status=response.status,
        is_blank=not response.body.strip() if text is None else text.is_blank,
        captcha=captcha,
        success=None if rule.success is None else matches(response, rule.success),
        failure=None if rule.failure is None else matches(response, rule.failure),
        is_bare_form=is_bare_form,
        sounds_refused=text is not None and text.sounds_refused,
    )


def response_kind(response: Response) -> Literal["page", "text", "file"]:
    """What *response* is by its bytes, see :class:`Seen`."""
    if page_of(response) is not None:
        # Servers send JSON and mere words as text/html, too, when nobody tells them otherwise.
        return "page" if b"<" in response.body else "text"
    # Nobody sends "wrong code" as an attachment.
    if b"attachment" in (response.headers.get("Content-Disposition") or b"").lower():
        return "file"
    # Scrapy takes a type that it does not know, such as a PDF's, for text where it finds no NULs.
    kind = (response.headers.get("Content-Type") or b"").lower()
    is_named_text = any(name in kind for name in (b"text/", b"json", b"xml", b"javascript"))
    return "text" if is_named_text or _is_text(response.body) else "file"


def _is_text(body: bytes) -> bool:
    """Whether bytes of a type that is no text are one all the same."""
    start = body[:5000]
    if start.startswith(b"%PDF") or not binary_is_text(start):
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(start) - 3  # cut within a letter
    return True


def matches(response: Response, selector: str) -> bool:
    """Whether a `success` or `failure` selector holds on *response*.

    ``text=`` is looked for in what the page shows, in what its scripts alert(), and in plain text;
    CSS and XPath match HTML only.
    """
    text = text_of(selector)
    page = page_of(response)
    if page is not None:
        if text is None:
            return bool(select(page.selector, selector))
        words = page_text(page)
        return words.has(text) or any(text in said for said in words.alerts)
    if text is None or not isinstance(response, TextResponse):
        return False
    return text in squeeze(response.text)


def same_text(one: Response, other: Response) -> bool:
    """Whether two responses show the same text."""
    page, another = page_of(one), page_of(other)
    if page is not None and another is not None:
        return page_text(page).visible == page_text(another).visible
    return one.body == other.body
