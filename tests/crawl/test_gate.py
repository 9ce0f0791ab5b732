"""One captcha per session, at full speed."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.utils.defer import deferred_from_coro
from twisted.internet.threads import deferToThread

from scrapy_acecaptcha import CaptchaUnsolved
from scrapy_acecaptcha.crawl import waiting
from scrapy_acecaptcha.crawl.gates import Gates
from scrapy_acecaptcha.crawl.waiting import Stopped, Waits
from tests.crawl_process import finish_crawl, start_crawl
from tests.crawling import on_other_reactors, run_crawl
from tests.site import CaptchaSite
from tests.stub import ApiStub

ALL_300 = [f"Record {i}" for i in range(300)]


# Whole crawls


@pytest.mark.slow
@pytest.mark.parametrize("wall", ["inplace", "redirect", "through", "metarefresh", "hidden"])
@ensureDeferred
async def test_a_cold_start_pays_once(
    site: CaptchaSite, api: ApiStub, settings: Any, wall: str
) -> None:
    crawl = await run_crawl([f"{site.url}/{wall}/?n=200"], settings(wall, CONCURRENT_REQUESTS=64))
    assert crawl.records == ALL_300[:200]
    assert len(api.calls) == 1
    assert (site.stats[wall]["wrong"], site.stats[wall]["spoiled"]) == (0, 0)


class DropsSome:
    """A downloader middleware that drops requests the gate has counted or is about to count.

    Which ones is told by their number, not by the order in which they come: under load, many
    responses arrive between two requests.
    """

    OUT, IN = 10, 7  # each tenth on its way out, each seventh on its way in

    def process_request(self, request: Request) -> None:
        if number_of(request) % self.OUT == 1:
            raise IgnoreRequest("dropped on its way out")

    def process_response(self, request: Request, response: Response) -> Response:
        if number_of(request) % self.IN == 1 and b"<h1" in response.body:
            raise IgnoreRequest("dropped on its way in")
        return response

    @classmethod
    def spares(cls, number: int) -> bool:
        return number % cls.OUT != 1 and number % cls.IN != 1


def number_of(request: Request) -> int:
    """The number of the record; 0 for other pages."""
    _, _, number = request.url.partition("/record/")
    return int(number or 0)


SURROUNDINGS: dict[str, dict[str, Any]] = {
    "robots.txt": {"ROBOTSTXT_OBEY": True},
    "delay": {"DOWNLOAD_DELAY": 0.005},
    "cache": {"HTTPCACHE_ENABLED": True},
    "few at a time": {"CONCURRENT_REQUESTS_PER_DOMAIN": 2},
}


@pytest.mark.parametrize("name", SURROUNDINGS)
@ensureDeferred
async def test_surroundings_change_nothing(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path, name: str
) -> None:
    more = {**SURROUNDINGS[name], "HTTPCACHE_DIR": str(tmp_path), "CONCURRENT_REQUESTS": 16}
    crawl = await run_crawl([f"{site.url}/inplace/?n=100"], settings("inplace", **more))
    assert crawl.records == ALL_300[:100]
    assert len(api.calls) == 1


@ensureDeferred
async def test_captchas_in_the_http_cache_are_downloaded_again(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    config = settings("inplace", HTTPCACHE_ENABLED=True, HTTPCACHE_DIR=str(tmp_path))
    await run_crawl([f"{site.url}/inplace/record/1"], config)
    site.reset()  # the site forgets its sessions, the cache does not forget the captcha
    crawl = await run_crawl([f"{site.url}/inplace/record/1"], config)
    assert crawl.records == ["Record 1"]
    assert crawl.stats == {"challenges": 1, "replayed": 1, "api_requests": 1, "solved": 1}


@ensureDeferred
async def test_dropped_requests_never_keep_the_gate_shut(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/inplace/?n=100"],
        settings(
            "inplace",
            CONCURRENT_REQUESTS=16,
            DOWNLOADER_MIDDLEWARES={DropsSome: 650},
        ),
    )
    spared = [f"Record {i}" for i in range(100) if DropsSome.spares(i)]
    assert crawl.records == spared
    assert len(crawl.errors) == 100 - len(spared)
    # Those of the forms, too: a captcha's form may be dropped like any other request.
    assert all("dropped on its way" in str(error) for error in crawl.errors)


class AsksFirst:
    """A downloader middleware that fetches another page of the site before each record, once."""

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.asked: set[str] = set()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> AsksFirst:
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        if "/record/" in request.url and request.url not in self.asked:
            self.asked.add(request.url)
            url = request.url.replace("/record/", "/?n=0&before=")
            await self.crawler.engine.download_async(Request(url))


@ensureDeferred
async def test_requests_of_other_middlewares_are_not_waited_for_by_those_they_wait_for(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/inplace/?n=40"],
        settings("inplace", CONCURRENT_REQUESTS=16, DOWNLOADER_MIDDLEWARES={AsksFirst: 650}),
    )
    assert crawl.records == ALL_300[:40]
    assert crawl.errors == []
    assert len(api.calls) == 1


@ensureDeferred
async def test_failing_pages_are_retried_beside_the_gate(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/unavailable/?n=100"],
        settings("unavailable", CONCURRENT_REQUESTS=16, RETRY_TIMES=3),
    )
    assert crawl.records == ALL_300[:100]
    assert len(api.calls) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("concurrency", "at_most"), [(1, 11), (8, 20)])
@ensureDeferred
async def test_a_wall_that_asks_again_after_ten_pages(
    site: CaptchaSite, api: ApiStub, settings: Any, concurrency: int, at_most: int
) -> None:
    site.every_k = 10
    crawl = await run_crawl(
        [f"{site.url}/every_k/?n=100"],
        settings("every_k", CONCURRENT_REQUESTS=concurrency, RETRY_TIMES=3),
    )
    assert crawl.records == ALL_300[:100]
    assert 10 <= len(api.calls) <= at_most
    assert site.stats["every_k"]["spoiled"] == 0


@ensureDeferred
async def test_a_redirecting_wall_that_asks_again_is_passed_without_the_tick(
    site: CaptchaSite, api: ApiStub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is let go and redirected makes room for the next, and goes before new requests."""
    monkeypatch.setattr("scrapy_acecaptcha.crawl.middleware.TICK_SECONDS", 1000)
    site.every_k = 100
    crawl = await run_crawl(
        [f"{site.url}/redirect_again/?n=300"], settings("redirect_again", CONCURRENT_REQUESTS=8)
    )
    assert crawl.records == ALL_300
    assert 3 <= len(api.calls) <= 4
    assert len(site.requests) <= 1.3 * 300


@ensureDeferred
async def test_a_spider_may_get_its_name_when_it_is_made(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    from tests.crawling import CollectingSpider

    class Nameless(CollectingSpider):
        name = None  # type: ignore[assignment]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, name="late", **kwargs)

    crawl = await run_crawl(
        [f"{site.url}/inplace/record/1"],
        settings("inplace", ACECAPTCHA_JOURNAL=str(tmp_path / "journal.db")),
        spider=Nameless,
    )
    assert crawl.records == ["Record 1"]


@ensureDeferred
async def test_queries_of_one_session_do_not_spoil_each_other(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl([f"{site.url}/query/?n=60"], settings("query", CONCURRENT_REQUESTS=16))
    assert crawl.records == ALL_300[:60]
    assert len(api.calls) == 60
    assert site.stats["query"]["spoiled"] == 0


# Who waits for whom


@ensureDeferred
async def test_sessions_are_solved_in_parallel(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.gate.clear()
    start = [Request(f"{site.url}/inplace/record/{i}", meta={"cookiejar": i}) for i in range(12)]
    crawling = run_crawl(
        start, settings("inplace", CONCURRENT_REQUESTS=16, ACECAPTCHA_CONCURRENCY=12)
    )
    await deferToThread(api.wait_for, 12)  # all at once, or this would wait forever
    api.gate.set()
    crawl = await crawling
    assert crawl.records == ALL_300[:12]
    assert api.max_parallel == 12


@ensureDeferred
async def test_captchas_bound_to_no_session_wait_for_nobody(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.gate.clear()
    start = [f"{site.url}/inplace/record/{i}" for i in range(4)]
    crawling = run_crawl(
        start, settings("inplace", {"session": False}, CONCURRENT_REQUESTS=4, RETRY_TIMES=0)
    )
    await deferToThread(api.wait_for, 4)
    api.gate.set()
    await crawling
    assert api.max_parallel == 4


@ensureDeferred
async def test_other_hosts_go_on_while_a_gate_is_shut(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    """The API is silent until every page of the other host has arrived."""
    api.gate.clear()
    arrived = set()

    def note(seen: Any) -> None:
        if seen.path.startswith("/nocaptcha/record"):
            arrived.add(seen.path)
            if len(arrived) == 50:
                api.gate.set()

    site.on_request = note
    free = [f"{site.second_url}/nocaptcha/record/{i}" for i in range(50)]
    gated = [f"{site.url}/inplace/record/{i}" for i in range(100, 200)]
    crawl = await run_crawl(gated + free, settings("inplace", CONCURRENT_REQUESTS=8))
    assert crawl.records == [*ALL_300[:50], *ALL_300[100:200]]
    assert len(api.calls) == 1


@ensureDeferred
async def test_a_leader_that_fails_lets_the_next_one_lead(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.script += [(500, {"error": {"code": "api_error"}}, {})] * 2
    start = [f"{site.url}/inplace/record/{i}" for i in range(10)]
    crawl = await run_crawl(start, settings("inplace", CONCURRENT_REQUESTS=16, RETRY_TIMES=0))
    assert len(crawl.errors) == 2
    assert len(crawl.records) == 8
    assert len(api.calls) == 3


@ensureDeferred
async def test_when_nobody_can_lead_everybody_gets_the_error(
    site: CaptchaSite, settings: Any
) -> None:
    with ApiStub(lambda image: "WRONG") as api:
        crawl = await run_crawl(
            [f"{site.url}/inplace/record/{i}" for i in range(6)],
            settings(
                "inplace",
                ACECAPTCHA_API_BASE_URL=api.url,
                CONCURRENT_REQUESTS=8,
                RETRY_TIMES=0,
                ACECAPTCHA_MAX_ATTEMPTS=1,
            ),
        )
    assert [type(error) for error in crawl.errors] == [CaptchaUnsolved] * 6


# Reactors, and the end


@on_other_reactors
@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "n"), [("query", 20), ("through", 40)])
def test_other_reactors(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    reactor: dict[str, Any],
    scenario: str,
    n: int,
) -> None:
    config = settings(scenario, CONCURRENT_REQUESTS=16, **reactor)
    result = finish_crawl(start_crawl([f"{site.url}/{scenario}/?n={n}"], config))
    assert result["errors"] == []
    assert result["records"] == ALL_300[:n]
    assert len(api.calls) == (n if scenario == "query" else 1)


@pytest.mark.slow
def test_ctrl_c_ends_the_crawl_during_a_call_and_jobdir_keeps_everything(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    api.gate.clear()  # the call goes on for as long as it likes
    config = settings("inplace", CONCURRENT_REQUESTS=16, JOBDIR=str(tmp_path))
    process = start_crawl([f"{site.url}/inplace/?n=60"], config)
    api.wait_for(1)
    process.send_signal(signal.SIGINT)
    interrupted = finish_crawl(process, timeout=8)
    assert interrupted["reason"] == "shutdown"
    assert interrupted["errors"] == []
    api.gate.set()
    resumed = finish_crawl(start_crawl([f"{site.url}/inplace/?n=60"], config))
    assert resumed["records"] == ALL_300[:60]
    assert len(api.calls) == 2


# The gate by itself


def make_gate(width: int = 4, sent: Iterable[Any] = "ab") -> tuple[Gates, Waits, set[Any]]:
    waits, active = Waits(), set("ab")
    is_sent = set(sent).__contains__
    return Gates(waits, active=lambda: active, is_sent=is_sent, width=width), waits, active


def run(coroutine: Any) -> Any:
    return deferred_from_coro(asyncio.wait_for(coroutine, 10))


@ensureDeferred
async def test_a_lone_request_is_not_stale() -> None:
    gate, _, _ = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        session.request_started("a")
        assert session.response_received("a") is False
        async with session.turn() as turn:
            assert (turn.leads, turn.stale) == (True, False)
            assert session.is_full
        assert not session.is_full
        assert session.idle

    await run(scene())


@ensureDeferred
async def test_the_leader_waits_for_those_in_flight() -> None:
    gate, _, _ = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        events: list[tuple[Any, ...]] = []
        session.request_started("a")
        session.request_started("b")
        session.response_received("a")

        async def lead() -> None:
            async with session.turn() as turn:
                events.append(("leads", turn.stale))

        leading = asyncio.ensure_future(lead())
        await asyncio.sleep(0)
        events.append(("b response_received",))
        session.response_received("b")
        await leading
        assert events == [("b response_received",), ("leads", True)]

    await run(scene())


@ensureDeferred
async def test_one_that_was_overtaken_knows() -> None:
    gate, _, active = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        session.request_started("a")
        session.request_started("b")
        active.remove("b")  # redirected: it never comes back to the gate
        assert session.response_received("a") is True

    await run(scene())


@ensureDeferred
async def test_answers_of_a_cache_overtake_nobody() -> None:
    gate, _, _ = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        session.request_started("a")
        session.request_started("b")
        session.short_circuited("b")
        assert session.response_received("a") is False
        assert session.idle

    await run(scene())


@ensureDeferred
async def test_the_leader_does_not_wait_for_what_another_middleware_keeps() -> None:
    gate, _, _ = make_gate(sent="b")

    async def scene() -> None:
        session = gate.session("s")
        session.request_started("a")  # which may wait for a request that is held at this gate
        async with session.turn() as turn:
            assert (turn.leads, turn.stale) == (True, True)

    await run(scene())


@ensureDeferred
async def test_the_leader_waits_until_one_in_flight_has_been_redirected() -> None:
    gate, _, active = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        session.request_started("a")
        events = []

        async def lead() -> None:
            async with session.turn():
                events.append("leads")

        leading = asyncio.ensure_future(lead())
        await asyncio.sleep(0)
        events.append("redirected")
        active.remove("a")
        await leading
        assert events == ["redirected", "leads"]

    await run(scene())


@ensureDeferred
async def test_the_gate_goes_down_the_line_and_then_opens() -> None:
    gate, _, _ = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        order: list[tuple[Any, ...]] = []

        async def lead(name: str) -> None:
            async with session.turn() as turn:
                order.append((name, turn.leads, turn.stale))
                await asyncio.sleep(0)

        async def new(name: str) -> None:
            await session.enter()
            order.append((name,))

        tasks = [asyncio.ensure_future(lead(n)) for n in "abc"]
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(new("held")))
        await asyncio.gather(*tasks)
        assert order == [("a", True, False), ("b", True, True), ("c", True, True), ("held",)]

    await run(scene())


@ensureDeferred
async def test_when_the_wall_is_down_all_in_line_look_for_themselves() -> None:
    gate, _, _ = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        seen = []

        async def lead(name: str) -> None:
            async with session.turn() as turn:
                seen.append((name, turn.leads))
                await asyncio.sleep(0)
                if name == "b":
                    session.release_all(turn)

        await asyncio.gather(*(lead(name) for name in "abcd"))
        assert seen == [("a", True), ("b", True), ("c", False), ("d", False)]
        assert session.idle

    await run(scene())


@ensureDeferred
async def test_a_leader_that_raises_hands_the_gate_on() -> None:
    gate, _, _ = make_gate()

    async def scene() -> None:
        session = gate.session("s")

        async def fail() -> None:
            async with session.turn():
                await asyncio.sleep(0)
                raise ValueError

        async def lead() -> bool:
            async with session.turn() as turn:
                return turn.leads

        results = await asyncio.gather(fail(), lead(), return_exceptions=True)
        assert isinstance(results[0], ValueError)
        assert results[1] is True
        assert session.idle

    await run(scene())


@ensureDeferred
async def test_stopping_lets_everybody_go() -> None:
    gate, waits, _ = make_gate()

    async def scene() -> None:
        session = gate.session("s")
        released = threading.Event()

        async def lead() -> None:
            async with session.turn():
                await waits.sleep(1000)

        async def wait_in_line() -> None:
            async with session.turn():
                released.set()

        tasks = [asyncio.ensure_future(c) for c in (lead(), wait_in_line(), session.enter())]
        await asyncio.sleep(0)
        waits.stop()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Stopped] * 3
        assert not released.is_set()
        assert len(waits) == 0
        assert session.idle

    await run(scene())


@ensureDeferred
async def test_held_requests_go_as_many_as_may_be_in_flight() -> None:
    gate, _, active = make_gate(width=2, sent=range(5))

    async def scene() -> None:
        session = gate.session("s")
        gone: list[int] = []

        async def new(i: int) -> None:
            await session.enter()
            gone.append(i)
            active.add(i)
            session.request_started(i)

        async with session.turn():
            tasks = [asyncio.ensure_future(new(i)) for i in range(5)]
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert gone == [0, 1]
        for i in range(5):
            session.response_received(i)
            for _ in range(5):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert gone == [0, 1, 2, 3, 4]

    await run(scene())


@ensureDeferred
async def test_those_turned_back_make_room_and_the_redirected_go_first() -> None:
    gate, _, _ = make_gate(width=1)

    async def scene() -> None:
        session = gate.session("s")
        gone: list[int] = []

        async def new(i: int, first: bool) -> None:
            await session.enter(first=first)
            gone.append(i)
            session.admit()  # it was turned back, and is never in flight

        async with session.turn():
            tasks = [asyncio.ensure_future(new(i, i == 50)) for i in range(100)]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert gone == [50, *range(50), *range(51, 100)]
        assert session.idle

    await run(scene())


def test_idle_sessions_are_forgotten_but_not_their_solves() -> None:
    gate, _, _ = make_gate()
    before = gate.solves
    session = gate.session("s")
    gate.note_solve("s")
    gate.tidy(in_use={session})
    assert gate.session("s") is session
    gate.tidy()
    assert gate._sessions == {}
    assert gate.solved_since("s", before)
    assert not gate.solved_since("other", before)


@ensureDeferred
async def test_answers_that_come_together_go_on_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[Any] = []
    monkeypatch.setattr(waiting, "call_later", lambda _, resume: pauses.append(resume))
    waits, arrived = Waits(), []

    async def scene() -> None:
        answers: list[Future[str]] = [Future() for _ in range(3)]
        tasks = [asyncio.ensure_future(waits.for_thread(answer)) for answer in answers]
        for task, answer, text in zip(tasks, answers, "abc", strict=True):
            task.add_done_callback(lambda done: arrived.append(done.result()))
            await asyncio.sleep(0)
            answer.set_result(text)
        for expected in (["a"], ["a", "b"], ["a", "b", "c"]):
            for _ in range(10):
                await asyncio.sleep(0)
            assert arrived == expected
            pauses.pop()()
        assert not pauses

    await run(scene())
