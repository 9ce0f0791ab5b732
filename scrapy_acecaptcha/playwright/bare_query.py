"""A query whose form asks for no captcha any more, as the session was let through meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy_acecaptcha.errors import CaptchaUnsolved
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.verdict import QUERY_PAUSES, Seen, hand_on_when_free

if TYPE_CHECKING:
    from scrapy_acecaptcha.playwright.challenge import PageChallenge


class BareQuery:
    """The query of *challenge*, filled in by the rule or by the user."""

    def __init__(self, challenge: PageChallenge) -> None:
        self._challenge = challenge

    def must_be_sent(self) -> Steps[bool]:
        """Whether an empty form stands where the answer to a query was to stand."""
        challenge = self._challenge
        look = yield challenge.sight.look(verdict=True)
        if look is None or look.success or not (yield challenge.shows_bare_form()):
            return False
        seen = Seen("page", is_bare_form=True)
        return challenge.was_filled_in or hand_on_when_free(challenge.rule, seen) == "query"

    def send(self) -> Steps[bool]:
        """Send the query without a captcha, until it is answered; False if it asks for one now.

        :raises CaptchaUnsolved: the site does not answer it
        """
        for pause in QUERY_PAUSES:
            if pause:
                yield self._challenge.page.wait_for_timeout(pause * 1000)
                if not (yield self._challenge.load_home()):
                    return False
            seen: Seen | None = yield self._challenge.send_query()
            if seen is None:
                continue
            if seen.captcha:
                return False
            if seen.kind == "file" or seen.answers_query:
                return True
        raise CaptchaUnsolved(
            "The form was sent without a captcha, as it asked for none, and was not answered",
            url=self._challenge.url,
            selector=self._challenge.rule.image,
        )
