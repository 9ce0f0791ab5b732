"""What is learnt of pages that ask for a captcha each time, without a crawl."""

from __future__ import annotations

import pytest
from scrapy import Request

from scrapy_acecaptcha.crawl.each_time import REMEMBERED, EachTime
from scrapy_acecaptcha.crawl.rule_health import RuleHealths
from scrapy_acecaptcha.rule_book import RuleBook
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.verdict import Habit

WALL = CaptchaRule(image="img")
QUERY = CaptchaRule(image="img", fields={"q": "x"})


@pytest.fixture
def healths() -> RuleHealths:
    return RuleHealths(RuleBook({}), 20)


def page(path: str = "record/1") -> Request:
    return Request(f"http://example.org/{path}")


def test_a_wall_is_not_expected_until_captchas_come_in_a_row(healths: RuleHealths) -> None:
    each = EachTime(healths)
    told = []
    for captcha in (False, True, False, True, True, True, False, True):
        each.seen(page(), WALL, captcha)
        told.append(each.expects(page("record/7"), WALL))
    assert told == [False, False, False, False, True, True, False, False]


def test_a_rule_with_fields_is_believed_until_a_page_says_otherwise(healths: RuleHealths) -> None:
    each = EachTime(healths)
    assert each.expects(page(), QUERY)
    each.seen(page("list?page=2"), QUERY, captcha=False)
    assert each.expects(page(), QUERY)
    assert not each.expects(page("list?page=3"), QUERY)
    each.seen(page("list?page=4"), QUERY, captcha=True)
    each.seen(page("list?page=5"), QUERY, captcha=True)
    assert each.expects(page("list?page=6"), QUERY)


def test_a_form_that_has_proved_to_ask_each_time_is_believed(healths: RuleHealths) -> None:
    each = EachTime(healths)
    healths.of(page().url, WALL).learn("GET", Habit.EACH)
    assert each.expects(page(), WALL)
    assert not each.expects(page().replace(method="POST"), WALL)


def test_a_broad_crawl_does_not_fill_the_memory(healths: RuleHealths) -> None:
    each = EachTime(healths)
    for i in range(REMEMBERED + 10):
        each.seen(page(f"{'a' * i}/1"), QUERY, captcha=False)
    assert len(each._in_a_row) == REMEMBERED
