"""A crawl that is stopped ends in seconds, whatever a site does, and JOBDIR keeps everything."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request, signals
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.crawl_process import finish_crawl, start_crawl
from tests.crawling import run_crawl
from tests.site import CaptchaSite
from tests.site.app import Seen
from tests.stub import ApiStub

RECORDS = [f"Record {i}" for i in range(20)]


class Hanging:
    """Makes the site keep every request of a kind waiting, as one does that is down.

    :param kind: "image", "form", or "reload": the first page that is asked for once more
    """

    def __init__(self, site: CaptchaSite, kind: str) -> None:
        self.on_hang: Callable[[], object] = lambda: None
        self.has_hung = threading.Event()
        self._release = threading.Event()
        self._kind = kind
        self._site = site
        self._seen: set[str] = set()
        site.on_request = self._handle

    def end(self) -> None:
        """Answer, and hang no more."""
        self._site.on_request = None
        self._release.set()

    def _handle(self, seen: Seen) -> None:
        again = seen.method == "GET" and seen.path in self._seen
        self._seen.add(seen.path)
        hangs = {
            "image": "captcha." in seen.path,
            "form": seen.method == "POST",
            "reload": again and "/record/" in seen.path,
        }
        if hangs[self._kind] and not self._release.is_set():
            self.has_hung.set()
            self.on_hang()
            self._release.wait(60)


@pytest.fixture
def hang(site: CaptchaSite) -> Iterator[Callable[[str], Hanging]]:
    """Make the site hang where it is told to, until the test is over."""
    made: list[Hanging] = []

    def make(kind: str) -> Hanging:
        made.append(Hanging(site, kind))
        return made[-1]

    yield make
    for hanging in made:
        hanging.end()


@ensureDeferred
@pytest.mark.parametrize(
    ("scenario", "kind"), [("inplace", "image"), ("inplace", "form"), ("through", "reload")]
)
async def test_a_site_that_hangs_does_not_keep_a_crawl_from_stopping(
    site: CaptchaSite,
    settings: Any,
    hang: Callable[[str], Hanging],
    scenario: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("scrapy_acecaptcha.crawl.waiting.GRACE_SECONDS", 0.05)
    hanging = hang(kind)
    config = settings(scenario, JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=8)
    crawlers: list[Any] = []

    def stop() -> None:
        hanging.on_hang = lambda: None
        reactor.callFromThread(lambda: deferred_from_coro(crawlers[0].stop_async()))

    hanging.on_hang = stop
    stopped = await run_crawl([f"{site.url}/{scenario}/?n=20"], config, prepare=crawlers.append)
    assert hanging.has_hung.is_set()
    assert stopped.errors == []
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []
    hanging.end()
    resumed = await run_crawl([], config)
    assert resumed.errors == []
    assert sorted(stopped.records + resumed.records) == sorted(RECORDS)


@ensureDeferred
async def test_a_name_server_that_hangs_does_not_keep_a_crawl_from_stopping(
    lab: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.page = (
        "<form method=post action=http://other.example/><img id=captcha src=/c.png>"
        "<input name=code></form>"
    )
    crawlers: list[Any] = []

    async def hang(host: str) -> list[str]:
        deferred_from_coro(crawlers[0].stop_async())
        await maybe_deferred_to_future(Deferred())
        return []

    monkeypatch.setattr("scrapy_acecaptcha.crawl.waiting.GRACE_SECONDS", 0.05)
    monkeypatch.setattr("scrapy_acecaptcha.crawl.challenge.addresses_of", hang)
    rule = {"image": "#captcha", "hosts": ["other.example"]}
    config = {**settings(), "ACECAPTCHA_RULES": {"127.0.0.1": rule}, "JOBDIR": str(tmp_path)}
    crawl = await run_crawl([lab.url], config, prepare=crawlers.append)
    assert (crawl.reason, crawl.errors, crawl.pages) == ("shutdown", [], [])
    assert crawl.all_stats["scheduler/enqueued/disk"] == 2, "it went back to the scheduler"


@pytest.mark.parametrize("k", [1, 2, 3])
@ensureDeferred
async def test_a_redirect_that_was_brought_back_is_kept(
    site: CaptchaSite, settings: Any, k: int, tmp_path: Path
) -> None:
    """The duplicate filter drops what leads to a captcha again, and the crawl stops just then."""
    site.every_k = k
    config = settings("redirect_again", JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=8)
    dropped: list[Request] = []
    crawlers: list[Any] = []

    def stop(request: Request) -> None:
        dropped.append(request)
        if len(dropped) == 1:
            deferred_from_coro(crawlers[0].stop_async())

    def prepare(crawler: Any) -> None:
        crawlers.append(crawler)
        crawler.signals.connect(stop, signals.request_dropped)

    start = [f"{site.url}/redirect_again/?n=20"]
    stopped = await run_crawl(start, config, prepare=prepare)
    assert stopped.reason == "shutdown"
    assert "/check?" in dropped[0].url
    answered: list[Seen] = []

    def fail_once(seen: Seen) -> None:
        if not answered and seen.path.endswith("/check"):
            answered.append(seen)
            flask.abort(503)

    site.on_request = fail_once
    resumed = await run_crawl([], config)
    assert sorted(stopped.records + resumed.records) == sorted(RECORDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "reactor"),
    [
        (signal.SIGTERM, {}),
        (signal.SIGTERM, {"TWISTED_REACTOR": "twisted.internet.selectreactor.SelectReactor"}),
        (signal.SIGINT, {"TWISTED_REACTOR_ENABLED": False}),
    ],
    ids=["asyncio", "select", "none"],
)
def test_a_signal_while_the_form_hangs(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    hang: Callable[[str], Hanging],
    stop: signal.Signals,
    reactor: dict[str, Any],
    tmp_path: Path,
) -> None:
    hanging = hang("form")
    config = settings("inplace", JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=8, **reactor)
    with start_crawl([f"{site.url}/inplace/?n=20"], config) as process:
        try:
            assert hanging.has_hung.wait(60)
            process.send_signal(stop)
            stopped = finish_crawl(process, timeout=60)  # Scrapy itself would wait for 180 s
        finally:
            process.kill()
    assert (stopped["reason"], stopped["errors"]) == ("shutdown", [])
    assert "Traceback" not in stopped["log"]
    assert "Unhandled" not in stopped["log"]
    hanging.end()
    resumed = finish_crawl(start_crawl([], config))
    assert sorted(stopped["records"] + resumed["records"]) == sorted(RECORDS)
