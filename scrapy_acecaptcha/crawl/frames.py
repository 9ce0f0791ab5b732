"""A captcha in a frame: the frame's document is downloaded, as a browser would for the page."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import Any
from urllib.parse import urljoin, urlsplit

from scrapy.http import HtmlResponse, Response
from scrapy.utils.response import get_base_url

from scrapy_acecaptcha.crawl.captcha_page import shows_captcha
from scrapy_acecaptcha.crawl.evidence import matches
from scrapy_acecaptcha.crawl.inner_requests import InnerRequests, as_frame, is_passing
from scrapy_acecaptcha.crawl.pages import page_of
from scrapy_acecaptcha.crawl.waiting import Stopped
from scrapy_acecaptcha.errors import CaptchaError, CaptchaFormError, CaptchaUnsolved
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import frame_steps, select


async def enter_frame(requests: InnerRequests, page: Response, rule: CaptchaRule) -> Response:
    """The document in the rule's ``frame`` if it shows a captcha, else *page* itself.

    :param page: a response that has its request
    :raises CaptchaFormError: the frame's document must not be downloaded, or is not there
    :raises CaptchaUnsolved: its download was broken off; it may come another time
    """
    if not rule.frame or (rule.success and matches(page, rule.success)):
        return page
    document = await frame_document(requests, page, rule)
    return document if document is not None and shows_captcha(document, rule) else page


async def frame_document(
    requests: InnerRequests, page: Response, rule: CaptchaRule
) -> Response | None:
    """Download the document in the rule's ``frame``; None if *page* has no such frame.

    :param page: a response that has its request
    :raises CaptchaFormError: it must not be downloaded, or is not there
    :raises CaptchaUnsolved: its download was broken off; it may come another time
    """
    document = page
    for step in frame_steps(rule.frame or ""):
        frame = _frame(document, step)
        if frame is None:
            return None
        if frame.get("srcdoc") is not None:  # goes before src
            document = _written_out(document, frame.get("srcdoc"))
            continue
        url = _address(document, frame)
        if url is None:
            return None
        try:
            document = await requests.frame(document, url, hosts=rule.hosts)
        except (Stopped, CaptchaError):
            raise
        except Exception as error:
            kind = CaptchaUnsolved if is_passing(error) else CaptchaFormError
            raise kind(
                f"The frame {url} could not be downloaded: {error or repr(error)}",
                url=page.url,
                selector=rule.frame or "",
            ) from error
    return document


def inside_frame(rule: CaptchaRule) -> CaptchaRule:
    """*rule* as it is for the document in the frame.

    What the form leads to stays in the frame, so the original request is made again, and
    ``success``, which speaks of the spider's page, is not looked for before.
    """
    return dataclasses.replace(rule, after="return", success=None) if rule.frame else rule


def _frame(document: Response, step: str) -> Any:
    """The element that *step* names; None if there is none."""
    view = page_of(document)
    found = [] if view is None else select(view.selector, step, limit=1)
    return found[0].root if found else None


def _written_out(document: Response, source: str) -> HtmlResponse:
    """The document of a frame whose page has it in an attribute; its addresses are the page's."""
    base = f'<base href="{escape(_base_url(document))}">'
    return HtmlResponse(
        document.url,
        body=(base + source).encode("utf-8", "replace"),
        encoding="utf-8",
        request=as_frame(document),
        ip_address=document.ip_address,
    )


def _base_url(document: Response) -> str:
    view = page_of(document)
    return document.url if view is None else get_base_url(view)


def _address(document: Response, frame: Any) -> str | None:
    source = frame.get("src", "").strip()
    if not source:
        return None
    try:
        url = urljoin(_base_url(document), source)
        return url if urlsplit(url).scheme in ("http", "https") else None
    except ValueError:  # such as http://[
        return None
