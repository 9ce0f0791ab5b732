"""Sessions side by side: `"sessions": N` in a rule, on the real site."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.http import Response
from scrapy.utils.defer import deferred_from_coro
from twisted.internet.threads import deferToThread

from scrapy_acecaptcha import RuleError
from scrapy_acecaptcha.crawl.sessions import Sessions
from scrapy_acecaptcha.rule_book import RuleBook
from tests.crawl_process import finish_crawl, start_crawl
from tests.crawling import CollectingSpider, Crawl, on_other_reactors, run_crawl
from tests.site import CaptchaSite, Scenario
from tests.site.forms import QueryGet, Ticket
from tests.stub import ApiStub

ALL = [f"Record {i}" for i in range(300)]
NO_CAPTCHA = {"image": "img#none"}


def records(site: CaptchaSite, wall: str, n: int, **meta: Any) -> list[Request]:
    return [Request(f"{site.url}/{wall}/record/{i}", meta=dict(meta)) for i in range(n)]


def names(crawl: Crawl) -> Counter[Any]:
    """How many pages came from each session."""
    return Counter(page.meta.get("cookiejar") for page in crawl.pages)


def visitors(site: CaptchaSite, wall: str) -> set[str]:
    """Sessions of the site that solved a captcha."""
    return {s.id for s in site.scenarios[wall].sessions.values() if s.pages}


# Spreading


@pytest.mark.parametrize("concurrency", [1, 8, 32])
@ensureDeferred
async def test_requests_are_spread_and_each_session_solves_its_own(
    site: CaptchaSite, api: ApiStub, settings: Any, concurrency: int
) -> None:
    crawl = await run_crawl(
        records(site, "inplace", 80),
        settings("inplace", {"sessions": 4}, CONCURRENT_REQUESTS=concurrency),
    )
    assert crawl.records == ALL[:80]
    assert len(names(crawl)) == 4
    assert all(json.loads(json.dumps(name)) == name for name in names(crawl))
    assert len(visitors(site, "inplace")) == len(api.calls) == 4
    assert crawl.stats["sessions"] == 4
    assert "sessions_dropped" not in crawl.stats
    assert site.stats["inplace"]["wrong"] + site.stats["inplace"]["spoiled"] == 0


@pytest.mark.parametrize("wall", ["every_k", "redirect_again"])
@ensureDeferred
async def test_walls_that_ask_again_are_passed_in_all_sessions(
    site: CaptchaSite, api: ApiStub, settings: Any, wall: str
) -> None:
    site.every_k = 10
    crawl = await run_crawl(
        records(site, wall, 160), settings(wall, {"sessions": 4}, CONCURRENT_REQUESTS=16)
    )
    assert crawl.records == ALL[:160]
    assert len(names(crawl)) == 4
    assert site.stats[wall]["wrong"] + site.stats[wall]["spoiled"] == 0


@ensureDeferred
async def test_all_sessions_are_solved_at_a_time(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.gate.clear()
    crawling = run_crawl(
        records(site, "query", 24), settings("query", {"sessions": 8}, CONCURRENT_REQUESTS=16)
    )
    await deferToThread(api.wait_for, 8)  # all at once, or this would wait forever
    api.gate.set()
    crawl = await crawling
    assert crawl.records == ALL[:24]
    assert len(api.calls) == 24
    assert api.max_parallel == 8
    assert site.stats["query"]["spoiled"] == 0


@ensureDeferred
async def test_the_others_go_on_while_one_session_is_solved(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    """The first call is not answered before all pages but its own have come."""
    came = Counter[str]()

    def last(image: bytes) -> Any:
        api.script.clear()
        return (200, {"text": site.answers(image)}, {}) if all_came.wait(20) else "WRONG"

    all_came = threading.Event()

    def note(page: Response) -> None:
        came[page.url] += 1
        if len(came) >= 39:
            all_came.set()

    api.script.append(last)
    start = [r.replace(callback=note) for r in records(site, "inplace", 40)]
    await run_crawl(start, settings("inplace", {"sessions": 2}, CONCURRENT_REQUESTS=4))
    assert len(came) == 40
    assert all_came.is_set()


# Whose session


@ensureDeferred
async def test_explicit_cookiejars_and_other_hosts_stay_untouched(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    start = [Request(f"{site.url}/inplace/record/{i}", meta={"cookiejar": i % 2}) for i in range(9)]
    start += [Request(f"{site.other_host_url}/nocaptcha/record/{i}") for i in range(10, 12)]
    crawl = await run_crawl(start, settings("inplace", {"sessions": 4}, CONCURRENT_REQUESTS=8))
    assert names(crawl) == {0: 5, 1: 4, None: 2}
    assert "sessions" not in crawl.stats
    assert len(api.calls) == 2


class Following(CollectingSpider):
    """Asks for a second page in the session of each first one."""

    def keep(self, response: Response) -> Any:
        super().keep(response)
        number = int(response.url.rpartition("/")[2])
        if number < 100:
            jar = response.meta["cookiejar"]
            yield response.follow(
                f"{number + 100}", self.keep, errback=self.fail, meta={"cookiejar": jar}
            )


@ensureDeferred
async def test_a_spider_that_hands_the_session_on_stays_in_it(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        records(site, "inplace", 20),
        settings("inplace", {"sessions": 3}, CONCURRENT_REQUESTS=8),
        spider=Following,
    )
    of = {int(page.url.rpartition("/")[2]): page.meta["cookiejar"] for page in crawl.pages}
    assert len(of) == 40
    assert all(of[i] == of[i + 100] for i in range(20))
    cookies = {
        int(s.path.rpartition("/")[2]): s.cookies
        for s in site.requests
        if s.path.rpartition("/")[2].isdigit()
    }
    assert all(cookies[i] == cookies[i + 100] for i in range(20))


@ensureDeferred
async def test_redirects_images_and_forms_stay_in_the_session(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        records(site, "redirect", 40),
        settings("redirect", {"sessions": 4}, CONCURRENT_REQUESTS=8, ROBOTSTXT_OBEY=True),
    )
    assert crawl.records == ALL[:40]
    assert len(api.calls) == 4
    assert len(visitors(site, "redirect")) == 4
    assert site.stats["redirect"]["spoiled"] == 0


@ensureDeferred
async def test_nothing_of_ours_stands_in_the_meta_of_a_page(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(records(site, "inplace", 2), settings("inplace", {"sessions": 2}))
    for page in crawl.pages:
        assert {key for key in page.meta if "acecaptcha" in key} <= {"acecaptcha_result"}


# Refused answers


@ensureDeferred
async def test_a_session_that_is_refused_is_dropped_and_its_name_keeps_working(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.script += ["WRONG"] * 3
    crawl = await run_crawl(
        records(site, "inplace", 6), settings("inplace", {"sessions": 1 + 1}, RETRY_TIMES=2)
    )
    assert crawl.records == ALL[:6]
    assert crawl.stats["sessions_dropped"] == 1
    assert crawl.stats["sessions"] == 3
    dropped = "acecaptcha:" + site.url.partition("://")[2] + ":1.1"
    assert dropped not in names(crawl)
    crawl = await run_crawl(
        records(site, "inplace", 2, cookiejar=dropped), settings("inplace", {"sessions": 2})
    )
    assert names(crawl) == {dropped: 2}, "in another crawl it is a fresh session's"


@ensureDeferred
async def test_requests_that_wait_in_a_dropped_session_go_on_in_the_fresh_one(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    """Six meet captchas in one session; the first is refused until the session is dropped."""
    api.script += ["WRONG"] * 3
    host = site.url.partition("://")[2]
    crawl = await run_crawl(
        records(site, "inplace", 6, cookiejar=f"acecaptcha:{host}:2.1"),
        settings("inplace", {"sessions": 2}, RETRY_TIMES=1, CONCURRENT_REQUESTS=8),
    )
    assert crawl.records == ALL[:6]
    assert crawl.errors == []
    assert set(names(crawl)) == {f"acecaptcha:{host}:2.2"}
    assert crawl.stats["sessions_dropped"] == 1
    assert len(api.calls) == 4


@pytest.mark.parametrize("wall", ["inplace", "every_k", "query"])
@pytest.mark.parametrize("concurrency", [1, 8, 32])
@ensureDeferred
async def test_wrong_answers(site: CaptchaSite, settings: Any, wall: str, concurrency: int) -> None:
    with ApiStub(site.answers, wrong=0.15, seed=7) as api:
        crawl = await run_crawl(
            records(site, wall, 60),
            settings(
                wall,
                {"sessions": 8, "max_attempts": 2},
                ACECAPTCHA_API_BASE_URL=api.url,
                CONCURRENT_REQUESTS=concurrency,
                RETRY_TIMES=5,
            ),
        )
    assert crawl.records == ALL[:60]
    assert site.stats[wall]["spoiled"] == 0
    assert crawl.stats["sessions"] == 8 + crawl.stats.get("sessions_dropped", 0)


# Retries


class Busy(CollectingSpider):
    """Retries each first page once, as if it had been of no use."""

    def keep(self, response: Response) -> Any:
        assert response.request is not None
        again = get_retry_request(response.request, spider=self, reason="busy", max_retry_times=1)
        if again is None:
            super().keep(response)
        else:
            self.crawl.pages.append(response)
            yield again


@ensureDeferred
async def test_a_retry_that_the_spider_makes_of_a_page_stays_in_its_session(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        records(site, "inplace", 10), settings("inplace", {"sessions": 5}), spider=Busy
    )
    sessions = {page.url: page.meta["cookiejar"] for page in crawl.pages[:10]}
    assert len(crawl.pages) == 20
    assert all(sessions[page.url] == page.meta["cookiejar"] for page in crawl.pages)


class Fails:
    """A downloader middleware that fails each request's first download, beneath our own."""

    def process_response(self, request: Request, response: Response) -> Response:
        if "retry_times" not in request.meta and "record" in request.url:
            return response.replace(status=503, body=b"")
        return response


@pytest.mark.parametrize(("meta", "stays"), [({}, False), ({"cookiejar": "mine"}, True)])
@ensureDeferred
async def test_retries_go_to_another_session_unless_the_spider_chose_it(
    site: CaptchaSite, api: ApiStub, settings: Any, meta: dict[str, Any], stays: bool
) -> None:
    asked: list[str] = []
    site.on_request = lambda seen: asked.append(seen.cookies.get("plain", ""))
    await run_crawl(
        [Request(f"{site.url}/nocaptcha/record/1", meta={**meta, "download_slot": "s"})],
        settings("nocaptcha", {"sessions": 2}, DOWNLOADER_MIDDLEWARES={Fails: 650}),
    )
    assert len(asked) == 2
    assert bool(asked[1]) == stays, "the cookie of the first page"


# JOBDIR, settings, politeness


@ensureDeferred
async def test_a_resumed_crawl_makes_fresh_sessions(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    config = settings(
        "inplace",
        {"sessions": 4},
        CONCURRENT_REQUESTS=8,
        JOBDIR=str(tmp_path),
        CLOSESPIDER_PAGECOUNT=15,
    )
    first = await run_crawl(records(site, "inplace", 60), config, spider=Following)
    assert first.reason == "closespider_pagecount"
    site.reset()
    config["CLOSESPIDER_PAGECOUNT"] = 0
    second = await run_crawl([], config, spider=Following)
    assert second.errors == []
    assert second.reason == "finished"
    came = Counter(page.url for page in first.pages + second.pages)
    assert set(came.values()) == {1}
    assert len(came) == 120


@ensureDeferred
async def test_requests_that_wait_for_a_session_are_kept_when_the_crawl_stops(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    api.gate.clear()
    config = settings(
        "queryget",
        {"fields": {"exact": "yes"}, "sessions": 2},
        CONCURRENT_REQUESTS=4,
        JOBDIR=str(tmp_path),
    )
    crawlers: list[Crawler] = []
    crawling = run_crawl(records(site, "queryget", 20), config, prepare=crawlers.append)
    await deferToThread(api.wait_for, 2)
    assert crawlers[0].engine is not None
    closing = deferred_from_coro(crawlers[0].engine.close_spider_async(reason="enough"))
    first = await crawling
    await closing
    assert (first.reason, first.pages, first.errors) == ("enough", [], [])
    api.gate.set()
    second = await run_crawl([], config)
    assert second.records == ALL[:20]
    assert second.errors == []


@on_other_reactors
@pytest.mark.slow
@pytest.mark.parametrize("wall", ["query", "every_k"])
def test_other_reactors(
    site: CaptchaSite, api: ApiStub, settings: Any, wall: str, reactor: dict[str, Any]
) -> None:
    config = settings(wall, {"sessions": 4}, CONCURRENT_REQUESTS=8, **reactor)
    result = finish_crawl(start_crawl([f"{site.url}/{wall}/?n=60"], config))
    assert result["errors"] == []
    assert result["records"] == ALL[:60]
    assert site.stats[wall]["wrong"] + site.stats[wall]["spoiled"] == 0


@ensureDeferred
async def test_hosts_that_a_rule_covers_share_its_sessions(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    """As their cookies may be common, too: here two ports of one host."""
    start = [
        Request(f"{url}/inplace/record/{i}")
        for i in range(10)
        for url in (site.url, site.second_url)
    ]
    rule = {"image": "img#captcha", "input": "input[name=code]", "sessions": 2}
    config = settings(CONCURRENT_REQUESTS=8, ACECAPTCHA_RULES={"127.0.0.1": rule})
    crawl = await run_crawl(start, config)
    assert len(crawl.records) == 20
    assert len(names(crawl)) == len(api.calls) == 2
    assert crawl.stats["sessions"] == 2
    assert site.stats["inplace"]["wrong"] + site.stats["inplace"]["spoiled"] == 0


@ensureDeferred
async def test_a_rule_of_a_request_has_sessions_of_its_own(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    rule = {"image": "img#captcha", "input": "input[name=code]", "sessions": 3}
    crawl = await run_crawl(
        records(site, "inplace", 12, acecaptcha=rule), settings(CONCURRENT_REQUESTS=4)
    )
    assert crawl.records == ALL[:12]
    assert len(names(crawl)) == len(api.calls) == 3


@ensureDeferred
async def test_captchas_bound_to_no_session_are_spread_all_the_same(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        records(site, "inplace", 8), settings("inplace", {"sessions": 4, "session": False})
    )
    assert set(names(crawl).values()) == {2}


@ensureDeferred
async def test_without_cookies_the_crawl_does_not_start(site: CaptchaSite, settings: Any) -> None:
    host = site.url.partition("://")[2]
    with pytest.raises(RuleError, match=f"{host}.*'sessions'.*COOKIES_ENABLED"):
        await run_crawl(
            records(site, "inplace", 1),
            settings("inplace", {"sessions": 2}, COOKIES_ENABLED=False),
        )
    crawl = await run_crawl(
        records(site, "inplace", 1, acecaptcha={"sessions": 2}),
        settings("inplace", COOKIES_ENABLED=False),
    )
    assert isinstance(crawl.error, RuleError)


@pytest.mark.parametrize(
    "more",
    [{"DOWNLOAD_DELAY": 0.05, "DOWNLOAD_DELAY_JITTER": 0}, {"CONCURRENT_REQUESTS_PER_DOMAIN": 2}],
    ids=["delay", "per domain"],
)
@ensureDeferred
async def test_politeness_stays_scrapys(
    site: CaptchaSite, api: ApiStub, settings: Any, more: dict[str, Any]
) -> None:
    slots: list[Any] = []

    def prepare(crawler: Any) -> None:
        from scrapy import signals

        def note(request: Request, spider: Any) -> None:
            slots.append(crawler.engine.downloader.slots.copy())
            (slot,) = slots[-1].values()
            assert len(slot.transferring) <= slot.concurrency
            limits.append((slot.concurrency, slot.delay, len(slot.transferring)))

        crawler.signals.connect(note, signals.request_left_downloader, weak=False)

    limits: list[tuple[int, float, int]] = []
    crawl = await run_crawl(
        records(site, "inplace", 16),
        settings("inplace", {"sessions": 8}, CONCURRENT_REQUESTS=16, **more),
        prepare=prepare,
    )
    assert crawl.records == ALL[:16]
    assert {len(s) for s in slots} == {1}, "one slot, the host's"
    most = more.get("CONCURRENT_REQUESTS_PER_DOMAIN", 64)
    assert {(c, d) for c, d, _ in limits} == {(most, more.get("DOWNLOAD_DELAY", 0))}


# A query costs one download less


@pytest.mark.parametrize("sessions", [1, 4])
@ensureDeferred
async def test_queries_download_their_form_once(
    site: CaptchaSite, api: ApiStub, settings: Any, sessions: int
) -> None:
    rule = {"fields": {"unused": ""}, "sessions": sessions}
    crawl = await run_crawl(
        records(site, "queryget", 40), settings("queryget", rule, CONCURRENT_REQUESTS=8)
    )
    assert crawl.records == ALL[:40]
    assert len(api.calls) == 40
    assert "replayed" not in crawl.stats
    assert len(site.requests) == 3 * 40


@ensureDeferred
async def test_a_captcha_each_time_is_learnt(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(records(site, "query", 80), settings("query", CONCURRENT_REQUESTS=8))
    assert crawl.records == ALL[:80]
    assert crawl.stats["replayed"] <= 4 * 8
    assert site.stats["query"]["spoiled"] == 0


@ensureDeferred
async def test_pages_without_a_captcha_do_not_wait_for_each_other(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    """All but the first are on their way together, or this would wait forever."""
    together = threading.Barrier(8)

    def meet(seen: Any) -> None:
        if seen.path.endswith("/record/0"):
            return
        together.wait(20)

    site.on_request = meet
    rule = {**NO_CAPTCHA, "fields": {"q": "x"}}
    crawl = await run_crawl(
        records(site, "nocaptcha", 9), settings("nocaptcha", rule, CONCURRENT_REQUESTS=9)
    )
    assert crawl.records == ALL[:9]


class Drops:
    """A downloader middleware that loses requests which have taken the gate."""

    def process_response(self, request: Request, response: Response) -> Response:
        from scrapy.exceptions import IgnoreRequest

        if request.url.endswith("0"):
            raise IgnoreRequest("dropped on its way in")
        return response


@ensureDeferred
async def test_a_dropped_request_does_not_keep_the_gate_that_it_took(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        records(site, "queryget", 12),
        settings(
            "queryget",
            {"fields": {"unused": ""}},
            CONCURRENT_REQUESTS=8,
            DOWNLOADER_MIDDLEWARES={Drops: 650},
        ),
    )
    assert len(crawl.records) == 10


@ensureDeferred
async def test_a_captcha_each_time_on_a_page_of_its_own(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    """The request that is redirected to the check page goes on with the gate that it took."""
    site.every_k = 1
    crawl = await run_crawl(
        records(site, "redirect_again", 8),
        settings("redirect_again", {"fields": {"unused": ""}}, CONCURRENT_REQUESTS=8),
    )
    assert crawl.records == ALL[:8]
    assert len(api.calls) == 8
    assert site.stats["redirect_again"]["spoiled"] == 0


# Captchas that are bound to no session


@pytest.mark.parametrize(
    ("scenario", "more", "told"),
    [
        (Ticket, {}, "up to 8 times as fast"),
        (Ticket, {"sessions": 4}, "up to 2 times as fast"),
        (Ticket, {"sessions": 8}, ""),
        (Ticket, {"session": False}, ""),
        (QueryGet, {"fields": {"exact": "yes"}}, ""),
    ],
)
@ensureDeferred
async def test_captchas_bound_to_no_session_are_told_of_once(
    caplog: pytest.LogCaptureFixture, scenario: type[Scenario], more: dict[str, Any], told: str
) -> None:
    with CaptchaSite([scenario]) as site, ApiStub(site.answers) as api:
        settings = {
            "ACECAPTCHA_RULES": {"127.0.0.1": {**scenario.rule, **more}},
            "ACECAPTCHA_API_BASE_URL": api.url,
            "CONCURRENT_REQUESTS": 8,
        }
        with caplog.at_level("INFO", "scrapy_acecaptcha"):
            crawl = await run_crawl(records(site, scenario.name, 12), settings)
    assert crawl.records == ALL[:12]
    assert len(api.calls) == 12
    hints = [r.getMessage() for r in caplog.records if '"session": False' in r.getMessage()]
    assert len(hints) == bool(told)
    assert told in "".join(hints)


# In a browser


def test_browser_contexts_are_not_spread_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions = Sessions(
        RuleBook({"example.org": {"image": "img", "sessions": 2}}), has_cookies=True
    )
    for i in range(2):
        request = Request(f"http://example.org/{i}", meta={"playwright": True})
        assert sessions.pool(request) is None
    (warning,) = caplog.records
    assert "example.org" in warning.getMessage()
    assert "playwright_context" in warning.getMessage()
