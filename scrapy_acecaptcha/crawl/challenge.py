"""The captcha of one request in a crawl: its image, its form, what became of an answer."""

from __future__ import annotations

from functools import partial
from urllib.parse import parse_qs

from scrapy import Request
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    IgnoreRequest,
)
from scrapy.http import Response, TextResponse
from scrapy.utils.asyncio import run_in_thread
from scrapy.utils.response import get_base_url
from twisted.internet.error import ConnectError, DNSLookupError

from scrapy_acecaptcha.crawl.captcha_page import check_size, image_source, rule_for, shows_captcha
from scrapy_acecaptcha.crawl.crawl_captcha import CrawlCaptcha
from scrapy_acecaptcha.crawl.evidence import same_text, see
from scrapy_acecaptcha.crawl.frames import enter_frame, inside_frame
from scrapy_acecaptcha.crawl.inner_requests import InnerRequests, is_passing
from scrapy_acecaptcha.crawl.name_lookup import addresses_of
from scrapy_acecaptcha.crawl.pages import is_page, page_of
from scrapy_acecaptcha.crawl.rule_health import AnswerWatch, Facts, digest
from scrapy_acecaptcha.crawl.waiting import Stopped
from scrapy_acecaptcha.errors import CaptchaFormError, CaptchaImageError, CaptchaUnsolved, RuleError
from scrapy_acecaptcha.hosts import host_of, same_host, same_page, space_of
from scrapy_acecaptcha.page.forms import URLENCODED, Form, Posted, Submission
from scrapy_acecaptcha.page.images import image_format, readable_image
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.verdict import NOTHING, Asked, Seen

# What tells that a request did not even get to the site.
_NOT_SENT = (ConnectError, DNSLookupError, CannotResolveHostError, DownloadConnectionRefusedError)


class ScrapyChallenge(CrawlCaptcha):
    """The captcha of one request, through all its pages until the way is free.

    :param request: what the spider asked for
    :param response: the page that shows a captcha instead
    :param requests: sends what a challenge needs
    :param watch: is told what became of each answer
    :param max_image_bytes: largest image to accept, in bytes
    """

    def __init__(
        self,
        request: Request,
        response: Response,
        rule: CaptchaRule,
        *,
        requests: InnerRequests,
        watch: AnswerWatch,
        max_image_bytes: int,
    ) -> None:
        super().__init__(request, inside_frame(rule), watch)
        self._outer_rule = rule
        if response.request is None:
            response.request = request  # Scrapy sets it behind the middlewares
        self.page: Response = response
        self._requests = requests
        self._max_image_bytes = max_image_bytes
        self._answer_page: Response | None = None
        self._image = b""  # digest of the newest
        self._form: Form | None = None  # the newest with a captcha
        self._parsed: tuple[Response, Form] | None = None  # a page, and its form
        self._empty_fields: tuple[str, ...] = ()  # of the form as it was sent
        self._is_fresh = False  # self.page was downloaded after the newest answer was sent

    @property
    def url(self) -> str:
        """Where the captcha stands."""
        return self.page.url

    @property
    def shows_captcha(self) -> bool:
        """Whether the page in hand shows a captcha."""
        return shows_captcha(self.page, self.rule)

    @property
    def answer_page(self) -> Response | None:
        """What the form led to; None if nothing came."""
        return self._answer_page

    @property
    def why_unsent(self) -> str:
        """Why the newest answer did not reach the site; empty if it did."""
        return self._unsent

    # The four methods of a challenge

    async def image(self) -> bytes:
        """Return the image of the page in hand; it is downloaded once and no more.

        :raises CaptchaImageError: there is none that may be read
        :raises CaptchaFormError: its form must not be sent, so that reading it would be for nothing
        :raises RuleError: the same, because the form or one of its fields cannot be found
        """
        await self._watch.begin(self.page.url)
        self._is_fresh = False
        check_size(self.page)
        self.images_read += 1
        self._form = self.form()
        await self._check_reachable(self._form.submission(""))
        try:
            source = image_source(self._text_page, self._page_rule.image)
            data = source if isinstance(source, bytes) else await self._fetch(source)
            self._image = digest(data)
            if image_format(data) == "svg":  # drawing takes its time
                return await run_in_thread(readable_image, data, self._max_image_bytes)
            return readable_image(data, self._max_image_bytes)
        except CaptchaImageError as error:
            if error.url:
                raise
            raise CaptchaImageError(
                str(error), url=self.page.url, selector=self.rule.image
            ) from None

    async def submit(self, answer: str) -> None:
        """Send the form of the page in hand.

        :raises CaptchaFormError: it must not be sent, or robots.txt forbids it
        :raises RuleError: the form or one of its fields cannot be found
        """
        form = self.form()
        submission = form.submission(answer)
        self._empty_fields = form.empty_fields
        self._answer_page = await self._send(submission)

    async def renew(self) -> bool:
        """Have a fresh captcha page in hand; False if the site lets us through."""
        return (self._is_fresh and self.shows_captcha) or not await self.reload()

    # The form

    def form(self) -> Form:
        """The form of the page in hand.

        :raises RuleError: it or the field for the answer cannot be found
        """
        if self._parsed is None or self._parsed[0] is not self.page:
            self._parsed = (self.page, self._form_in_hand())
        return self._parsed[1]

    def _form_in_hand(self, bare: bool | Form = False) -> Form:
        return Form(
            self._text_page.text,
            self._page_rule,
            url=self.page.url,
            base_url=get_base_url(self._text_page),
            encoding=self._text_page.encoding,
            posted=_posted(self.request),
            bare=bare,
        )

    async def _check_reachable(self, sent: Submission) -> None:
        """Refuse a form whose host is not to be found, before its captcha is paid for."""
        assert self.page.request is not None
        host = host_of(sent.url)
        if same_host(sent.url, self.page.url) or self.page.request.meta.get("proxy"):
            return
        if space_of(host) is not None:
            return
        if not await self._watch.waits.for_download(partial(addresses_of, host)):
            raise CaptchaFormError(
                f"The form is to be sent to {host}, for which there is no address",
                url=self.page.url,
            )

    async def _send(self, sent: Submission) -> Response | None:
        """Send a form; None if no answer came."""
        self._unsent = ""
        try:
            return await self._requests.form(self.page, sent, hosts=self.rule.hosts)
        except (Stopped, CaptchaFormError):
            raise
        except IgnoreRequest as error:
            raise CaptchaFormError(
                f"The form at {sent.url} was not sent: {error}", url=self.page.url
            ) from None
        except Exception as error:
            if isinstance(error, _NOT_SENT):
                self._unsent = f"{type(error).__name__}: {error}"
            return None

    async def _send_bare_form(self, page: Response | None) -> Seen | None:
        self.page = page or self.page
        answer = await self._send(self.bare_form().submission(""))
        if answer is None:
            return None
        self.page = answer
        return self._see(answer)

    def bare_form(self) -> Form:
        """The query's form on the page in hand, which asks for no captcha.

        :raises RuleError: there is none
        """
        return self._form_in_hand(bare=self._form or True)

    @property
    def is_for_the_spider(self) -> bool:
        """Whether the page asks for a password that only the spider has, as a login does."""
        try:
            return self.form().lacks_password
        except RuleError:
            return False

    @property
    def is_bare_form(self) -> bool:
        """Whether the page in hand is the query's form with no captcha in it."""
        if not (self.rule.fields or self.rule.success) or not is_page(self.page):
            return False
        try:
            self.bare_form()
        except RuleError:
            return False
        return True

    # The image

    @property
    def _text_page(self) -> TextResponse:
        page = page_of(self.page)
        assert page is not None  # shows_captcha() said so
        return page

    @property
    def _page_rule(self) -> CaptchaRule:
        """The rule as it is for the page in hand."""
        return rule_for(self._text_page, self.rule) or self.rule

    async def _fetch(self, url: str) -> bytes:
        try:
            response = await self._requests.image(
                self.page, url, hosts=self.rule.hosts, max_bytes=self._max_image_bytes
            )
        except Stopped:
            raise
        except Exception as error:
            what = f"The captcha's image {url} could not be downloaded: {error or repr(error)}"
            if is_passing(error):  # such as a site that restarts: the request is made again
                raise CaptchaUnsolved(what, url=self.page.url, selector=self.rule.image) from error
            raise CaptchaImageError(what) from error
        if not 200 <= response.status < 300:
            raise CaptchaImageError(f"The captcha's image {url} was answered {response.status}")
        return response.body

    # The verdict

    def _see(self, response: Response) -> Seen:
        return see(response, self.rule, captcha=shows_captcha(response, self.rule))

    async def _see_answer(self) -> Seen:
        return NOTHING if self._answer_page is None else self._see(self._answer_page)

    def _is_same_text(self) -> bool:
        return self._answer_page is not None and same_text(self._answer_page, self.page)

    async def _take_answer(self) -> None:
        assert self._answer_page is not None
        self.page = self._answer_page

    def _asked(self) -> Asked:
        answer = self._answer_page
        url = self.request.url
        return Asked(
            came_back=(
                answer is not None
                and self.request.method == "GET"
                and bool(answer.request and answer.request.meta.get("redirect_urls"))
                and same_page(answer.url, url)
            ),
            stood_elsewhere=not same_page(self.page.url, url),
            is_form=self._form is not None and self._form.is_filled_in_again,
        )

    async def _ask_again(self) -> Seen:
        """Download once more what the spider asked for.

        :raises CaptchaUnsolved: the download fails
        """
        try:
            page = await self._requests.again(self.request)
            self.page = await enter_frame(self._requests, page, self._outer_rule)
        except (Stopped, IgnoreRequest, CaptchaFormError):
            raise
        except Exception as error:
            raise CaptchaUnsolved(
                f"The page could not be downloaded again: {type(error).__name__}: {error}",
                url=self.request.url,
                selector=self.rule.image,
            ) from error
        self._is_fresh = True
        captcha = self.shows_captcha
        is_bare_form = not captcha and self.is_bare_form  # parses the page, so only where it counts
        return see(self.page, self.rule, captcha=captcha, is_bare_form=is_bare_form)

    @property
    def was_without_cookies(self) -> bool:
        """Whether the newest answer was sent without a cookie, and its page sets none."""
        answer = self._answer_page
        return self._sent_no_cookie and not (answer and answer.headers.get("Set-Cookie"))

    @property
    def _sent_no_cookie(self) -> bool:
        request = self._answer_page and self._answer_page.request
        return request is not None and not request.headers.get("Cookie")

    def _facts(self) -> Facts:
        """What was seen of the newest answer, for a diagnosis."""
        answer = self._answer_page
        lost = self._sent_no_cookie and bool(answer and answer.headers.get("Set-Cookie"))
        return Facts(
            image=self._image,
            captcha_again=self._seen.captcha,
            said_nothing=self._seen.is_silent_text,
            cookie_lost=lost,
            empty_fields=self._empty_fields,
            unsent=self._unsent,
        )


def _posted(request: Request) -> Posted | None:
    """The form that the spider has sent by *request*, if it has."""
    kind = (request.headers.get("Content-Type") or b"").decode("latin-1")
    if request.method != "POST" or not kind.startswith(URLENCODED):
        return None
    return Posted(request.url, parse_qs(request.body.decode("latin-1"), keep_blank_values=True))
