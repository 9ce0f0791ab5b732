"""An API that is down is called by one probe at a time."""

from __future__ import annotations

from typing import Any

import pytest

from scrapy_acecaptcha.errors import ApiAuthError, ApiError, ApiServerError
from scrapy_acecaptcha.recognition import circuit_breaker
from scrapy_acecaptcha.recognition.circuit_breaker import CircuitBreaker

DOWN = ApiServerError("down", code="api_error", status=500)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(circuit_breaker, "time", clock)
    monkeypatch.setattr(circuit_breaker, "FAILURES", 2)
    return clock


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker()


def call(breaker: CircuitBreaker, error: ApiError | None = None) -> None:
    caller = object()
    assert breaker.pause(caller, 1000.0) == 0
    breaker.leave(caller, error)


def fail(breaker: CircuitBreaker, times: int, error: ApiError = DOWN) -> None:
    for _ in range(times):
        call(breaker, error)


def test_only_failures_in_a_row_count(breaker: CircuitBreaker) -> None:
    fail(breaker, 1)
    call(breaker)
    fail(breaker, 1)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.is_open


def test_an_api_that_refuses_is_not_down(breaker: CircuitBreaker) -> None:
    fail(breaker, 5, ApiAuthError("no", code="invalid_token", status=401))
    assert not breaker.is_open


def test_one_probe_at_a_time_and_all_go_on_when_it_succeeds(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 2)
    callers: list[Any] = [object() for _ in range(3)]
    assert breaker.pause(callers[0], clock.now) > 0, "too early for a probe"
    clock.now += 1
    assert breaker.pause(callers[0], clock.now) == 0, "the probe"
    clock.now += 100
    assert all(breaker.pause(caller, clock.now) > 0 for caller in callers[1:])
    breaker.leave(callers[0], None)
    assert [breaker.pause(caller, clock.now) for caller in callers[1:]] == [0, 0]


def test_a_probe_that_was_cancelled_makes_room_for_another(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 2)
    clock.now += 1
    probe, other = object(), object()
    assert breaker.pause(probe, clock.now) == 0
    breaker.leave(probe, KeyboardInterrupt())
    assert breaker.is_open
    assert breaker.pause(other, clock.now) == 0


def test_pauses_grow_up_to_the_longest(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 2)
    pauses = []
    for _ in range(8):
        asked = clock.now
        while breaker.pause(breaker, clock.now):
            clock.now += 0.5
        pauses.append(clock.now - asked)
        breaker.leave(breaker, DOWN)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_patience_ends(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 2)
    clock.now += 1
    assert breaker.pause(object(), clock.now) == 0  # a probe that takes its time
    late = object()
    assert breaker.pause(late, clock.now) > 0
    with pytest.raises(ApiServerError, match="down"):
        breaker.pause(late, clock.now - 3600)
