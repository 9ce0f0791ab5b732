"""A captcha found in a Scrapy response: its image, its form, its verdict."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit
from weakref import WeakKeyDictionary

from scrapy import Request
from scrapy.exceptions import IgnoreRequest
from scrapy.http import HtmlResponse, Response, TextResponse
from scrapy.utils.asyncio import run_in_thread
from scrapy.utils.response import get_base_url

from scrapy_acecaptcha.crawl.inner_requests import InnerRequests
from scrapy_acecaptcha.crawl.redirects import same_page
from scrapy_acecaptcha.detect.find import may_show_captcha, resolve
from scrapy_acecaptcha.errors import CaptchaFormError, CaptchaImageError
from scrapy_acecaptcha.page.forms import Form
from scrapy_acecaptcha.page.image_address import image_address
from scrapy_acecaptcha.page.images import decode_data_uri, image_format, readable_image
from scrapy_acecaptcha.page.svg import svg_source
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import has_text, may_have, needed_words, select, text_of

MAX_PAGE_BYTES = 10_000_000
MAX_MATCHES = 50


def shows_captcha(response: Response, rule: CaptchaRule) -> bool:
    """Whether *response* is an HTML page in which the rule's captcha stands."""
    if not isinstance(response, HtmlResponse):
        return False
    if rule.image == "auto":
        return _for_page(rule, response) is not None
    words = needed_words(rule.image)
    if words is not None and not may_have(response.body, words):
        return False
    return bool(select(response.selector, rule.image))


# What detection made of a page, so that it looks at each page once.
_found: WeakKeyDictionary[Response, tuple[CaptchaRule, CaptchaRule | None]] = WeakKeyDictionary()


def _for_page(rule: CaptchaRule, page: TextResponse) -> CaptchaRule | None:
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


class ScrapyChallenge:
    """The captcha of one request, through all its pages until the way is free.

    :param request: what the spider asked for
    :param response: the page that shows a captcha instead
    :param requests: sends what a challenge needs
    :param max_image_bytes: largest image to accept, in bytes
    """

    def __init__(
        self,
        request: Request,
        response: Response,
        rule: CaptchaRule,
        requests: InnerRequests,
        max_image_bytes: int,
    ) -> None:
        self.request = request
        self.rule = rule
        if response.request is None:
            response.request = request  # Scrapy sets it behind the middlewares
        self.page = response  # the newest page: a captcha's, or in the end the spider's
        self._requests = requests
        self._max_image_bytes = max_image_bytes
        self._answer_page: Response | None = None
        self._is_fresh = False  # self.page was downloaded after the newest answer was sent

    @property
    def url(self) -> str:
        """Where the captcha stands."""
        return self.page.url

    async def image(self) -> bytes:
        """Return the image of the page in hand; it is downloaded once and no more.

        :raises CaptchaImageError: there is none that may be read
        :raises CaptchaFormError: its form must not be sent, so that reading it would be for nothing
        :raises RuleError: the same, because the form or one of its fields cannot be found
        """
        self._is_fresh = False
        self.form().submission("")
        try:
            source = self._image_source()
            data = source if isinstance(source, bytes) else await self._fetch(source)
            if image_format(data) == "svg":  # drawing takes its time
                return await run_in_thread(readable_image, data, self._max_image_bytes)
            return readable_image(data, self._max_image_bytes)
        except CaptchaImageError as error:
            if error.url:
                raise
            raise CaptchaImageError(
                str(error), url=self.page.url, selector=self.rule.image
            ) from None

    def form(self) -> Form:
        """The form of the page in hand.

        :raises RuleError: it or the field for the answer cannot be found
        """
        return Form(
            self._text_page.text,
            self._page_rule,
            url=self.page.url,
            base_url=get_base_url(self._text_page),
            encoding=self._text_page.encoding,
        )

    async def submit(self, answer: str) -> None:
        """Send the form of the page in hand.

        :raises CaptchaFormError: it must not be sent, or robots.txt forbids it
        :raises RuleError: the form or one of its fields cannot be found
        """
        sent = self.form().submission(answer)
        try:
            self._answer_page = await self._requests.form(self.page, sent, hosts=self.rule.hosts)
        except CaptchaFormError:
            raise
        except IgnoreRequest as error:
            raise CaptchaFormError(
                f"The form at {sent.url} was not sent: {error}", url=self.page.url
            ) from None
        except Exception:
            self._answer_page = None

    async def solved(self) -> bool:
        """Judge the page that the form led to, and go back where the spider wanted to be."""
        answer_page = self._answer_page
        if answer_page is None or not self._accepts(answer_page):
            # A dead end without a captcha (405, 404, 500) says nothing of the answer.
            return self._is_dead_end(answer_page) and await self.reload()
        if not self._must_return(answer_page):
            self.page = answer_page
            return True
        if await self.reload():
            return True
        if self.rule.after == "auto" and self.rule.fields:
            # A query form asks for a captcha each time: what it led to is what was wanted.
            self.page = answer_page
            return True
        return False

    def _is_dead_end(self, page: Response | None) -> bool:
        rule = self.rule
        return not (rule.success or rule.failure) and (
            page is None or not shows_captcha(page, rule)
        )

    async def renew(self) -> bool:
        """Have a fresh captcha page in hand; False if the site lets us through."""
        return self._is_fresh or not await self.reload()

    async def reload(self) -> bool:
        """Download what the spider asked for again; True if no captcha stands in the way."""
        self.page = await self._requests.again(self.request)
        self._is_fresh = True
        return not shows_captcha(self.page, self.rule)

    # The image

    @property
    def _text_page(self) -> TextResponse:
        assert isinstance(self.page, TextResponse)  # shows_captcha() said so
        return self.page

    @property
    def _page_rule(self) -> CaptchaRule:
        """The rule as it is for the page in hand."""
        return _for_page(self.rule, self._text_page) or self.rule

    def _image_source(self) -> bytes | str:
        """The image itself, or the address of it."""
        if len(self.page.body) > MAX_PAGE_BYTES:
            raise CaptchaImageError(f"The captcha's page has {len(self.page.body):,} bytes")
        matches = select(self._text_page.selector, self._page_rule.image)
        if len(matches) > MAX_MATCHES:
            raise CaptchaImageError(
                f"The selector matches {len(matches):,} elements; the captcha is one"
            )
        address = image_address(matches[0], self._text_page.selector)
        if address is None:
            return svg_source(next(matches[0].root.iter("svg")))
        if address.strip().lower().startswith("data:"):
            return decode_data_uri(address)
        try:
            url = urljoin(get_base_url(self._text_page), address.strip())
            scheme = urlsplit(url).scheme
        except ValueError:  # such as http://[
            url, scheme = address, ""
        if scheme not in ("http", "https"):
            raise CaptchaImageError(f"The captcha's image has the address {url[:80]!r}")
        return url

    async def _fetch(self, url: str) -> bytes:
        try:
            response = await self._requests.image(
                self.page, url, hosts=self.rule.hosts, max_bytes=self._max_image_bytes
            )
        except Exception as error:
            raise CaptchaImageError(
                f"The captcha's image {url} could not be downloaded: {error or repr(error)}"
            ) from error
        if not 200 <= response.status < 300:
            raise CaptchaImageError(f"The captcha's image {url} was answered {response.status}")
        return response.body

    # The verdict

    def _accepts(self, page: Response) -> bool:
        success, failure = self.rule.success, self.rule.failure
        if not isinstance(page, TextResponse) or (
            not isinstance(page, HtmlResponse)
            and not (text_of(success or "") or text_of(failure or ""))
        ):
            return 200 <= page.status < 300  # the PDF behind the captcha
        if failure and _matches(page, failure):
            return False
        if success:
            return _matches(page, success)
        if failure:
            return True
        return 200 <= page.status < 300 and not shows_captcha(page, self.rule)

    def _must_return(self, page: Response) -> bool:
        if self.rule.after != "auto":
            return self.rule.after == "return"
        was_redirected = not same_page(self.page.url, self.request.url)
        return was_redirected and not same_page(page.url, self.request.url)


def _matches(page: TextResponse, selector: str) -> bool:
    """Whether a success or failure selector holds on *page*."""
    text = text_of(selector)
    if text is None:
        return isinstance(page, HtmlResponse) and bool(select(page.selector, selector))
    if isinstance(page, HtmlResponse):
        return has_text(page.selector, text)
    return text in " ".join(page.text.split()).casefold()
