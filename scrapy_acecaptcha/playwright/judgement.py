"""What becomes of an answer on a page that the user opened: accepted, or refused, and where to be.

The decisions are those of verdict.py. What was asked for is here the page on which the captcha
stood: it can be asked for again if a GET has brought it. That is done in a tab of its own, as the
answer may be a page that comes only once.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from playwright.sync_api import Error as PlaywrightError

from scrapy_acecaptcha.flow import Steps, drive, drive_async
from scrapy_acecaptcha.hosts import host_of, same_page
from scrapy_acecaptcha.page.page_text import sounds_refused
from scrapy_acecaptcha.playwright.answer import Answer
from scrapy_acecaptcha.playwright.network import addresses_of_document
from scrapy_acecaptcha.playwright.observer import Observer
from scrapy_acecaptcha.playwright.scope import Scope, deadline, has_passed
from scrapy_acecaptcha.playwright.sight import Sight
from scrapy_acecaptcha.selectors import squeeze
from scrapy_acecaptcha.verdict import (
    ACCEPTED,
    NOTHING,
    REFUSED,
    Asked,
    Habit,
    Seen,
    Verdict,
    judge,
    judge_again,
)

if TYPE_CHECKING:
    from scrapy_acecaptcha.playwright.challenge import PageChallenge

OPENING_MS = 2000.0  # for a tab to be opened
_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAAAAAAALAAAAAABAAEAAAIBRAA7")

# What is known of the answers to a rule's form, by browser context.
_HABITS: WeakKeyDictionary[Any, dict[Any, Habit]] = WeakKeyDictionary()


class Judgement:
    """The verdict on the answers to one captcha."""

    def __init__(self, challenge: PageChallenge, answer: Answer) -> None:
        self._challenge = challenge
        self._answer = answer
        self._asked_for: str | None = None  # address that can be asked for again
        self._stood_at = ""  # address of the captcha
        self.is_filled_in = False  # by the user

    def begin(self) -> Steps[None]:
        """Learn what was asked for, as long as nothing was typed."""
        challenge = self._challenge
        self._stood_at = _address(challenge.url)
        self.is_filled_in = bool((yield challenge.is_filled_in()))
        if not challenge.scope.is_whole_page or not self._stood_at.startswith(("http:", "https:")):
            return
        addresses: list[str] = yield addresses_of_document(challenge.page)
        if not addresses:
            return  # it is the answer to a POST
        self._asked_for = _address(addresses[0])
        if challenge.home.load_by is None and not same_page(self._asked_for, self._stood_at):
            url = addresses[0]
            challenge.home.load_by = lambda: challenge.page.goto(url)

    def solved(self) -> Steps[bool]:
        """Wait for what the page makes of the answer, judge it, and be on the page to hand on."""
        challenge = self._challenge
        seen: Seen = yield challenge.reaction()
        if seen.kind == "file":  # loading the page again would not bring it once more
            return True
        asked: Asked | None = yield self._asked()
        if self._habit is Habit.SAME:
            text = yield _visible_text(challenge.page)
            seen = replace(seen, sounds_refused=sounds_refused(text))
        verdict = judge(challenge.rule, seen, asked, self._habit)
        if asked is not None and asked.came_back and verdict == ACCEPTED:
            self._learn(Habit.BACK)
        if verdict.outcome == "unknown" and self._answer.popup is None:
            if verdict.hand_on == "either":
                verdict = yield self._look_into(verdict, asked)
            else:
                free = yield challenge.load_home()
                again = Seen("page", captcha=not free)
                verdict, _ = judge_again(challenge.rule, verdict, again, asked, self._habit)
                if verdict.outcome == "accepted" and (yield challenge.query.must_be_sent()):
                    answered: bool = yield challenge.query.send()
                    return answered
        if verdict.outcome == "accepted":
            challenge.result_page = self._answer.popup or challenge.page
            return True
        yield challenge.refused()
        return False

    def _asked(self) -> Steps[Asked | None]:
        """Where the answer stands to what was asked for; None if that is not to be asked again."""
        if self._asked_for is None or self._answer.popup is not None:
            return None
        look = yield self._challenge.sight.look()
        if look is not None and not self._answer.is_new(look):
            return None  # a script has put the answer into the page that was asked for
        navigation = self._challenge.observer.navigation
        is_get = navigation is None or navigation.request.method == "GET"
        return Asked(
            came_back=is_get and same_page(self._challenge.page.url, self._asked_for),
            stood_elsewhere=not same_page(self._stood_at, self._asked_for),
            is_form=self.is_filled_in,
        )

    # The first answer of a rule

    def _look_into(self, first: Verdict, asked: Asked | None) -> Steps[Verdict]:
        """Ask for the page with the captcha again, which tells what the answer is."""
        challenge = self._challenge
        answer: str = yield _visible_text(challenge.page)
        original, text = yield self._original()
        verdict, habit = judge_again(
            challenge.rule, first, original, asked, self._habit, same_text=text == answer
        )
        self._learn(habit)
        if verdict.hand_on == "original" and not (yield challenge.load_home()):
            return REFUSED  # the way was open for one page
        return verdict

    def _original(self) -> Steps[tuple[Seen, str]]:
        """What was asked for, loaded in a tab of its own but for its images, and its text."""
        challenge, observer = self._challenge, self._challenge.observer
        observer.popup = None
        try:
            yield challenge.page.evaluate("() => { window.open('about:blank') }")
            give_up = deadline(OPENING_MS)
            while observer.popup is None and not has_passed(give_up):
                yield challenge.sight.pause()
            if observer.popup is None:
                return NOTHING, ""
            yield observer.popup.route("**/*", self._answer_request)
            yield observer.popup.goto(self._asked_for, timeout=challenge.sight.timeout)
            seen: tuple[Seen, str] = yield self._seen_in(observer.popup)
            return seen
        except PlaywrightError:
            return NOTHING, ""
        finally:
            if observer.popup is not None:
                yield observer.popup.close()
                observer.popup = observer.download = None

    def _answer_request(self, route: Any) -> Any:
        steps = _spare_images(route)
        return drive_async(steps) if self._challenge.is_async else drive(steps)

    def _seen_in(self, tab: Any) -> Steps[tuple[Seen, str]]:
        rule = self._challenge.rule
        scope = Scope(tab, rule, {})
        look = yield Sight(scope, rule, Observer(), self._challenge.sight.timeout).settle()
        if look is None:
            return NOTHING, ""
        seen = Seen(
            "page",
            status=look.status or 200,
            is_blank=look.is_blank,
            captcha=look.image is not None,
            is_bare_form=(yield self._challenge.shows_bare_form(scope)),
        )
        return seen, (yield _visible_text(tab))

    @property
    def _habit(self) -> Habit:
        known = _HABITS.get(self._challenge.page.context, {})
        return known.get(self._rule_key, Habit.UNKNOWN)

    def _learn(self, habit: Habit) -> None:
        _HABITS.setdefault(self._challenge.page.context, {})[self._rule_key] = habit

    @property
    def _rule_key(self) -> tuple[str | None, ...]:
        rule = self._challenge.rule
        return host_of(self._stood_at), rule.image, rule.input, rule.form, *sorted(rule.fields)


def _address(url: str) -> str:
    """*url* without the part that names a place on its page."""
    return url.partition("#")[0]


def _spare_images(route: Any) -> Steps[None]:
    """Answer requests for images ourselves: a captcha that is drawn again may spoil another one."""
    if route.request.resource_type == "image":
        yield route.fulfill(body=_PIXEL, content_type="image/gif")
    else:
        yield route.fallback()


def _visible_text(page: Any) -> Steps[str]:
    texts = yield page.locator("body").evaluate_all("bodies => bodies.map(one => one.innerText)")
    return squeeze(" ".join(texts))
