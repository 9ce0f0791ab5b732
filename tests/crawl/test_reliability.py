"""Nothing lost, nothing overspent: journal, budget, resume, and an API in trouble."""

from __future__ import annotations

import logging
import signal
import socket
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import flask
import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request

from scrapy_acecaptcha import ApiError, CaptchaUnsolved
from tests.crawl_process import finish_crawl, start_crawl
from tests.crawling import run_crawl
from tests.site import RULES, CaptchaSite, Seen
from tests.stub import RESET, ApiStub, Reply

ALL_100 = [f"Record {i}" for i in range(100)]
DOWN: Reply = (500, {"error": {"code": "api_error", "message": "down"}}, {})


def sessions(site: CaptchaSite, n: int, scenario: str = "inplace") -> list[Request]:
    """One request for each of *n* browsing sessions."""
    return [Request(f"{site.url}/{scenario}/record/{i}", meta={"cookiejar": i}) for i in range(n)]


def rows(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as db:
        return db.execute("SELECT outcome, code, answer FROM calls ORDER BY id").fetchall()


# Journal


@ensureDeferred
async def test_every_paid_call_is_written_down_with_its_outcome(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.db"
    api.script += [DOWN, "?!", "WRONG"]
    crawl = await run_crawl(
        [f"{site.url}/inplace/record/1"],
        settings(
            "inplace",
            {"answer": r"\w{5}"},
            ACECAPTCHA_JOURNAL=str(journal),
            ACECAPTCHA_RETRIES=1,
        ),
    )
    right = api.answers(api.calls[-1].image)
    assert rows(journal) == [
        ("error", "api_error", None),
        ("unreadable", "ok", "?!"),
        ("rejected", "ok", "WRONG"),
        ("accepted", "ok", right),
    ]
    assert crawl.stats == {
        "challenges": 1,
        "api_requests": 4,
        "api_errors/api_error": 1,
        "unreadable": 1,
        "rejected": 1,
        "solved": 1,
    }


@ensureDeferred
async def test_with_jobdir_the_journal_is_in_it(
    site: CaptchaSite, settings: Any, tmp_path: Path
) -> None:
    await run_crawl(
        [f"{site.url}/inplace/record/1"], settings("inplace", JOBDIR=str(tmp_path / "job"))
    )
    assert [outcome for outcome, *_ in rows(tmp_path / "job" / "acecaptcha.db")] == ["accepted"]


@ensureDeferred
async def test_images_seen_before_are_answered_for_nothing(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    config = settings("pool", ACECAPTCHA_JOURNAL=str(tmp_path / "journal.db"))
    crawl = await run_crawl(sessions(site, 40, "pool"), config)
    assert crawl.records == ALL_100[:40]
    assert len(api.calls) == len({call.image for call in api.calls}) <= 3
    assert crawl.stats == {
        "challenges": 40,
        "solved": 40,
        "api_requests": len(api.calls),
        "reused": 40 - len(api.calls),
    }


@ensureDeferred
async def test_a_reused_answer_that_is_refused_is_taken_out(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.db"
    config = settings("pool", ACECAPTCHA_JOURNAL=str(journal))
    await run_crawl(sessions(site, 20, "pool"), config)
    with sqlite3.connect(journal) as db:
        db.execute("UPDATE calls SET answer = 'STALE'")
    site.reset()
    crawl = await run_crawl(sessions(site, 20, "pool"), {**config, "RETRY_TIMES": 3})
    assert crawl.records == ALL_100[:20]
    assert 1 <= crawl.stats["rejected"] <= 3, "each stale answer was tried once"


@pytest.mark.slow
def test_kill_9_at_any_point_loses_no_paid_call(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.db"
    config = settings(
        "every_k", ACECAPTCHA_JOURNAL=str(journal), CONCURRENT_REQUESTS=8, LOG_LEVEL="ERROR"
    )
    site.every_k = 1  # every page costs a call
    calls_before_the_end = (1, 2, 3, 5, 7, 9, 12)
    for calls in calls_before_the_end:
        with start_crawl([f"{site.url}/every_k/?n=300"], config) as process:
            try:
                api.wait_for(len(api.calls) + calls, timeout=60)
            finally:
                process.send_signal(signal.SIGKILL)
                process.communicate()
    written = Counter(outcome for outcome, *_ in rows(journal))
    # A call is written down before it is sent, so the last one of a run may not have been sent.
    assert len(api.calls) <= sum(written.values()) <= len(api.calls) + 7
    assert set(written) <= {"accepted", "unknown"}
    assert sum(written.values()) - len(api.calls) <= written["unknown"]


# Budget


@ensureDeferred
async def test_the_budget_closes_the_spider_and_counts_on_after_the_pause(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    config = settings(
        "inplace",
        JOBDIR=str(tmp_path),
        CONCURRENT_REQUESTS=16,
        ACECAPTCHA_BUDGET=25,
    )
    crawl = await run_crawl(sessions(site, 60), config)
    assert crawl.reason == "acecaptcha_budget_exhausted"
    assert len(api.calls) == 25, "sixteen at a time never overshoot"
    assert (len(crawl.records), crawl.errors) == (25, [])
    paused = await run_crawl([], config)
    assert paused.reason == "acecaptcha_budget_exhausted"
    assert len(api.calls) == 25
    resumed = await run_crawl([], {**config, "ACECAPTCHA_BUDGET": 60})
    assert resumed.reason == "finished"
    assert sorted(crawl.records + resumed.records) == sorted(ALL_100[:60])


@ensureDeferred
async def test_a_crawl_that_finished_leaves_its_successor_a_budget(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    config = settings(
        "inplace",
        {"budget": 3},
        ACECAPTCHA_JOURNAL=str(tmp_path / "journal.db"),
        ACECAPTCHA_BUDGET=3,
    )
    for _ in range(2):
        crawl = await run_crawl(sessions(site, 3), config)
        assert (crawl.reason, crawl.records) == ("finished", ALL_100[:3])
    assert len(api.calls) == 6


@ensureDeferred
async def test_calls_without_a_reply_count_against_the_budget(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    api.script += [RESET, RESET]
    crawl = await run_crawl(
        sessions(site, 3),
        settings("inplace", ACECAPTCHA_BUDGET=3, RETRY_TIMES=0),
    )
    assert len(api.calls) == 3
    assert len(crawl.records) == 1


@ensureDeferred
async def test_a_hosts_budget_fails_its_requests_and_the_crawl_goes_on(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    start = [*sessions(site, 5), Request(f"{site.url}/nocaptcha/record/90")]
    crawl = await run_crawl(start, settings("inplace", {"budget": 2}, RETRY_TIMES=2))
    assert crawl.reason == "finished"
    assert len(crawl.records) == 3
    assert "Record 90" in crawl.records
    assert [type(error) for error in crawl.errors] == [CaptchaUnsolved] * 3
    assert "budget of 2 API calls" in str(crawl.errors[0])
    assert len(api.calls) == 2


@ensureDeferred
async def test_a_rules_budget_is_for_all_ports_that_it_covers(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    rule = {**RULES["inplace"], "budget": 3}
    path = str(tmp_path / "captchas.db")
    with CaptchaSite() as other:
        api.answers = lambda image: site.answers(image) or other.answers(image)
        crawl = await run_crawl(
            [*sessions(site, 3), *sessions(other, 3)],
            settings(ACECAPTCHA_RULES={"127.0.0.1": rule}, ACECAPTCHA_JOURNAL=path),
        )
    assert len(crawl.records) == len(crawl.errors) == 3
    assert len(api.calls) == 3


# Fatal answers


@ensureDeferred
async def test_an_account_that_runs_dry_after_30_sessions_loses_no_page(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    used_up: Reply = (403, {"error": {"code": "used_up", "message": "no balance"}}, {})

    def right(image: bytes) -> str:
        return api.answers(image) or ""

    api.script += [right] * 30 + [used_up] * 1000
    config = settings("inplace", JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=16)
    crawl = await run_crawl(sessions(site, 100), config)
    assert crawl.reason == "acecaptcha_used_up"
    assert crawl.errors == []
    assert len(crawl.records) == 30
    assert len(api.calls) <= 30 + 16, "calls under way may fail too, but none is sent after that"
    api.script.clear()
    resumed = await run_crawl([], config)
    assert sorted(crawl.records + resumed.records) == sorted(ALL_100), "each exactly once"


# A site in trouble


@ensureDeferred
async def test_an_image_whose_download_breaks_off_has_the_request_made_again(
    site: CaptchaSite, api: ApiStub, settings: Any
) -> None:
    broken: list[Seen] = []

    def break_off(seen: Seen) -> None:
        if "captcha." in seen.path and len(broken) < 2:
            broken.append(seen)
            flask.request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

    site.on_request = break_off
    crawl = await run_crawl([f"{site.url}/inplace/record/1"], settings("inplace", RETRY_TIMES=1))
    assert len(broken) == 2, "RetryMiddleware has given up"
    assert (crawl.records, crawl.errors) == (["Record 1"], [])
    assert len(api.calls) == 1


# An API in trouble


@ensureDeferred
async def test_an_outage_stops_the_calls_and_one_probe_at_a_time_ends_it(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("scrapy_acecaptcha.recognition.circuit_breaker.FAILURES", 5)
    monkeypatch.setattr("scrapy_acecaptcha.recognition.circuit_breaker.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("scrapy_acecaptcha.recognition.circuit_breaker.LONGEST_PAUSE", 0.05)
    api.script += [DOWN] * 12
    crawl = await run_crawl(
        sessions(site, 40), settings("inplace", CONCURRENT_REQUESTS=4, RETRY_TIMES=3)
    )
    assert crawl.records == ALL_100[:40]
    assert len(api.calls) == 52
    said = [r.getMessage() for r in caplog.records if "recognition API" in r.getMessage()]
    assert len(said) == 2, "once that calls stop, once that they go on"
    assert "5 times in a row" in said[0]
    assert said[1] == "The recognition API is back"


@ensureDeferred
async def test_beyond_patience_the_error_is_raised(
    site: CaptchaSite, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scrapy_acecaptcha.recognition.circuit_breaker.FAILURES", 2)
    monkeypatch.setattr("scrapy_acecaptcha.recognition.circuit_breaker.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("scrapy_acecaptcha.recognition.circuit_breaker.PATIENCE", 0.1)
    with ApiStub(site.answers, script=[DOWN] * 1000) as api:
        crawl = await run_crawl(
            sessions(site, 6),
            settings(
                "inplace",
                ACECAPTCHA_API_BASE_URL=api.url,
                CONCURRENT_REQUESTS=6,
                RETRY_TIMES=0,
            ),
        )
    assert len(crawl.errors) == 6
    assert all(isinstance(error, ApiError) for error in crawl.errors)


@ensureDeferred
async def test_retry_after_is_respected(
    site: CaptchaSite, api: ApiStub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    from scrapy_acecaptcha.recognition import client

    real = client._pause

    def noted(retry: int, error: ApiError) -> float:
        pauses.append(real(retry, error))
        return 0

    monkeypatch.setattr(client, "_pause", noted)
    slow = (429, {"error": {"code": "too_many_requests"}}, {"Retry-After": "7"})
    api.script += [slow, slow]
    crawl = await run_crawl(
        [f"{site.url}/inplace/record/1"], settings("inplace", ACECAPTCHA_RETRIES=4)
    )
    assert crawl.records == ["Record 1"]
    assert pauses == [7, 7]


@pytest.mark.slow
def test_kill_9_and_resume_in_a_new_process(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    """A journal that a killed process left behind works for the next one."""
    config = settings("inplace", ACECAPTCHA_JOURNAL=str(tmp_path / "journal.db"))
    api.gate.clear()
    with start_crawl([f"{site.url}/inplace/?n=10"], config) as process:
        try:
            api.wait_for(1, timeout=60)  # on a busy machine a process takes its time to start
        finally:
            process.kill()
            process.communicate()
    api.gate.set()
    result = finish_crawl(start_crawl([f"{site.url}/inplace/?n=10"], config))
    assert result["records"] == ALL_100[:10]
    assert [outcome for outcome, *_ in rows(tmp_path / "journal.db")] == ["unknown", "accepted"]


@ensureDeferred
async def test_a_rules_budget_is_for_all_its_ports(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    rule = {"image": "img#captcha", "input": "input[name=code]", "budget": 3}
    config = {**settings("inplace"), "ACECAPTCHA_RULES": {"127.0.0.1": rule}, "RETRY_TIMES": 0}
    start = [
        Request(f"{url}/inplace/record/{i}", meta={"cookiejar": f"{url}{i}"})
        for i in range(4)
        for url in (site.url, site.second_url)
    ]
    crawl = await run_crawl(start, {**config, "ACECAPTCHA_JOURNAL": str(tmp_path / "j.db")})
    assert len(api.calls) == len(crawl.records) == 3
    assert all(isinstance(error, CaptchaUnsolved) for error in crawl.errors)
