"""A captcha in a crawl: what is decided about it, whether Scrapy or a browser has its page.

The front ends gather evidence; which pages are asked for because of it, and what the spider gets in
the end, is decided here, by the verdict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from scrapy_acecaptcha.crawl.rule_health import AnswerWatch, Facts
from scrapy_acecaptcha.errors import CaptchaUnsolved
from scrapy_acecaptcha.verdict import (
    ACCEPTED,
    NOTHING,
    QUERY_PAUSES,
    Asked,
    Habit,
    Seen,
    hand_on_when_free,
    judge,
    judge_again,
)

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.http import Response

    from scrapy_acecaptcha.rules import CaptchaRule


class CrawlCaptcha(ABC):
    """The captcha of one request, through all its pages until the way is free.

    :param request: what the spider asked for
    :param watch: is told what became of each answer
    """

    page: Response | None = None  # the newest page: a captcha's, or in the end the spider's

    def __init__(self, request: Request, rule: CaptchaRule, watch: AnswerWatch) -> None:
        self.request = request
        self.rule = rule
        self.images_read = 0
        self._watch = watch
        self._unsent = ""  # why the newest answer did not reach the site
        self._seen = NOTHING  # of the newest answer

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the captcha stands."""

    @property
    @abstractmethod
    def shows_captcha(self) -> bool:
        """Whether the page in hand shows a captcha."""

    # Evidence

    @abstractmethod
    async def _see_answer(self) -> Seen:
        """What the form led to."""

    @abstractmethod
    def _asked(self) -> Asked | None:
        """What the spider asked for, and where the form's answer stands to it."""

    @abstractmethod
    async def _ask_again(self) -> Seen:
        """Have in hand what the spider asked for, asked for again."""

    @abstractmethod
    def _is_same_text(self) -> bool:
        """Whether the page in hand shows the same text as the form's answer."""

    @abstractmethod
    async def _take_answer(self) -> None:
        """Have in hand what the form led to."""

    @abstractmethod
    async def _send_bare_form(self, page: Response | None) -> Seen | None:
        """Send the query's form, which asks for no captcha, and have its answer in hand.

        :param page: the page with the form
        :return: None if no answer came
        """

    @abstractmethod
    def _facts(self) -> Facts:
        """What was seen of the newest answer, for a diagnosis."""

    # Decisions

    async def solved(self) -> bool | None:
        """Judge what the form led to, and have in hand what the spider is to get.

        None if the answer did not reach the site.
        """
        is_accepted = await self._judge()
        if is_accepted:
            self._watch.told("accepted", Facts())
        else:
            self._watch.told("unsent" if is_accepted is None else "rejected", self._facts())
        return is_accepted

    async def _judge(self) -> bool | None:
        self._seen = await self._see_answer()
        asked, method, health = self._asked(), self.request.method, self._watch.health
        verdict = judge(self.rule, self._seen, asked, health.habit(method))
        if asked and asked.came_back and verdict == ACCEPTED and not self.rule.fields:
            health.learn(method, Habit.BACK)
        if verdict.outcome == "unknown":
            original = await self._ask_again()
            same_text = verdict.hand_on == "either" and self._is_same_text()
            verdict, habit = judge_again(
                self.rule, verdict, original, asked, health.habit(method), same_text=same_text
            )
            health.learn(method, habit)
        if verdict.outcome == "refused":
            return None if self._unsent else False
        if verdict.hand_on == "answer":
            await self._take_answer()
        elif verdict.hand_on == "query":
            await self.send_query()
        return True

    async def reload(self) -> bool:
        """Ask once more for what the spider wants; True if no captcha stands in the way."""
        original = await self._ask_again()
        if original.captcha:
            return False
        if hand_on_when_free(self.rule, original) == "query":
            await self.send_query()
        return not self.shows_captcha

    async def send_query(self) -> None:
        """Send the form of the page in hand, which asks for no captcha, and take what comes.

        :raises CaptchaUnsolved: the site does not answer the query
        """
        page, url = self.page, self.url
        told = "nothing"
        for pause in QUERY_PAUSES:
            if pause:
                await self._watch.waits.sleep(pause)
            seen = await self._send_bare_form(page)
            if seen is not None:
                if seen.captcha or seen.answers_query:
                    return
                told = f"HTTP {seen.status}"
        raise CaptchaUnsolved(
            f"The form was sent without a captcha, as it asked for none, and answered by {told}",
            url=url,
            selector=self.rule.image,
        )

    def close(self) -> None:
        """Nothing more will be done about this captcha."""
        self._watch.end()

    def unsolved(self) -> CaptchaUnsolved:
        """The error for a site that asks for one captcha after the other."""
        return CaptchaUnsolved(
            "The site took the answers and asked for another captcha each time",
            url=self.url,
            selector=self.rule.image,
        )
