"""Fixtures that most tests share."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.site import RULES, CaptchaSite
from tests.stub import ApiStub


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
def _lab() -> Iterator[Any]:
    from tests.lab import Lab

    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(_lab: Any) -> Any:
    """A site of one page that the test makes up."""
    _lab.reset()
    return _lab
