"""A page as a rule sees it: whether the captcha stands on it, and where its image comes from."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit
from weakref import WeakKeyDictionary

from scrapy.http import Response, TextResponse
from scrapy.utils.response import get_base_url

from scrapy_acecaptcha.crawl.evidence import matches
from scrapy_acecaptcha.crawl.inner_requests import is_frame
from scrapy_acecaptcha.crawl.pages import page_of
from scrapy_acecaptcha.detect.find import may_show_captcha, resolve
from scrapy_acecaptcha.errors import CaptchaImageError
from scrapy_acecaptcha.page.form_finder import MAX_PICTURES
from scrapy_acecaptcha.page.image_address import image_address
from scrapy_acecaptcha.page.images import decode_data_uri
from scrapy_acecaptcha.page.source import too_large
from scrapy_acecaptcha.page.svg import svg_source
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import may_have, needed_words, select


def shows_captcha(response: Response, rule: CaptchaRule) -> bool:
    """Whether *response* is an HTML page in which the rule's captcha stands.

    A page on which the rule's ``success`` matches is what was asked for, even if it shows one.
    """
    page = page_of(response)
    if page is None or (rule.frame and not is_frame(response)):
        return False
    if rule.image == "auto":
        is_shown = rule_for(page, rule) is not None
    else:
        words = needed_words(rule.image)
        if words is not None and not may_have(page.body, words):
            return False
        is_shown = bool(select(page.selector, rule.image, limit=1))
    return is_shown and not (rule.success and matches(page, rule.success))


# What detection made of a page, so that it looks at each page once.
_found: WeakKeyDictionary[Response, tuple[CaptchaRule, CaptchaRule | None]] = WeakKeyDictionary()


def rule_for(page: TextResponse, rule: CaptchaRule) -> CaptchaRule | None:
    """*rule* with what it leaves to detection filled in; None if *page* shows no captcha."""
    if rule.image != "auto":
        return rule
    known, found = _found.get(page, (None, None))
    if known is not rule:
        found = None
        if may_show_captcha(page.body):
            found = resolve(rule, page.selector, get_base_url(page))
        _found[page] = (rule, found)
    return found


def check_size(response: Response) -> None:
    """Refuse a page of which more stands there than is looked at.

    :raises CaptchaImageError: it has more than MAX_PAGE bytes or MAX_TAGS elements
    """
    if told := too_large(response.body):
        raise CaptchaImageError(f"The captcha's page {told}", url=response.url)


def image_source(page: TextResponse, image: str) -> bytes | str:
    """The captcha's image itself, or its absolute address.

    :param image: selector of the captcha element
    :raises CaptchaImageError: there is none, or it has an address that is not http, https or data
    """
    found = select(page.selector, image, limit=MAX_PICTURES + 1)
    if len(found) > MAX_PICTURES:
        raise CaptchaImageError(
            f"The selector matches more than {MAX_PICTURES} elements; the captcha is one"
        )
    address = image_address(found[0], page.selector)
    if address is None:
        return svg_source(next(found[0].root.iter("svg")))
    if address.strip().lower().startswith("data:"):
        return decode_data_uri(address)
    try:
        url = urljoin(get_base_url(page), address.strip())
        scheme = urlsplit(url).scheme
    except ValueError:  # such as http://[
        url, scheme = address, ""
    if scheme not in ("http", "https"):
        raise CaptchaImageError(f"The captcha's image has the address {url[:80]!r}")
    return url
