"""The verdict on an answer: accepted, refused or unknown, and which page to hand on. No I/O.

A front end sends a form, sums up in a :class:`Seen` what came, and asks :func:`judge`. Where the
verdict is unknown it makes the original request again and asks :func:`judge_again`. Both decide by
what the site said; the order of their questions is the table in docs/verdict.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from scrapy_acecaptcha.rules import CaptchaRule


@dataclass(frozen=True)
class Seen:
    """What came, as far as a verdict needs it.

    :param kind: ``page`` (HTML), ``text`` (plain text, JSON, XML, whatever type is named), ``file``
        (bytes that are no text), or ``nothing`` (the connection broke)
    :param status: HTTP status; 200 where there is none, as for what a script put into a page
    :param is_blank: there is nothing to see: no text, no picture, no control
    :param captcha: the rule's captcha stands on it, and ``success`` does not match
    :param success: whether the rule's ``success`` matches; None where the rule has none
    :param failure: the same for ``failure``
    :param is_bare_form: it is the query's form with no captcha in it
    :param sounds_refused: its text has words such as "wrong" or "invalid"
    """

    kind: Literal["page", "text", "file", "nothing"]
    status: int = 200
    is_blank: bool = False
    captcha: bool = False
    success: bool | None = None
    failure: bool | None = None
    is_bare_form: bool = False
    sounds_refused: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def says_nothing(self) -> bool:
        """Whether nothing about the answer can be told from this."""
        return self.kind == "nothing" or not self.is_ok or self.is_blank or self.is_silent_text

    @property
    def answers_query(self) -> bool:
        """Whether this is the answer to a query that was sent without a captcha."""
        return self.is_ok and self.success is not False and not self.failure

    @property
    def is_silent_text(self) -> bool:
        """Whether it is text of which the rule does not say what it means."""
        return self.kind == "text" and self.failure is None and not self.success


NOTHING = Seen("nothing", status=0)
QUERY_PAUSES = (0.0, 1.0, 2.0)  # seconds before a query is sent again, without a captcha


@dataclass(frozen=True)
class Asked:
    """What the spider asked for, and where the form's answer stands to it.

    :param came_back: it was a GET, and a redirect led from the form back to its address
    :param stood_elsewhere: the captcha stood at another address, to which the site had redirected
    :param is_form: what was asked for is the form itself: the spider had sent it
    """

    came_back: bool = False
    stood_elsewhere: bool = False
    is_form: bool = False


class Habit(Enum):
    """What the answers of a rule's form have proved to be, once one was looked into."""

    UNKNOWN = "unknown"
    DOUBTED = "looked into once, and the captcha stood there again"
    BACK = "a redirect to what was asked for"
    EACH = "what was asked for, and a captcha is asked for each time"
    SAME = "what was asked for, and the session is let through"
    RETURN = "another page, such as a thank-you"


class Verdict(NamedTuple):
    """What became of an answer.

    :param outcome: ``unknown``: make the original request again and judge once more
    :param hand_on: ``answer`` (what the form led to), ``original`` (what the original request
        brings), ``either`` (look into it: the original request decides between the two) or
        ``query`` (send the query again, without a captcha)
    """

    outcome: Literal["accepted", "refused", "unknown"]
    hand_on: Literal["answer", "original", "either", "query"]


REFUSED = Verdict("refused", "answer")
ACCEPTED = Verdict("accepted", "answer")
ASK_AGAIN = Verdict("unknown", "original")
LOOK = Verdict("unknown", "either")


def judge(
    rule: CaptchaRule, answer: Seen, asked: Asked | None, habit: Habit = Habit.UNKNOWN
) -> Verdict:
    """Judge what the form brought.

    :param asked: None in a browser where nobody asked for a page: the user stays where the form
        leads
    :param habit: what is known of earlier answers to this rule's form
    """
    if answer.kind == "nothing":
        return ASK_AGAIN
    if answer.failure:
        return REFUSED
    if answer.success is None and answer.captcha:
        return REFUSED
    if answer.success is False and answer.kind != "file":
        return REFUSED
    if not answer.success and answer.says_nothing:
        return ASK_AGAIN
    return _place(rule, answer, asked, habit)


def _place(rule: CaptchaRule, answer: Seen, asked: Asked | None, habit: Habit) -> Verdict:
    """Where the page stands that an accepted answer is for."""
    if rule.after != "auto":
        return ACCEPTED if rule.after == "stay" else ASK_AGAIN
    if asked is None or asked.came_back or asked.is_form or answer.kind == "file":
        return ACCEPTED
    if rule.fields and not asked.stood_elsewhere:
        return ACCEPTED
    if rule.success and not rule.fields:
        # It is no guess that the answer was right; only where the captcha stood elsewhere, the
        # page on which `success` matched is not the one that was asked for.
        return ASK_AGAIN if asked.stood_elsewhere else ACCEPTED
    if habit is Habit.SAME:
        return ASK_AGAIN if answer.sounds_refused else ACCEPTED
    by_habit = {Habit.EACH: ACCEPTED, Habit.RETURN: ASK_AGAIN, Habit.BACK: ASK_AGAIN}
    return by_habit.get(habit, LOOK)


def judge_again(
    rule: CaptchaRule,
    first: Verdict,
    original: Seen,
    asked: Asked | None,
    habit: Habit = Habit.UNKNOWN,
    *,
    same_text: bool = False,
) -> tuple[Verdict, Habit]:
    """Judge by what the original request brought this time.

    :param first: the verdict that asked for it
    :param same_text: it shows the same text as the form's answer
    :return: the verdict, and what is known of the rule's form from now on
    """
    if first.hand_on == "either":
        return _judge_look(rule, original, asked, habit, same_text)
    if original.captcha or original.kind == "nothing":
        return REFUSED, habit
    return Verdict("accepted", hand_on_when_free(rule, original)), habit


def _judge_look(
    rule: CaptchaRule, original: Seen, asked: Asked | None, habit: Habit, same_text: bool
) -> tuple[Verdict, Habit]:
    """Decide between the form's answer and what the original request brought."""
    if same_text:
        return ACCEPTED, Habit.SAME
    if original.is_bare_form:
        return ACCEPTED, Habit.EACH
    if original.captcha:
        # A check page of its own that is not left for what was asked for tells wrong answers, too,
        # by a page without a captcha. That a captcha is asked for each time shows at the next look.
        is_doubtful = asked is not None and asked.stood_elsewhere and not rule.fields
        if is_doubtful and habit is Habit.UNKNOWN:
            return REFUSED, Habit.DOUBTED
        return ACCEPTED, Habit.EACH
    if original.kind == "nothing" or not original.is_ok:
        return ACCEPTED, habit
    return Verdict("accepted", "original"), Habit.RETURN


def hand_on_when_free(rule: CaptchaRule, original: Seen) -> Literal["original", "query"]:
    """What to hand on where the original request meets no captcha any more.

    An empty query form is not what was asked for, only because its session had been let through.
    """
    has_query = bool(rule.fields) or rule.success is not None
    return "query" if has_query and original.is_bare_form and not original.success else "original"
