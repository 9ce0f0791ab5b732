"""One object for scripts, browsers and spiders: reading, the loop, and the account of both."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_twisted import ensureDeferred
from scrapy import Request, signals
from scrapy.crawler import CrawlerRunner
from scrapy.http import JsonRequest, Response
from scrapy.settings import Settings

from scrapy_acecaptcha import (
    AceCaptchaClient,
    ApiAuthError,
    BudgetExhausted,
    CaptchaRule,
    CaptchaUnsolved,
    CrawlStopped,
    SettingsError,
    Solver,
)
from tests.crawling import BASE_SETTINGS, TOKEN, CollectingSpider, Crawl, run_crawl
from tests.event_loop import run
from tests.site.json_api import JsonApi
from tests.stub import ApiStub, Task


@pytest.fixture
def search() -> Iterator[JsonApi]:
    with JsonApi() as site:
        yield site


@pytest.fixture
def bound() -> Iterator[JsonApi]:
    with JsonApi(bound=True) as site:
        yield site


def rows(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as db:
        return db.execute("SELECT spider, host, outcome, answer FROM calls ORDER BY id").fetchall()


class PlainSearch:
    """A search as a script makes it."""

    def __init__(self, site: JsonApi, query: str = "x", sid: str = "") -> None:
        self.site = site
        self.query = query
        self.http = requests.Session()
        self.http.cookies["sid"] = sid

    def image(self) -> bytes:
        captcha = self.http.get(f"{self.site.url}/api/captcha").json()
        self.id = captcha["id"]
        return base64.b64decode(captcha["image"].partition(",")[2])

    def submit(self, answer: str) -> None:
        body = {"captcha": self.id, "answer": answer, "query": self.query}
        self.reply = self.http.post(f"{self.site.url}/api/search", json=body)

    def solved(self) -> bool:
        return self.reply.ok

    def renew(self) -> bool:
        return True


class AsyncSearch(PlainSearch):
    """The same with one method that must be awaited."""

    async def submit(self, answer: str) -> None:  # type: ignore[override]
        await asyncio.to_thread(super().submit, answer)


class TestRead:
    def test_what_the_site_said_is_in_the_journal(
        self, api: ApiStub, client: AceCaptchaClient, path: Path
    ) -> None:
        api.script += ["7364", "WRONG", "9999"]
        with Solver(client=client, journal=path, name="court") as solver:
            solver.read(b"1", url="https://example.org/a").accepted()
            solver.read(b"2").refused()
            text = solver.read(b"3")
            assert (text, text.upper(), isinstance(text, str)) == ("9999", "9999", True)
            assert solver.read(b"1", url="https://example.org/b") == "7364"
            assert solver.counts == {"api_requests": 3, "rejected": 1, "reused": 1}
        assert rows(path) == [
            ("court", "example.org", "accepted", "7364"),
            ("court", "court", "rejected", "WRONG"),
            ("court", "court", "unknown", "9999"),
        ]

    def test_a_refused_text_is_not_used_again(
        self, api: ApiStub, client: AceCaptchaClient, path: Path
    ) -> None:
        api.script += ["OLD", "NEW"]
        with Solver(client=client, journal=path) as solver:
            solver.read(b"1").accepted()
            solver.read(b"1").refused()
            assert solver.read(b"1") == "NEW"

    def test_a_reading_is_pickled_as_a_str(self, api: ApiStub, client: AceCaptchaClient) -> None:
        api.script.append("7364")
        text = pickle.loads(pickle.dumps(Solver(client=client).read(b"1")))
        assert type(text) is str

    def test_budget_names_what_can_be_changed(
        self, api: ApiStub, client: AceCaptchaClient, path: Path
    ) -> None:
        api.script += ["a", "b", "c"]

        def read_all() -> None:
            with Solver(client=client, journal=path, budget=2) as solver:
                for image in (b"1", b"2", b"3"):
                    solver.read(image)

        with pytest.raises(BudgetExhausted, match=r"argument `budget`") as caught:
            read_all()
        assert "ACECAPTCHA" not in str(caught.value)
        with Solver(client=client, journal=path, budget=3) as solver:
            solver.read(b"3")  # broken off, so what was spent counts
            with pytest.raises(BudgetExhausted):
                solver.read(b"4")
        with Solver(client=client, journal=path, budget=1) as solver:  # finished before
            assert solver.recognizer.budget.spent == 0

    def test_from_the_environment(self, api: ApiStub, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(SettingsError, match="ACEDATACLOUD_API_TOKEN"):
            Solver()
        monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", TOKEN)
        monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", api.url)
        api.script.append("7364")
        with Solver() as solver:
            assert solver.read(b"1") == "7364"
        with pytest.raises(Exception, match="closed"):
            solver.read(b"1")

    def test_not_bytes(self, client: AceCaptchaClient) -> None:
        with pytest.raises(TypeError, match=r"bytes, not str: 'a\.png'"):
            Solver(client=client).read("a.png")  # type: ignore[arg-type]

    def test_threads(self, api: ApiStub, client: AceCaptchaClient, path: Path) -> None:
        api.script += [str(i) for i in range(40)]
        with (
            Solver(client=client, journal=path, budget=30) as solver,
            ThreadPoolExecutor(8) as pool,
        ):

            def read(i: int) -> bool:
                try:
                    solver.read(b"%d" % i).accepted()
                except BudgetExhausted:
                    return False
                return True

            assert sum(pool.map(read, range(40))) == 30
        assert len(api.calls) == len(rows(path)) == 30

    def test_a_cancelled_reading_is_in_the_journal_with_its_text(
        self, api: ApiStub, client: AceCaptchaClient, path: Path
    ) -> None:
        api.script.append("7364")
        api.gate.clear()

        async def scene(solver: Solver) -> None:
            task = asyncio.create_task(solver.read_async(b"1"))
            await asyncio.to_thread(api.wait_for, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [outcome for *_, outcome, answer in rows(path)] == ["unknown"]
            api.gate.set()
            while rows(path)[0][3] is None:
                await asyncio.sleep(0.01)

        with Solver(client=client, journal=path) as solver:
            run(asyncio.wait_for(scene(solver), 20))
        assert [answer for *_, answer in rows(path)] == ["7364"]


READ_FOR_EVER = """
import signal, sys
from scrapy_acecaptcha import AceCaptchaClient, Solver
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background ignore it
url, path = sys.argv[1:]
Solver(client=AceCaptchaClient("token", url, tasks=True), journal=path).read(b"1")
"""


class TestTasks:
    """What was not fetched costs nothing."""

    @pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
    def test_a_kill(self, api: ApiStub, path: Path, kill: signal.Signals) -> None:
        api.script.append(Task(processing=10**9))
        with subprocess.Popen(
            [sys.executable, "-c", READ_FOR_EVER, api.url, str(path)], stderr=subprocess.DEVNULL
        ) as process:
            while not api.polls and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(kill)
            process.wait(60)
        with sqlite3.connect(path) as db:
            ((task_id, answer),) = db.execute("SELECT task_id, answer FROM calls")
        assert (task_id, answer, api.charged) == (api.polls[0], None, 0)

    def test_a_cancelled_reading_is_not_fetched(self, api: ApiStub, path: Path) -> None:
        api.script.append(Task(processing=1))
        client = AceCaptchaClient(TOKEN, api.url, tasks=True)
        client.pace.learn([0.01])

        async def scene(solver: Solver) -> None:
            reading = asyncio.create_task(solver.read_async(b"1"))
            while not api.polls:
                await asyncio.sleep(0.001)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            while code(path) is None:
                await asyncio.sleep(0.01)

        with Solver(client=client, journal=path) as solver:
            run(asyncio.wait_for(scene(solver), 20))
            assert solver.counts == {"api_requests": 1}
        assert (code(path), len(api.polls), api.charged) == ("not_fetched", 1, 0)
        client.close()

    def test_a_cancelled_call_is_not_sent_again(
        self, api: ApiStub, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scrapy_acecaptcha.recognition.client._pause", lambda *_: 0.3)
        api.script += [(503, {}, {}), "7364"]
        client = AceCaptchaClient(TOKEN, api.url)

        async def scene(solver: Solver) -> None:
            reading = asyncio.create_task(solver.read_async(b"1"))
            while code(path) is None:
                await asyncio.sleep(0.001)
            reading.cancel()
            await asyncio.sleep(0.6)

        with Solver(client=client, journal=path) as solver:
            run(scene(solver))
        assert len(api.calls) == len(rows(path)) == 1
        client.close()


def code(path: Path) -> str | None:
    with sqlite3.connect(path) as db:
        (found,) = db.execute("SELECT max(code) FROM calls").fetchone()
    return found


class TestSolve:
    def test_plain(
        self, search: JsonApi, client: AceCaptchaClient, api: ApiStub, path: Path
    ) -> None:
        api.answers = search.gallery.answer
        api.script.append("WRONG")
        challenge = PlainSearch(search, "court")
        with Solver(client=client, journal=path) as solver:
            result = solver.solve(challenge)
        assert challenge.reply.json()["results"][0] == "court 0"
        assert (result.answer, result.attempts) == (search.gallery.answer(result.image), 2)
        assert [outcome for _, _, outcome, _ in rows(path)] == ["rejected", "accepted"]

    def test_async(self, search: JsonApi, client: AceCaptchaClient, api: ApiStub) -> None:
        api.answers = search.gallery.answer
        challenge = AsyncSearch(search)
        result = run(_awaited(Solver(client=client).solve(challenge)))
        assert (result.attempts, challenge.reply.status_code) == (1, 200)

    def test_a_rule_cleans_the_text_and_has_its_budget(
        self, search: JsonApi, client: AceCaptchaClient, api: ApiStub
    ) -> None:
        api.script += ["?", "?", "?"]
        challenge = PlainSearch(search)
        challenge.rule = CaptchaRule(image="auto", answer=r"\w{5}", budget=2)  # type: ignore[attr-defined]
        with pytest.raises(CaptchaUnsolved, match="budget of 2 API calls"):
            Solver(client=client).solve(challenge)
        assert search.stats == {"captchas": 3}

    @pytest.mark.parametrize("kind", ["threads", "tasks"])
    def test_captchas_of_one_session_are_solved_one_after_the_other(
        self, bound: JsonApi, client: AceCaptchaClient, api: ApiStub, kind: str
    ) -> None:
        api.answers = bound.gallery.answer
        solver = Solver(client=client)
        cls = PlainSearch if kind == "threads" else AsyncSearch
        challenges = [cls(bound, str(i), sid=f"s{i % 2}") for i in range(10)]

        def work(challenge: PlainSearch) -> Any:
            return solver.solve(challenge, session=challenge.http.cookies["sid"])

        async def together() -> None:
            await asyncio.gather(*map(work, challenges))

        if kind == "threads":
            with ThreadPoolExecutor(10) as pool:
                list(pool.map(work, challenges))
        else:
            run(together())
        assert [c.reply.json()["results"][0] for c in challenges] == [f"{i} 0" for i in range(10)]
        assert bound.stats["wrong"] == 0
        assert len(api.calls) == 10

    def test_whoever_waited_and_needs_no_captcha_any_more_pays_nothing(
        self, search: JsonApi, client: AceCaptchaClient, api: ApiStub
    ) -> None:
        api.answers = search.gallery.answer
        api.gate.clear()
        solver = Solver(client=client)

        class Wall(AsyncSearch):
            async def renew(self) -> bool:  # type: ignore[override]
                return False

        async def scene() -> list[Any]:
            walls: list[Any] = [Wall(search) for _ in range(3)]
            tasks = [asyncio.create_task(solver.solve(wall, session=1)) for wall in walls]
            await asyncio.to_thread(api.wait_for, 1)
            tasks[1].cancel()
            api.gate.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        first, cancelled, last = run(scene())
        assert (first.attempts, last.attempts, last.answer) == (1, 0, "")
        assert isinstance(cancelled, asyncio.CancelledError)
        assert len(api.calls) == 1
        assert solver._turns._lines == {}

    def test_forgotten_async(self, search: JsonApi, client: AceCaptchaClient) -> None:
        challenge: Any = PlainSearch(search)
        challenge.image = lambda: asyncio.sleep(0)
        with pytest.raises(TypeError, match="must be `async def`"):
            Solver(client=client).solve(challenge)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


class SearchSpider(CollectingSpider):
    """Searches behind a captcha that no rule describes."""

    async def parse(self, response: Response) -> Any:
        challenge = SpiderSearch(self, json.loads(response.text)["query"])
        solver = Solver.from_crawler(self.crawler)
        await solver.solve(challenge, session=response.meta.get("session"))
        self.crawl.pages.append(challenge.reply)


class SpiderSearch:
    def __init__(self, spider: CollectingSpider, query: str) -> None:
        self.spider = spider
        self.query = query
        self.site = spider.site.url  # type: ignore[attr-defined]

    async def image(self) -> bytes:
        captcha = (await self._download(Request(f"{self.site}/api/captcha"))).json()
        self.id = captcha["id"]
        return base64.b64decode(captcha["image"].partition(",")[2])

    async def submit(self, answer: str) -> None:
        body = {"captcha": self.id, "answer": answer, "query": self.query}
        self.reply = await self._download(JsonRequest(f"{self.site}/api/search", data=body))

    def solved(self) -> bool:
        return self.reply.status == 200

    async def renew(self) -> bool:
        return True

    async def _download(self, request: Request) -> Any:
        return await self.spider.crawler.engine.download_async(request)


def queries(n: int) -> list[Request]:
    return [
        Request(f'data:application/json,{{"query":"q{i}"}}', dont_filter=True) for i in range(n)
    ]


class StartOf(SearchSpider):
    async def start(self) -> Any:
        for request in self.start_from:
            assert isinstance(request, Request)
            yield request.replace(callback=self.parse, errback=self.fail)


class TestInACrawl:
    @pytest.mark.parametrize("concurrency", [1, 32])
    @ensureDeferred
    async def test_a_captcha_that_no_rule_describes(
        self, search: JsonApi, settings: Any, path: Path, concurrency: int
    ) -> None:
        with ApiStub(search.gallery.answer, wrong=0.15, seed=3) as api:
            crawl: Crawl = await run_crawl(
                queries(60),
                settings(
                    ACECAPTCHA_API_BASE_URL=api.url,
                    ACECAPTCHA_JOURNAL=str(path),
                    ACECAPTCHA_BUDGET=200,
                    ACECAPTCHA_MAX_ATTEMPTS=10,
                    CONCURRENT_REQUESTS=concurrency,
                ),
                spider=StartOf,
                site=search,
            )
        found = sorted(json.loads(page.text)["results"][0] for page in crawl.pages)
        assert found == sorted(f"q{i} 0" for i in range(60))
        assert search.stats["solved"] == 60
        wrong = search.stats["wrong"]
        assert wrong > 0
        assert len(api.calls) == api.charged == len(rows(path)) == 60 + wrong
        assert crawl.stats == {
            "challenges": 60,
            "solved": 60,
            "rejected": wrong,
            "api_requests": 60 + wrong,
        }

    @ensureDeferred
    async def test_captchas_of_one_session_are_solved_one_after_the_other(
        self, bound: JsonApi, settings: Any
    ) -> None:
        with ApiStub(bound.gallery.answer) as api:
            crawl = await run_crawl(
                [query.replace(meta={"session": 1}) for query in queries(12)],
                settings(ACECAPTCHA_API_BASE_URL=api.url, CONCURRENT_REQUESTS=8),
                spider=StartOf,
                site=bound,
            )
        assert len(crawl.pages) == len(api.calls) == 12
        assert bound.stats["wrong"] == 0

    @ensureDeferred
    async def test_whoever_waited_and_needs_no_captcha_any_more_pays_nothing(
        self, search: JsonApi, settings: Any
    ) -> None:
        results = []

        class Wall(SpiderSearch):
            async def renew(self) -> bool:
                return False  # the first one has opened it for all

        class WallSpider(StartOf):
            async def parse(self, response: Response) -> Any:
                solver = Solver.from_crawler(self.crawler)
                results.append(await solver.solve(Wall(self, "x"), session="wall"))

        with ApiStub(search.gallery.answer, latency=0.3) as api:
            await run_crawl(
                queries(6),
                settings(ACECAPTCHA_API_BASE_URL=api.url, CONCURRENT_REQUESTS=8),
                spider=WallSpider,
                site=search,
            )
        assert sorted(result.attempts for result in results) == [0, 0, 0, 0, 0, 1]
        assert len(api.calls) == 1

    @ensureDeferred
    async def test_the_end_of_the_crawl_reaches_the_callback(
        self, search: JsonApi, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scrapy_acecaptcha.crawl.waiting.GRACE_SECONDS", 0.1)
        caught: list[BaseException] = []
        tasks: list[Any] = []

        class Stopping(StartOf):
            async def parse(self, response: Response) -> Any:
                solver = Solver.from_crawler(self.crawler)
                if not caught:
                    closing = self.crawler.engine.close_spider_async(reason="enough")
                    tasks.append(asyncio.ensure_future(closing))
                for work in (solver.solve(SpiderSearch(self, "x")), solver.read_async(b"1")):
                    try:
                        await work
                    except CrawlStopped as error:
                        caught.append(error)

        with ApiStub(search.gallery.answer) as api:
            api.gate.clear()
            crawl = await run_crawl(
                queries(1),
                settings(ACECAPTCHA_API_BASE_URL=api.url),
                spider=Stopping,
                site=search,
            )
            api.gate.set()
        assert [type(error) for error in caught] == [CrawlStopped, CrawlStopped]
        assert "failed" not in crawl.stats

    @ensureDeferred
    async def test_a_token_that_is_refused_closes_the_spider(
        self, search: JsonApi, settings: Any
    ) -> None:
        with ApiStub(search.gallery.answer, token="another") as api:
            crawl = await run_crawl(
                queries(5),
                settings(ACECAPTCHA_API_BASE_URL=api.url),
                spider=StartOf,
                site=search,
            )
        assert crawl.reason == "acecaptcha_invalid_token"
        assert crawl.stats["failed"] >= 1

    @ensureDeferred
    async def test_a_crawl_without_the_addon(self, settings: Any) -> None:
        caught: list[BaseException] = []

        class Bare(CollectingSpider):
            async def parse(self, response: Response) -> Any:
                with pytest.raises(SettingsError, match="ADDONS") as error:
                    Solver.from_crawler(self.crawler)
                caught.append(error.value)

        await run_crawl(["data:,x"], settings(ADDONS={}), spider=Bare)
        assert len(caught) == 1


def test_api_errors_reach_the_caller(search: JsonApi) -> None:
    with ApiStub(search.gallery.answer, token="another") as api:
        client = AceCaptchaClient(TOKEN, api.url, retries=0)
        with pytest.raises(ApiAuthError):
            Solver(client=client).solve(PlainSearch(search))


def example_of_the_docs(number: int, search: JsonApi) -> dict[str, Any]:
    text = (Path(__file__).parent.parent / "docs" / "solver.md").read_text()
    namespace: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.S)[number], namespace)
    namespace["API"] = f"{search.url}/api"
    return namespace


def test_the_script_of_the_docs(
    search: JsonApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", TOKEN)
    titles = example_of_the_docs(1, search)["titles"]
    with ApiStub(search.gallery.answer) as api:
        monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", api.url)
        found = list(titles("roads", "bridges"))
    assert found == [f"{query} {i}" for query in ("roads", "bridges") for i in range(3)]
    assert len(rows(tmp_path / "captchas.db")) == 2


@ensureDeferred
async def test_the_spider_of_the_docs(search: JsonApi, settings: Any) -> None:
    namespace = example_of_the_docs(2, search)
    titles: list[str] = []

    class Roads(namespace["RoadsSpider"], CollectingSpider):  # type: ignore[misc, valid-type, name-defined]
        pass

    with ApiStub(search.gallery.answer) as api:
        config = settings(ACECAPTCHA_API_BASE_URL=api.url)
        crawler = CrawlerRunner(Settings({**BASE_SETTINGS, **config})).create_crawler(Roads)
        crawler.signals.connect(
            lambda item: titles.append(item["title"]), signals.item_scraped, weak=False
        )
        await crawler.crawl(start=[], crawl=Crawl())
    assert titles == [f"{query} {i}" for query in ("roads", "bridges") for i in range(3)]
