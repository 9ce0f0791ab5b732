"""The verdict, as the table that it is."""

from __future__ import annotations

from typing import Any

import pytest

from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.verdict import (
    ACCEPTED,
    ASK_AGAIN,
    LOOK,
    NOTHING,
    REFUSED,
    Asked,
    Habit,
    Seen,
    Verdict,
    judge,
    judge_again,
)

PAGE = Seen("page")
CAPTCHA = Seen("page", captcha=True)
HERE = Asked()
BACK = Asked(came_back=True)
ELSEWHERE = Asked(stood_elsewhere=True)
ORIGINAL = Verdict("accepted", "original")
QUERY = Verdict("accepted", "query")
QUERY_RULE: dict[str, Any] = {"fields": {"q": "Smith"}}


def rule(**fields: Any) -> CaptchaRule:
    return CaptchaRule(image="#c", **fields)


@pytest.mark.parametrize(
    ("fields", "answer", "asked", "expected"),
    [
        # `failure` comes first, whatever else the page shows
        ({"failure": ".e"}, Seen("page", failure=True), BACK, REFUSED),
        (
            {"failure": ".e", "success": ".s"},
            Seen("page", failure=True, success=True),
            BACK,
            REFUSED,
        ),
        ({"failure": ".e"}, Seen("text", failure=True), HERE, REFUSED),
        # `success` decides, on any status and beside a captcha, but not over a file
        ({"success": ".s"}, Seen("page", success=True, status=503), HERE, ACCEPTED),
        ({"success": ".s"}, Seen("text", success=True), HERE, ACCEPTED),
        ({"success": ".s"}, Seen("page", success=False), BACK, REFUSED),
        ({"success": ".s"}, Seen("text", success=False), HERE, REFUSED),
        ({"success": ".s"}, Seen("page", success=False, is_blank=True), HERE, REFUSED),
        ({"success": ".s"}, Seen("file", success=False), HERE, ACCEPTED),
        ({"success": ".s"}, Seen("page", success=True), ELSEWHERE, ASK_AGAIN),
        # a file
        ({}, Seen("file"), HERE, ACCEPTED),
        ({}, Seen("file"), ELSEWHERE, ACCEPTED),
        ({}, Seen("file", status=404), HERE, ASK_AGAIN),
        # what says nothing
        ({}, Seen("text"), HERE, ASK_AGAIN),
        ({}, Seen("text"), BACK, ASK_AGAIN),
        (QUERY_RULE, Seen("text"), HERE, ASK_AGAIN),
        ({}, Seen("page", is_blank=True), BACK, ASK_AGAIN),
        ({}, Seen("page", status=403), BACK, ASK_AGAIN),
        (QUERY_RULE, Seen("page", status=403), HERE, ASK_AGAIN),
        ({}, NOTHING, HERE, ASK_AGAIN),
        ({"success": ".s"}, NOTHING, HERE, ASK_AGAIN),
        ({"failure": ".e"}, NOTHING, HERE, ASK_AGAIN),
        # text of which `failure` says that it is no refusal
        (QUERY_RULE | {"failure": ".e"}, Seen("text", failure=False), HERE, ACCEPTED),
        # the captcha again
        ({}, CAPTCHA, BACK, REFUSED),
        ({}, Seen("page", captcha=True, status=403), HERE, REFUSED),
        ({"failure": ".e"}, Seen("page", captcha=True, failure=False), HERE, REFUSED),
        # pages without it
        ({}, PAGE, BACK, ACCEPTED),
        (QUERY_RULE, PAGE, HERE, ACCEPTED),
        (QUERY_RULE, PAGE, ELSEWHERE, LOOK),
        ({}, PAGE, Asked(is_form=True), ACCEPTED),
        ({}, PAGE, HERE, LOOK),
        ({}, PAGE, ELSEWHERE, LOOK),
        ({"failure": ".e"}, Seen("page", failure=False), HERE, LOOK),
        # `after`
        ({"after": "stay"}, PAGE, ELSEWHERE, ACCEPTED),
        ({"after": "return"}, PAGE, BACK, ASK_AGAIN),
        ({"after": "return"}, CAPTCHA, BACK, REFUSED),
        ({"after": "stay"}, Seen("page", is_blank=True), HERE, ASK_AGAIN),
        # in a browser where nobody asked for a page
        ({}, PAGE, None, ACCEPTED),
        ({}, CAPTCHA, None, REFUSED),
        ({}, Seen("text"), None, ASK_AGAIN),
        ({"after": "return"}, PAGE, None, ASK_AGAIN),
    ],
)
def test_the_forms_answer(
    fields: dict[str, Any], answer: Seen, asked: Asked | None, expected: Verdict
) -> None:
    assert judge(rule(**fields), answer, asked) == expected


@pytest.mark.parametrize(
    ("habit", "expected"),
    [
        (Habit.EACH, ACCEPTED),
        (Habit.SAME, ACCEPTED),
        (Habit.RETURN, ASK_AGAIN),
        (Habit.BACK, ASK_AGAIN),
    ],
)
def test_a_form_is_looked_into_once(habit: Habit, expected: Verdict) -> None:
    assert judge(rule(), PAGE, HERE, habit) == expected
    assert judge(rule(), PAGE, BACK, habit) == ACCEPTED
    assert judge(rule(**QUERY_RULE), PAGE, HERE, habit) == ACCEPTED
    assert judge(rule(), Seen("text"), HERE, habit) == ASK_AGAIN


def test_words_of_a_refusal_are_worth_a_look_where_it_decides() -> None:
    wrong = Seen("page", sounds_refused=True)
    assert judge(rule(), wrong, HERE, Habit.SAME) == ASK_AGAIN
    assert judge(rule(), wrong, HERE, Habit.EACH) == ACCEPTED


def test_a_query_behind_a_check_page_of_its_own() -> None:
    with_fields = rule(**QUERY_RULE)
    bare = Seen("page", is_bare_form=True)
    assert judge_again(with_fields, LOOK, CAPTCHA, ELSEWHERE) == (ACCEPTED, Habit.EACH)
    assert judge_again(with_fields, LOOK, bare, ELSEWHERE) == (ACCEPTED, Habit.EACH)
    assert judge_again(with_fields, LOOK, PAGE, ELSEWHERE) == (ORIGINAL, Habit.RETURN)


@pytest.mark.parametrize(
    ("first", "original", "same_text", "expected", "habit"),
    [
        (LOOK, CAPTCHA, False, ACCEPTED, Habit.EACH),
        (LOOK, PAGE, True, ACCEPTED, Habit.SAME),
        (LOOK, PAGE, False, ORIGINAL, Habit.RETURN),
        (LOOK, Seen("page", status=500), False, ACCEPTED, Habit.UNKNOWN),
        (LOOK, NOTHING, False, ACCEPTED, Habit.UNKNOWN),
        (ASK_AGAIN, CAPTCHA, False, REFUSED, Habit.UNKNOWN),
        (ASK_AGAIN, PAGE, False, ORIGINAL, Habit.UNKNOWN),
        (ASK_AGAIN, Seen("file"), False, ORIGINAL, Habit.UNKNOWN),
        (ASK_AGAIN, Seen("page", status=500), False, ORIGINAL, Habit.UNKNOWN),
    ],
)
def test_the_original_request_once_more(
    first: Verdict, original: Seen, same_text: bool, expected: Verdict, habit: Habit
) -> None:
    found = judge_again(rule(), first, original, HERE, same_text=same_text)
    assert found == (expected, habit)


def test_a_check_page_of_its_own_is_looked_into_twice() -> None:
    """Where a wrong answer may be told without a captcha, the captcha again proves nothing."""
    assert judge_again(rule(), LOOK, CAPTCHA, ELSEWHERE) == (REFUSED, Habit.DOUBTED)
    assert judge(rule(), PAGE, ELSEWHERE, Habit.DOUBTED) == LOOK
    assert judge_again(rule(), LOOK, CAPTCHA, ELSEWHERE, Habit.DOUBTED) == (ACCEPTED, Habit.EACH)
    assert judge_again(rule(), LOOK, PAGE, ELSEWHERE, Habit.DOUBTED) == (ORIGINAL, Habit.RETURN)


@pytest.mark.parametrize(
    ("fields", "original", "expected"),
    [
        (QUERY_RULE, Seen("page", is_bare_form=True), QUERY),
        ({"success": ".s"}, Seen("page", success=False, is_bare_form=True), QUERY),
        ({"success": ".s"}, Seen("page", success=True, is_bare_form=True), ORIGINAL),
        ({"success": ".s"}, Seen("page", success=False), ORIGINAL),
        (QUERY_RULE, PAGE, ORIGINAL),
        ({}, Seen("page", is_bare_form=True), ORIGINAL),
    ],
)
def test_an_empty_form_is_not_handed_on(
    fields: dict[str, Any], original: Seen, expected: Verdict
) -> None:
    assert judge_again(rule(**fields), ASK_AGAIN, original, HERE)[0] == expected
