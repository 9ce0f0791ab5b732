"""The Scrapy front end, against a real site and a stub of the API over real HTTP."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.utils.test import get_crawler

from scrapy_acecaptcha import (
    AceCaptchaMiddleware,
    ApiError,
    CaptchaFormError,
    CaptchaImageError,
    CaptchaUnsolved,
    RuleError,
    SettingsError,
)
from tests.crawling import TOKEN, run_crawl
from tests.site import HOSTILE_KINDS, RULES, CaptchaSite
from tests.stub import HANG, RESET, ApiStub, Task

# pdf: its records are files; canvas: for browsers only; nocaptcha and hostile: no records.
WALLS = sorted(set(RULES) - {"pdf", "refreshes_on", "canvas", "nocaptcha", "hostile"})
VARIANTS = [
    "datauri/?ws=1",
    "background/?css=block",
    "background/?css=data",
    "svg/?how=data",
    "svg/?how=img",
    "svg/?size=no",
    "otherport/?form=1",
    "otherport/?host=1",
]


def captcha_pages(crawl: Any) -> list[str]:
    return [page.url for page in crawl.pages if b"aptcha" in page.body.split(b"<body", 1)[-1]]


# Every kind of wall


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "records", "concurrency"),
    [(f"{wall}/", 8, 1) for wall in WALLS]  # no inner request waits for a slot of the outer one
    + [(f"{wall}/", 40, 8) for wall in WALLS]
    + [(variant, 20, 8) for variant in VARIANTS],
)
@ensureDeferred
async def test_every_record_arrives_though_answers_are_wrong(
    site: CaptchaSite, settings: Any, path: str, records: int, concurrency: int
) -> None:
    scenario, _, query = path.partition("/")
    with ApiStub(site.answers, wrong=0.15, seed=7) as api:
        crawl = await run_crawl(
            [f"{site.url}/{scenario}/{query or '?'}&n={records}"],
            settings(
                scenario,
                ACECAPTCHA_API_BASE_URL=api.url,
                CONCURRENT_REQUESTS=concurrency,
                RETRY_TIMES=2,
            ),
        )
    assert crawl.errors == []
    assert crawl.records == [f"Record {i}" for i in range(records)]
    if scenario != "query":  # its result pages show the next captcha by design
        assert captcha_pages(crawl) == []
    counted = site.stats[scenario]
    assert (counted["spoiled"], counted["improper"]) == (0, 0)
    assert crawl.stats["solved"] == counted["solved"]
    assert crawl.stats["api_requests"] == counted["solved"] + counted["wrong"] == len(api.calls)


@ensureDeferred
async def test_a_file_behind_the_captcha(site: CaptchaSite, settings: Any) -> None:
    crawl = await run_crawl([f"{site.url}/pdf/record/5"], settings("pdf"))
    (page,) = crawl.pages
    assert page.body.startswith(b"%PDF")
    assert page.flags == ["acecaptcha"]
    assert crawl.stats == {"challenges": 1, "api_requests": 1, "solved": 1}


# What the spider gets


@pytest.mark.parametrize("scenario", ["inplace", "forbidden", "redirect", "through"])
@ensureDeferred
async def test_the_spider_gets_the_page_under_its_own_request(
    site: CaptchaSite, api: ApiStub, settings: Any, scenario: str
) -> None:
    api.script += ["WRONG"]
    url = f"{site.url}/{scenario}/record/3"
    request = Request(url, headers={"X-Mine": "1"}, cb_kwargs={}, priority=7, meta={"mine": [1]})
    crawl = await run_crawl([request], settings(scenario))
    (page,) = crawl.pages
    assert (page.url, page.status) == (url, 200)
    assert page.css("h1.record::text").get() == "Record 3"
    assert page.flags == ["acecaptcha"]
    assert (page.request.url, page.request.method, page.request.body) == (url, "GET", b"")
    assert page.request.headers["X-Mine"] == b"1"
    assert page.meta["mine"] == [1]
    result = page.meta["acecaptcha_result"]
    assert result == {"answer": site_answer(api), "attempts": 2, "elapsed": result["elapsed"]}
    assert isinstance(result["elapsed"], float)
    assert crawl.stats == {"challenges": 1, "api_requests": 2, "rejected": 1, "solved": 1}


def site_answer(api: ApiStub) -> str | None:
    return api.answers(api.calls[-1].image)


@ensureDeferred
async def test_the_request_is_the_spiders_own_object(site: CaptchaSite, settings: Any) -> None:
    seen: list[Any] = []

    def note(crawler: Crawler) -> None:
        from scrapy import signals

        def scheduled(request: Request, spider: Any) -> None:
            seen.append(request)

        crawler.signals.connect(scheduled, signals.request_scheduled, weak=False)

    crawl = await run_crawl([f"{site.url}/inplace/record/1"], settings("inplace"), prepare=note)
    assert [page.request for page in crawl.pages] == seen
    assert crawl.pages[0].request.priority == 0
    assert not crawl.pages[0].request.dont_filter


@ensureDeferred
async def test_a_post_is_made_again_behind_the_wall(site: CaptchaSite, settings: Any) -> None:
    request = Request(
        f"{site.url}/post/search",
        method="POST",
        body=b"term=4",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    crawl = await run_crawl([request], settings("post"))
    (page,) = crawl.pages
    assert crawl.records == ["Record 4"]
    assert (page.request.method, page.request.body) == ("POST", b"term=4")


@pytest.mark.parametrize("rule", [{"session": False}, {}])
@ensureDeferred
async def test_a_post_keeps_its_body_without_a_gate_too(
    site: CaptchaSite, settings: Any, rule: dict[str, Any]
) -> None:
    request = Request(
        f"{site.url}/post/search",
        method="POST",
        body=b"term=4",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    crawl = await run_crawl([request], settings("post", rule))
    assert crawl.records == ["Record 4"]


@ensureDeferred
async def test_what_a_redirect_changes_is_put_back(site: CaptchaSite, settings: Any) -> None:
    request = Request(
        f"{site.url}/through/record/1", headers={"Referer": "http://from.example/"}, priority=39
    )
    crawl = await run_crawl([request], settings("through"))
    (page,) = crawl.pages
    assert page.request.priority == 39
    assert page.request.headers["Referer"] == b"http://from.example/"
    assert site.requests[-1].path == "/through/record/1"
    assert site.requests[-1].headers["Referer"] == "http://from.example/"


@ensureDeferred
async def test_requests_that_inherit_a_responses_meta_get_their_own_pages(
    site: CaptchaSite, settings: Any
) -> None:
    """The meta of a page that was redirected names an address that is not theirs."""
    from tests.crawling import CollectingSpider

    class Inheriting(CollectingSpider):
        def parse(self, response: Any) -> Any:
            self.keep(response)
            for i in range(1, 6):
                yield Request(
                    f"{site.url}/through/record/{i}",
                    self.keep,
                    meta=dict(response.meta),
                    errback=self.fail,
                )

    crawl = await run_crawl(
        [f"{site.url}/through/record/0"], settings("through"), spider=Inheriting
    )
    assert crawl.records == [f"Record {i}" for i in range(6)]


@pytest.mark.parametrize("scenario", ["inplace", "through", "one_check", "nocaptcha"])
@ensureDeferred
async def test_callbacks_see_no_notes_of_ours(
    site: CaptchaSite, settings: Any, scenario: str
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/{scenario}/?n=5"], settings(scenario, CONCURRENT_REQUESTS=4)
    )
    assert len(crawl.pages) == 5
    noted = {key for page in crawl.pages for key in page.meta if key.startswith("_acecaptcha")}
    assert noted == set()
    assert not any(page.request.dont_filter for page in crawl.pages[:1])


@ensureDeferred
async def test_a_page_behind_the_captcha_that_refreshes_is_not_paid_for_in_circles(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/refreshes_on/record/1"], settings("refreshes_on", CLOSESPIDER_TIMEOUT=9)
    )
    assert len(api.calls) == 1
    assert crawl.records == ["Record 1"]


@ensureDeferred
async def test_a_scheduler_that_refuses_is_asked_once_more_only(
    site: CaptchaSite, settings: Any
) -> None:
    from scrapy.core.scheduler import Scheduler

    class Refuses(Scheduler):
        refused = 0

        def enqueue_request(self, request: Request) -> bool:
            if "redirect_urls" in request.meta:
                Refuses.refused += 1
                return False
            return super().enqueue_request(request)

    crawl = await run_crawl(
        [f"{site.url}/through/record/1"], settings("through", SCHEDULER=Refuses)
    )
    assert crawl.pages == []
    assert Refuses.refused == 2


@ensureDeferred
async def test_a_result_does_not_travel_to_the_next_request(
    site: CaptchaSite, settings: Any
) -> None:
    crawl = await run_crawl(
        [Request(f"{site.url}/nocaptcha/record/1", meta={"acecaptcha_result": {"answer": "x"}})],
        settings("inplace"),
    )
    assert "acecaptcha_result" not in crawl.pages[0].meta


@pytest.mark.parametrize(
    ("scenario", "after", "path"),
    [
        ("inplace", "stay", "/inplace/record/1"),
        ("inplace", "return", "/inplace/record/1"),
        ("redirect", "stay", "/redirect/record/1"),
        ("redirect", "auto", "/redirect/record/1"),
        ("through", "auto", "/through/record/1"),
        ("through", "return", "/through/record/1"),
    ],
)
@ensureDeferred
async def test_after(
    site: CaptchaSite, settings: Any, scenario: str, after: str, path: str
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/{scenario}/record/1"], settings(scenario, {"after": after})
    )
    assert [page.url for page in crawl.pages] == [site.url + path]
    assert crawl.records == ["Record 1"]


@ensureDeferred
async def test_after_stay_keeps_the_page_that_the_form_leads_to(
    site: CaptchaSite, settings: Any
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/through/record/1"], settings("through", {"after": "stay"})
    )
    (page,) = crawl.pages
    assert page.url.startswith(f"{site.url}/through/check")
    assert page.request.url == f"{site.url}/through/record/1"


# What goes over the wire


@ensureDeferred
async def test_the_image_is_fetched_once_in_the_pages_session(
    site: CaptchaSite, settings: Any
) -> None:
    url = f"{site.url}/forbidden/record/1"
    request = Request(url, headers={"User-Agent": "mine", "X-Mine": "1"}, meta={"cookiejar": 9})
    await run_crawl([request], settings("forbidden"))
    page, image, form = site.requests[:3]
    # The last one looks, for the first of a rule's answers, whether it is what was asked for.
    assert [seen.method for seen in site.requests] == ["GET", "GET", "POST", "GET"]
    assert image.path.endswith(".png")
    assert image.cookies == form.cookies != page.cookies
    for seen in (image, form):
        assert seen.headers["Referer"] == url
        assert seen.headers["User-Agent"] == "mine"
        assert seen.headers["X-Mine"] == "1"
    assert "Content-Type" not in image.headers


@ensureDeferred
async def test_image_and_form_on_other_hosts_pass_allowed_domains(
    site: CaptchaSite, settings: Any
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/otherport/record/1?host=1"],
        settings("otherport"),
        allowed_domains=["127.0.0.1"],
    )
    assert crawl.records == ["Record 1"]


@ensureDeferred
async def test_secrets_do_not_follow_to_another_host(site: CaptchaSite, settings: Any) -> None:
    request = Request(
        f"{site.url}/otherport/record/1?host=1",
        headers={"Authorization": "Basic x", "Cookie": "a=1"},
        meta={"dont_merge_cookies": True},
    )
    await run_crawl([request], settings("otherport", RETRY_ENABLED=False))
    elsewhere = [seen for seen in site.requests if seen.host.startswith("localhost")]
    assert elsewhere
    assert [
        name for seen in elsewhere for name in seen.headers if name in ("Authorization", "Cookie")
    ] == []


@ensureDeferred
async def test_robots_txt_stays_in_force_for_the_image(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    site.robots = "User-agent: *\nDisallow: /inplace/captcha"
    crawl = await run_crawl(
        [f"{site.url}/inplace/record/1"], settings("inplace", ROBOTSTXT_OBEY=True)
    )
    assert isinstance(crawl.error, CaptchaImageError)
    assert "robots.txt" in str(crawl.error)
    assert api.calls == []


# Opt-in


@ensureDeferred
async def test_pages_without_rule_or_captcha_are_left_alone(
    site: CaptchaSite, settings: Any
) -> None:
    crawl = await run_crawl(
        [f"{site.url}/nocaptcha/record/1", f"{site.url}/nocaptcha/record/2"], settings("inplace")
    )
    assert [page.flags for page in crawl.pages] == [[], []]
    assert crawl.stats == {"challenges": 0}
    assert crawl.all_stats["downloader/request_count"] == 2


@ensureDeferred
async def test_hosts_that_no_rule_names_are_never_touched(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    config = settings("inplace")
    config["ACECAPTCHA_RULES"] = {"example.org": RULES["inplace"]}
    crawl = await run_crawl([f"{site.url}/inplace/record/1"], config)
    assert crawl.records == []
    assert len(crawl.pages) == 1
    assert crawl.stats == {"challenges": 0}
    assert api.calls == []


@ensureDeferred
async def test_meta_false_leaves_the_request_alone(site: CaptchaSite, settings: Any) -> None:
    crawl = await run_crawl(
        [Request(f"{site.url}/inplace/record/1", meta={"acecaptcha": False})], settings("inplace")
    )
    assert crawl.pages[0].flags == []
    assert crawl.stats == {"challenges": 0}


@ensureDeferred
async def test_meta_is_enough_for_a_host_without_a_rule(site: CaptchaSite, settings: Any) -> None:
    request = Request(f"{site.url}/inplace/record/1", meta={"acecaptcha": RULES["inplace"]})
    crawl = await run_crawl([request], settings())
    assert crawl.records == ["Record 1"]


@ensureDeferred
async def test_meta_is_laid_over_the_hosts_rule(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    answer = {"acecaptcha": {"case": "lower", "max_attempts": 1}}
    crawl = await run_crawl(
        [Request(f"{site.url}/inplace/record/1", meta=answer)],
        settings("inplace", RETRY_ENABLED=False),
    )
    assert crawl.stats == {"challenges": 1, "api_requests": 1, "rejected": 1, "failed": 1}
    sent: list[Any] = [seen.body for seen in site.requests if seen.method == "POST"]
    assert site_answer(api).lower().encode() in sent[0]


@ensureDeferred
async def test_a_bad_rule_in_meta_reaches_the_errback(site: CaptchaSite, settings: Any) -> None:
    request = Request(f"{site.url}/inplace/record/1", meta={"acecaptcha": {"imgae": "x"}})
    crawl = await run_crawl([request], settings("inplace"))
    assert isinstance(crawl.error, RuleError)
    assert "'imgae'" in str(crawl.error)
    assert "did you mean 'image'?" in str(crawl.error)


def make(**settings: Any) -> AceCaptchaMiddleware:
    crawler = get_crawler(settings_dict={"ADDONS": {"scrapy_acecaptcha.Addon": 500}, **settings})
    return AceCaptchaMiddleware.from_crawler(crawler)


def test_rules_without_token_stop_the_crawl_before_it_starts() -> None:
    with pytest.raises(SettingsError, match="Set ACECAPTCHA_TOKEN"):
        make(ACECAPTCHA_RULES={"example.org": {"image": "img"}})


@pytest.mark.parametrize(
    "settings", [{}, {"ACECAPTCHA_ENABLED": False, "ACECAPTCHA_RULES": {"a.b": {"image": "img"}}}]
)
def test_not_configured(settings: dict[str, Any]) -> None:
    from scrapy.exceptions import NotConfigured

    with pytest.raises(NotConfigured):
        make(**settings)


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", TOKEN)
    make(ACECAPTCHA_RULES=json.dumps({"example.org": {"image": "img"}}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ACECAPTCHA_RULES": {"a.b": {"image": "img["}}}, "rule for a.b, field 'image': bad CSS"),
        ({"ACECAPTCHA_RULES": "{nope"}, "not valid JSON"),
        ({"ACECAPTCHA_MAX_ATTEMPTS": 0}, "ACECAPTCHA_MAX_ATTEMPTS"),
        ({"ACECAPTCHA_CONCURRENCY": "many"}, "ACECAPTCHA_CONCURRENCY"),
        ({"ACECAPTCHA_TIMEOUT": "soon"}, "ACECAPTCHA_TIMEOUT"),
        ({"ACECAPTCHA_API_BASE_URL": "http://api.example.org"}, "clear text"),
    ],
)
def test_bad_settings_stop_the_crawl_before_it_starts(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make(ACECAPTCHA_TOKEN=TOKEN, **settings)


WITHOUT_REACTOR = """
import sys
from scrapy.crawler import Crawler
from scrapy import Spider
from scrapy_acecaptcha import AceCaptchaMiddleware

crawler = Crawler(Spider, {
    "TWISTED_REACTOR_ENABLED": False,
    "ACECAPTCHA_TOKEN": "x",
    "ACECAPTCHA_RULES": {"example.org": {"image": "img"}},
})
AceCaptchaMiddleware.from_crawler(crawler)
assert "twisted.internet.reactor" not in sys.modules
"""


def test_the_middleware_is_built_without_a_reactor() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_REACTOR], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_add_on_puts_the_middleware_in_its_place() -> None:
    crawler = get_crawler(settings_dict={"ADDONS": {"scrapy_acecaptcha.Addon": 500}})
    assert crawler.settings["DOWNLOADER_MIDDLEWARES"][AceCaptchaMiddleware] == 585


# Answers


@ensureDeferred
async def test_unreadable_images_are_replaced_and_nothing_is_submitted(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.script += ["?!", ""]
    crawl = await run_crawl(
        [f"{site.url}/inplace/record/1"], settings("inplace", {"answer": r"\w{5}"})
    )
    assert crawl.records == ["Record 1"]
    assert crawl.stats == {"challenges": 1, "api_requests": 3, "unreadable": 2, "solved": 1}
    assert site.stats["inplace"]["wrong"] == 0
    assert crawl.pages[0].meta["acecaptcha_result"]["attempts"] == 1


@ensureDeferred
async def test_a_wrong_answer_that_the_page_hides_is_noticed(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.script += ["WRONG"]
    crawl = await run_crawl([f"{site.url}/through_silent/record/1"], settings("through_silent"))
    assert crawl.records == ["Record 1"]
    assert crawl.stats == {"challenges": 1, "api_requests": 2, "rejected": 1, "solved": 1}


# Failure


@ensureDeferred
async def test_unsolved_is_retried_and_then_reaches_the_errback(
    site: CaptchaSite, api: ApiStub, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    api.script += ["WRONG"] * 4
    crawl = await run_crawl(
        [f"{site.url}/inplace/record/1"], settings("inplace", {"max_attempts": 2}, RETRY_TIMES=1)
    )
    error = crawl.error
    assert isinstance(error, CaptchaUnsolved)
    assert error.attempts == 2
    assert error.url == f"{site.url}/inplace/record/1"
    assert crawl.pages == []
    assert crawl.stats == {"challenges": 2, "api_requests": 4, "rejected": 4, "failed": 2}
    assert crawl.all_stats["retry/reason_count/captcha_unsolved"] == 1
    assert crawl.all_stats["retry/max_reached"] == 1
    assert [r.levelname for r in caplog.records if "CaptchaUnsolved" in r.getMessage()] == ["ERROR"]


@pytest.mark.parametrize("how", ["setting", "meta"])
@ensureDeferred
async def test_retries_can_be_switched_off(
    site: CaptchaSite, api: ApiStub, settings: Any, how: str
) -> None:
    api.script += ["WRONG"] * 3
    meta = {"dont_retry": True} if how == "meta" else {}
    crawl = await run_crawl(
        [Request(f"{site.url}/inplace/record/1", meta=meta)],
        settings("inplace", RETRY_ENABLED=how == "meta"),
    )
    assert isinstance(crawl.error, CaptchaUnsolved)
    assert crawl.stats == {"challenges": 1, "api_requests": 3, "rejected": 3, "failed": 1}


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (
            (429, {"error": {"code": "too_many_requests", "message": "slow"}}, {}),
            "too_many_requests",
        ),
        ((500, {"error": {"code": "api_error"}}, {}), "api_error"),
        ((504, {"code": "timeout", "detail": "late", "task_id": "x"}, {}), "timeout"),
        ((502, "<html>Bad Gateway</html>", {}), "api_error"),
        ((200, "junk", {}), "bad_response"),
        ((200, {"success": True}, {}), "bad_response"),
        ((403, {"error": {"code": "forbidden"}}, {}), "forbidden"),
        (RESET, "connection_error"),
        (HANG, "timeout"),
        (Task(processing=10_000), "timeout"),
    ],
)
@ensureDeferred
async def test_api_trouble_is_retried_and_then_reaches_the_errback(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    reply: Any,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scrapy_acecaptcha.recognition.tasks.POLL_SECONDS", 0.02)
    api.script += [reply, reply]
    crawl = await run_crawl(
        [f"{site.url}/inplace/record/1"], settings("inplace", ACECAPTCHA_TIMEOUT=0.3)
    )
    assert isinstance(crawl.error, ApiError)
    assert crawl.error.code == code
    assert crawl.all_stats[f"retry/reason_count/{code}"] == 1
    assert crawl.stats == {
        "challenges": 2,
        "api_requests": 2,
        f"api_errors/{code}": 2,
        "failed": 2,
    }


@ensureDeferred
async def test_a_refusal_that_ends_brings_every_page(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.script += [(500, {"error": {"code": "api_error"}}, {})]
    crawl = await run_crawl([f"{site.url}/inplace/record/1"], settings("inplace"))
    assert crawl.records == ["Record 1"]


FATAL = [
    (401, "invalid_token", "acecaptcha_invalid_token"),
    (401, "token_expired", "acecaptcha_invalid_token"),
    (400, "token_mismatched", "acecaptcha_invalid_token"),
    (400, "no_token", "acecaptcha_invalid_token"),
    (403, "used_up", "acecaptcha_used_up"),
    (429, "used_up", "acecaptcha_used_up"),
    (403, "disabled", "acecaptcha_used_up"),
]


@pytest.mark.parametrize(("status", "code", "reason"), FATAL)
@ensureDeferred
async def test_fatal_api_answers_close_the_spider_and_lose_nothing(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    tmp_path: Path,
    status: int,
    code: str,
    reason: str,
) -> None:
    api.script += [(status, {"success": False, "error": {"code": code, "message": "no"}}, {})]
    config = settings("inplace", JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=8)
    crawl = await run_crawl([f"{site.url}/inplace/?n=30"], config)
    assert crawl.reason == reason
    assert crawl.errors == []
    assert crawl.records == []
    assert crawl.stats["api_requests"] == 1
    again = await run_crawl([f"{site.url}/inplace/?n=30"], config)
    assert again.records == [f"Record {i}" for i in range(30)]
    assert again.reason == "finished"


TYPED: dict[str, tuple[type[Exception], str]] = {
    "src-file": (CaptchaImageError, "file:"),
    "src-ftp": (CaptchaImageError, "ftp:"),
    "src-missing": (CaptchaImageError, "no image"),
    "src-empty": (CaptchaImageError, "no image"),
    "src-404": (CaptchaImageError, "404"),
    "src-html": (CaptchaImageError, "not an image"),
    "src-lying": (CaptchaImageError, "not an image"),
    "src-text": (CaptchaImageError, "not an image"),
    "src-nothing": (CaptchaImageError, "empty"),
    "src-broken": (CaptchaImageError, "base64"),
    "src-big": (CaptchaImageError, "could not be downloaded"),
    "src-loop": (CaptchaImageError, "redirections"),
    "many-images": (CaptchaImageError, "more than 200"),
    "huge-page": (CaptchaImageError, "bytes"),
    "action-file": (CaptchaFormError, "file:"),
    "action-javascript": (CaptchaFormError, "javascript:"),
    "no-form": (RuleError, "form"),
    "no-input": (RuleError, "input"),
}


def test_every_hostile_page_is_tried() -> None:
    assert set(TYPED) == set(HOSTILE_KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPED)
@ensureDeferred
async def test_hostile_pages_end_in_a_typed_error(
    site: CaptchaSite, api: ApiStub, settings: Any, kind: str
) -> None:
    urls = [f"{site.url}/hostile/{kind}", f"{site.url}/nocaptcha/record/1"]
    crawl = await run_crawl(urls, settings("hostile"))
    kind_of_error, says = TYPED[kind]
    assert type(crawl.error) is kind_of_error
    assert says in str(crawl.error)
    assert urls[0] in str(crawl.error)
    assert crawl.records == ["Record 1"], "the crawl goes on"
    assert api.calls == [], "nothing was uploaded"


# Secrets


@ensureDeferred
async def test_the_token_appears_nowhere(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    api.script += [(500, {"error": {"code": "api_error", "message": f"bad {TOKEN}"}}, {}), RESET]
    journal = tmp_path / "journal.db"
    crawl = await run_crawl(
        [f"{site.url}/inplace/?n=3"],
        settings("inplace", ACECAPTCHA_JOURNAL=str(journal), RETRY_TIMES=0),
    )
    assert [call.headers["Authorization"] for call in api.calls] == [f"Bearer {TOKEN}"] * 3
    written = [caplog.text, repr(crawl.errors), repr(crawl.all_stats)]
    written += [repr(vars(error)) for error in crawl.errors]
    written += [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]
    assert [text for text in written if TOKEN in text] == []


@ensureDeferred
async def test_nothing_of_the_page_goes_to_the_api(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    await run_crawl([f"{site.url}/inplace/record/1"], settings("inplace"))
    (call,) = api.calls
    assert list(json.loads(call.body)) == ["image"]
    assert "Cookie" not in call.headers
    assert "Referer" not in call.headers


# What users see


@ensureDeferred
async def test_signals_for_users_extensions(site: CaptchaSite, api: ApiStub, settings: Any) -> None:
    from scrapy_acecaptcha.signals import captcha_failed, captcha_solved

    told: list[tuple[str, str, Any]] = []

    def solved(request: Request, result: Any, spider: Any) -> None:
        told.append(("solved", request.url, result.attempts))

    def failed(request: Request, error: Exception, spider: Any) -> None:
        told.append(("failed", request.url, type(error)))

    def connect(crawler: Crawler) -> None:
        crawler.signals.connect(solved, captcha_solved, weak=False)
        crawler.signals.connect(failed, captcha_failed, weak=False)

    api.script += ["WRONG"]
    url = f"{site.url}/inplace/record/1"
    await run_crawl([url], settings("inplace", {"max_attempts": 1}), prepare=connect)
    assert told == [("failed", url, CaptchaUnsolved), ("solved", url, 1)]


@ensureDeferred
async def test_one_line_a_solve(
    site: CaptchaSite, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await run_crawl([f"{site.url}/inplace/?n=5"], settings("inplace"))
    lines = [r for r in caplog.records if r.name.startswith("scrapy_acecaptcha")]
    assert [line.levelname for line in lines] == ["INFO"]
    assert lines[0].getMessage().startswith("Solved the captcha at ")


def test_progress_is_logged_when_it_changed(caplog: pytest.LogCaptureFixture) -> None:
    from scrapy_acecaptcha.crawl.progress import Progress

    caplog.set_level(logging.INFO)
    crawler = get_crawler()
    caplog.clear()
    progress = Progress(crawler)
    progress.log()
    crawler.stats.inc_value("acecaptcha/challenges", 2)
    progress.log()
    progress.log()
    assert [record.getMessage() for record in caplog.records] == [
        "Captchas met 2, solved 0, failed 0; API calls 0, refused answers 0; requests held 0"
    ]
