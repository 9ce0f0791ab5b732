"""Fixtures that most tests share."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from scrapy_acecaptcha import AceCaptchaClient
from scripts.browser import find_browser
from scripts.prepare_tests import find_redis, in_ci
from tests.crawling import TOKEN
from tests.redis_server import RedisServer
from tests.register import Register
from tests.site import RULES, CaptchaSite
from tests.stub import ApiStub

# The same examples in every run; `pytest --hypothesis-profile=search` looks for other ones.
hypothesis.settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None, max_examples=50
)
hypothesis.settings.register_profile("search", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("suite")

# A test that asks for one of these needs Chromium, or Redis, and is marked so.
NEEDS = {
    "browser": {"browser", "sync_browser", "async_browser", "in_browser", "browser_crawls"},
    "redis": {"redis_server"},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, fixtures in NEEDS.items():
            if fixtures.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(marker)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a program that is not here; in CI, fail."""
    for marker, missing in (("browser", _missing_browser), ("redis", _missing_redis)):
        if item.get_closest_marker(marker) and (reason := missing()):
            (pytest.fail if in_ci() else pytest.skip)(reason)


@cache
def _missing_browser() -> str:
    return "" if find_browser() else "needs Chromium: python scripts/browser.py"


def _missing_redis() -> str:
    return "" if find_redis() else "needs redis-server: python -m scripts.prepare_tests"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may ever reach a real account."""
    monkeypatch.delenv("ACEDATACLOUD_API_TOKEN", raising=False)
    monkeypatch.delenv("ACEDATACLOUD_API_BASE_URL", raising=False)


@pytest.fixture(scope="session")
def _site() -> Iterator[CaptchaSite]:
    with CaptchaSite() as site:
        yield site


@pytest.fixture
def site(_site: CaptchaSite) -> Iterator[CaptchaSite]:
    """The site with captchas, as new."""
    _site.reset()
    yield _site
    _site.reset()


@pytest.fixture
def api(site: CaptchaSite) -> Iterator[ApiStub]:
    """The recognition API, which never errs unless a test tells it to."""
    with ApiStub(site.answers) as stub:
        yield stub


@pytest.fixture
def client(api: ApiStub) -> Iterator[AceCaptchaClient]:
    """A client of it that does not try again."""
    with AceCaptchaClient(TOKEN, api.url, retries=0) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal may be."""
    return tmp_path / "captchas.db"


@pytest.fixture
def settings(site: CaptchaSite, api: ApiStub) -> Any:
    """Make the settings of a crawl of one scenario: settings("inplace", RETRY_TIMES=2)."""

    def make(scenario: str = "", rule: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        host = site.url.partition("://")[2]
        fields = {**(RULES[scenario] if scenario else {}), **(rule or {})}
        return {
            "ACECAPTCHA_API_BASE_URL": api.url,
            "ACECAPTCHA_RULES": {host: fields} if fields else {},
            **more,
        }

    return make


@pytest.fixture(scope="session")
def sync_browser() -> Iterator[Any]:
    """Chromium behind Playwright's sync API."""
    from tests.browsers import SyncBrowser

    running = SyncBrowser()
    yield running
    running.close()


@pytest.fixture(scope="session")
def async_browser() -> Iterator[Any]:
    """Chromium behind Playwright's async API."""
    from tests.browsers import AsyncBrowser

    running = AsyncBrowser()
    yield running
    running.close()


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Any:
    """Chromium by one of Playwright's APIs: half of the tests by each, or `both_apis`.

    The front end's steps are the same for both, so one is enough to tell what a step does.
    """
    kind = getattr(request, "param", None)
    kind = kind or ("sync", "async")[zlib.crc32(request.node.name.encode()) % 2]
    return request.getfixturevalue(f"{kind}_browser")


@pytest.fixture(scope="session")
def browser_crawls() -> Iterator[dict[str, Any]]:
    """The settings of a crawl that downloads by scrapy-playwright, in a browser for all of them."""
    from pytest_twisted import blockon
    from scrapy.utils.defer import deferred_from_coro

    from tests.crawl_browser import BrowserLender, crawl_settings

    yield crawl_settings()
    blockon(deferred_from_coro(BrowserLender.stop()))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server for the tests of one process; who uses it begins with flushall()."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def _lab() -> Iterator[Any]:
    from tests.lab import Lab

    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(_lab: Any) -> Any:
    """A site of one page that the test makes up."""
    _lab.reset()
    return _lab


@pytest.fixture(scope="session")
def _register() -> Iterator[Register]:
    made = Register()
    made.server.start()
    yield made
    made.server.stop()


@pytest.fixture
def register(_register: Register) -> Register:
    """A site that the test makes up of a view."""
    _register.reset(lambda path: "")
    return _register


@pytest.fixture
def reader(register: Register) -> Iterator[ApiStub]:
    """The recognition API that can read the register's captchas."""
    with ApiStub(register.gallery.answer) as stub:
        yield stub
