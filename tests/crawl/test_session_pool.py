"""Names of sessions side by side, without a crawl."""

from __future__ import annotations

import json

import pytest

from scrapy_acecaptcha.crawl.session_pool import SessionPool


def make_pool(size: int = 3) -> SessionPool:
    pool = SessionPool("example.org:8000")
    pool.grow(size)
    return pool


def test_those_longest_not_used_come_first() -> None:
    pool = make_pool()
    first, second, third = pool.names
    assert len({first, second, third}) == 3
    assert pool.use(first)
    pool.use(third)
    assert not pool.use(first)
    assert pool.names == [second, third, first]


def test_a_dropped_session_is_replaced_and_its_name_leads_to_the_fresh_one() -> None:
    pool = make_pool()
    name = pool.names[0]
    pool.use(name)
    assert pool.drop(name)
    assert not pool.drop(name), "two requests that were refused drop one session"
    fresh = pool.live(name)
    assert fresh in pool.names
    assert name not in pool.names
    assert pool.use(fresh)
    assert pool.live(fresh) == fresh
    pool.drop(fresh)
    assert pool.live(name) == pool.live(fresh) != fresh


def test_names_of_an_earlier_run_lead_to_sessions_of_this_one() -> None:
    before = make_pool(8)
    for _ in range(3):
        before.drop(before.names[0])
    pool = make_pool(2)
    for name in json.loads(json.dumps(before.names)):
        assert pool.live(name) in pool.names


@pytest.mark.parametrize(
    "name",
    [None, 3, "mine", "acecaptcha:other.org:1.1", "acecaptcha:example.org:8000:x.1"]
    + [
        f"acecaptcha:example.org:8000:{end}" for end in ("", "0.1", "1", "1.", "-1.1", "²", "1.1.1")
    ],
)
def test_other_names_are_left_alone(name: object) -> None:
    pool = make_pool()
    assert pool.live(name) is None
    assert not pool.drop(name)
    assert not pool.use(name)


def test_a_pool_grows_to_the_largest_size_asked_for() -> None:
    pool = make_pool(2)
    pool.use(pool.names[0])
    pool.grow(4)
    pool.grow(1)
    assert len(set(pool.names)) == 4
