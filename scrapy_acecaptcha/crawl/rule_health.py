"""What a crawl learns of its rules: whether they match, what their forms lead to, when to give up.

A rule that can never succeed (the selector names the logo, cookies are off, the page always shows
the next captcha) would drain the account, and one that never matches would say nothing at all.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scrapy.http import Response
from scrapy.utils.response import get_base_url

from scrapy_acecaptcha.crawl.pages import frames_of, page_of
from scrapy_acecaptcha.detect.find import find_captchas, find_widgets
from scrapy_acecaptcha.errors import CaptchaUnsolved
from scrapy_acecaptcha.verdict import Habit

if TYPE_CHECKING:
    from scrapy import Spider

    from scrapy_acecaptcha.crawl.image_limit import ImageLimit
    from scrapy_acecaptcha.crawl.waiting import Waits
    from scrapy_acecaptcha.flow import Outcome
    from scrapy_acecaptcha.rule_book import RuleBook
    from scrapy_acecaptcha.rules import CaptchaRule

logger = logging.getLogger(__name__)

MAX_REFUSED = 20  # ACECAPTCHA_MAX_REFUSED
FIRST_PAGES = 20  # of a host; a rule that matched none of them gets a warning
REMEMBERED = 1000  # rules; those of requests are made anew all the time
SHOWN_HOSTS = 10  # in a warning
WAIT_SECONDS = 0.05  # between two looks whether an answer under way has been judged


@dataclass(frozen=True)
class Facts:
    """What was seen when an answer was not taken, for the diagnosis.

    :param image: a digest of the image that was read
    :param captcha_again: the site's answer shows the captcha
    :param said_nothing: the site's answer is text or JSON whose meaning the rule does not tell
    :param cookie_lost: the site set a cookie, and the form was sent without one
    :param empty_fields: text fields of the form that were sent empty
    :param unsent: why the answer did not reach the site, or that the page did not react
    """

    image: bytes = b""
    captcha_again: bool = False
    said_nothing: bool = False
    cookie_lost: bool = False
    empty_fields: tuple[str, ...] = ()
    unsent: str = ""


def what_detection_sees(response: Response) -> str:
    """What detection sees on a page on which a rule matches nothing; empty if it sees nothing."""
    page = page_of(response)
    if page is None:
        kind = (response.headers.get("Content-Type") or b"nothing").decode("latin-1")
        return f"The page is no HTML ({kind})"
    for name, evidence in find_widgets(page.selector):
        return f"There is {name}, which is out of bounds ({evidence})"
    for found in find_captchas(page.selector, get_base_url(page))[:1]:
        field = f" and input {found.input!r}" if found.input else ""
        return f"Detection sees one: image {found.image!r}{field} ({found.confidence:.0%} sure)"
    frames = frames_of(page)
    if frames:
        told = ", ".join(map(repr, frames))
        return f"It has frames, in which the captcha may stand: set frame to one of {told}"
    return ""


def digest(image: bytes) -> bytes:
    """What :class:`Facts` keeps of an image."""
    return hashlib.sha256(image).digest()


@dataclass
class RuleHealth:
    """What a crawl has learnt of one rule.

    :param name: the rule's key in ACECAPTCHA_RULES, else the site of the request that brought it
    """

    name: str
    rule: CaptchaRule
    max_refused: int
    pages: int = 0
    has_matched: bool = False
    has_succeeded: bool = False
    refused: int = 0  # in a row
    in_hand: int = 0  # answers that are being read, sent or judged
    diagnosis: str = ""
    facts: deque[Facts] = field(default_factory=lambda: deque(maxlen=MAX_REFUSED))
    habits: dict[str, Habit] = field(default_factory=dict)
    last_page: Response | None = None  # without a captcha, as long as no page has shown one

    def habit(self, method: str) -> Habit:
        """What the form's answers to requests of *method* have proved to be."""
        return self.habits.get(method, Habit.UNKNOWN)

    def learn(self, method: str, habit: Habit) -> None:
        """Remember what an answer that was looked into has proved to be."""
        if habit is not Habit.UNKNOWN:
            self.habits[method] = habit

    async def begin(self, waits: Waits, url: str) -> None:
        """Take an answer in hand, when there is no danger that it is one too many in vain.

        As long as the site has taken none, no more are in hand than may be refused.

        :raises CaptchaUnsolved: the rule is suspended
        """
        while True:
            if self.diagnosis:
                raise CaptchaUnsolved(
                    f"The rule for {self.name} is suspended: {self.diagnosis}",
                    url=url,
                    selector=self.rule.image,
                    retry=False,
                )
            left = self.max_refused - self.refused
            if not self.max_refused or self.has_succeeded or self.in_hand < left:
                break
            await waits.sleep(WAIT_SECONDS)
        self.in_hand += 1

    def told(self, outcome: Outcome, facts: Facts) -> None:
        """Note what became of an answer, and suspend the rule after too many in vain."""
        if outcome == "accepted":
            self.has_succeeded = True
            self.refused = 0
            self.facts.clear()
        elif outcome != "unreadable":
            self.refused += 1
            self.facts.append(facts)
            if self.max_refused and self.refused >= self.max_refused and not self.diagnosis:
                self.diagnosis = diagnose(self.rule, self.refused, list(self.facts))
                logger.error(
                    "The rule for %(name)s is suspended until the crawl ends: %(diagnosis)s",
                    {"name": self.name, "diagnosis": self.diagnosis},
                )


class AnswerWatch:
    """Takes the answers of one challenge in hand, one after the other.

    :param health: what the crawl knows of the rule
    :param waits: what the crawl waits by
    :param limit: counts what is read for the request
    """

    def __init__(self, health: RuleHealth, waits: Waits, limit: ImageLimit | None = None) -> None:
        self.health = health
        self.waits = waits
        self._limit = limit
        self._has_one = False

    async def begin(self, url: str) -> None:
        """Take an answer in hand, before its image is read.

        :raises CaptchaUnsolved: the rule is suspended, or as many were read as may be
        """
        self.end()
        await self.health.begin(self.waits, url)
        self._has_one = True
        if self._limit is not None:
            self._limit.take(url, self.health.rule.image)

    def told(self, outcome: Outcome, facts: Facts) -> None:
        """Note what became of the answer."""
        self.end()
        self.health.told(outcome, facts)

    def image_replaced(self) -> None:
        """Note that the page has replaced the image while it was read."""
        if self._limit is not None:
            self._limit.give_back()

    def end(self) -> None:
        """Let the answer go, whatever became of it."""
        self.health.in_hand -= self._has_one
        self._has_one = False


# What it means if all answers in vain have a fact in common.
_IF_ALWAYS = {
    "cookie_lost": (
        "The site's cookie was not kept, so it cannot know whose captcha was answered: "
        "COOKIES_ENABLED must be on, and the request without dont_merge_cookies"
    ),
    "captcha_again": (
        "The captcha was shown again each time. If the page always shows one, say with "
        "`success` what a right answer shows; if the form has more than one step, see `after`"
    ),
    "said_nothing": (
        "The form was answered by text or JSON, and the page asked for a captcha again each "
        "time: say with `success`, such as `text=...`, what a right answer has"
    ),
}


def diagnose(rule: CaptchaRule, refused: int, facts: list[Facts]) -> str:
    """Say what answers that were not taken had in common, and which field would mend it."""
    told = [f"{refused} answers in a row were not taken."]
    unsent = [one.unsent for one in facts if one.unsent]
    if len(unsent) == len(facts):
        told.append(f"Nothing was sent, or nothing came back ({unsent[-1]}): check `submit`")
    if len(facts) > 1 and len({one.image for one in facts}) == 1 and facts[0].image:
        told.append(
            f"The image had the same bytes each time, so it is not the captcha: check `image` "
            f"({rule.image})"
        )
    empty = set.intersection(*(set(one.empty_fields) for one in facts)) if facts else set()
    if empty:
        told.append(
            f"The form was sent with nothing in {', '.join(sorted(empty))}: fill it in by `fields`"
        )
    told += [
        meaning
        for name, meaning in _IF_ALWAYS.items()
        if facts and all(getattr(one, name) for one in facts)
    ]
    if len(told) == 1:
        told.append("Try the rule with `acecaptcha probe URL --submit`")
    return " ".join(told)


class RuleHealths:
    """What a crawl learns of each of its rules.

    :param max_refused: ACECAPTCHA_MAX_REFUSED
    """

    def __init__(self, rules: RuleBook, max_refused: int) -> None:
        self._rules = rules
        self._max_refused = max_refused
        self._known: dict[tuple[str, str], RuleHealth] = {}

    def of(self, url: str, rule: CaptchaRule) -> RuleHealth:
        """What is known of *rule*, which was found for *url*."""
        key = (self._rules.name_for(url) or urlsplit(url).netloc, rule.image)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)))
            known = self._known[key] = RuleHealth(key[0], rule, self._max_refused)
        return known

    def page_seen(self, url: str, rule: CaptchaRule, response: Response, matched: bool) -> None:
        """Note a page under a rule; warn, once, of a rule that matched none of the first ones."""
        health = self.of(url, rule)
        if health.has_matched:
            return
        health.has_matched = matched
        health.pages += 1
        health.last_page = None if matched else response
        if not matched and health.pages == FIRST_PAGES:
            self._warn(health)

    def crawl_ends(self, spider: Spider) -> None:
        """Warn of rules whose host nobody asked for, and of those that missed a captcha."""
        asked = self._rules.hosts_asked
        used = {self._rules.name_for(f"http://{host}") for host in asked}
        used |= {self._rules.name_for(f"https://{host}") for host in asked}
        for name in self._rules.names:
            if asked and name not in used:
                hosts = ", ".join(asked[:SHOWN_HOSTS])
                logger.warning(
                    "The rule for %(name)s was never used: nobody asked for that host. Asked for "
                    "were %(hosts)s",
                    {"name": name, "hosts": hosts},
                    extra={"spider": spider},
                )
        for health in self._known.values():
            if health.last_page is not None and health.pages < FIRST_PAGES:
                self._warn(health, only_if_seen=True)

    def _warn(self, health: RuleHealth, *, only_if_seen: bool = False) -> None:
        assert health.last_page is not None
        seen = what_detection_sees(health.last_page)
        page, health.last_page = health.last_page, None
        if not seen and only_if_seen:
            return
        logger.warning(
            "The rule for %(name)s (image %(image)r) has matched none of %(pages)d pages. "
            "%(seen)s (page %(url)s)",
            {
                "name": health.name,
                "image": health.rule.image,
                "pages": health.pages,
                "seen": seen or "Detection sees no captcha there, either",
                "url": page.url,
            },
        )
