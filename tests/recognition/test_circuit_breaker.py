"""An API that is down is called by one probe at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy.utils.defer import deferred_from_coro

from scrapy_acecaptcha.crawl.waiting import Waits
from scrapy_acecaptcha.errors import ApiAuthError, ApiError, ApiServerError
from scrapy_acecaptcha.recognition import circuit_breaker as outage
from scrapy_acecaptcha.recognition.circuit_breaker import CircuitBreaker

DOWN = ApiServerError("down", code="api_error", status=500)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FAILURES", 2)
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.01)


async def call(watch: CircuitBreaker, error: ApiError | None = None) -> None:
    async with watch.call():
        if error:
            raise error


def run(coroutine: Any) -> Any:
    return deferred_from_coro(asyncio.wait_for(coroutine, 10))


async def fail(watch: CircuitBreaker, times: int, error: ApiError = DOWN) -> None:
    for _ in range(times):
        with pytest.raises(ApiError):
            await call(watch, error)


@ensureDeferred
async def test_only_failures_in_a_row_count() -> None:
    async def scene() -> None:
        watch = CircuitBreaker(Waits())
        await fail(watch, 1)
        await call(watch)
        await fail(watch, 1)
        assert not watch.is_on
        await fail(watch, 1)
        assert watch.is_on

    await run(scene())


@ensureDeferred
async def test_an_api_that_refuses_is_not_down() -> None:
    async def scene() -> None:
        watch = CircuitBreaker(Waits())
        await fail(watch, 5, ApiAuthError("no", code="invalid_token", status=401))
        assert not watch.is_on

    await run(scene())


@ensureDeferred
async def test_one_probe_at_a_time_and_all_go_on_when_it_succeeds() -> None:
    async def scene() -> None:
        watch = CircuitBreaker(Waits())
        await fail(watch, 2)
        answer = asyncio.Event()
        inside: list[int] = []

        async def waiting(i: int) -> None:
            async with watch.call():
                inside.append(i)
                if len(inside) == 1:
                    await answer.wait()

        tasks = [asyncio.ensure_future(waiting(i)) for i in range(4)]
        while not inside:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)  # long past the pause: the probe is still out, so nobody else goes
        assert len(inside) == 1
        answer.set()
        await asyncio.gather(*tasks)
        assert sorted(inside) == [0, 1, 2, 3]
        assert not watch.is_on

    await run(scene())


@ensureDeferred
async def test_pauses_grow_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.03)

    async def scene() -> None:
        watch = CircuitBreaker(Waits())
        await fail(watch, 2)
        pauses = [watch._pause]
        for _ in range(3):
            await fail(watch, 1)
            pauses.append(watch._pause)
        assert pauses == [0.01, 0.02, 0.03, 0.03]

    await run(scene())
