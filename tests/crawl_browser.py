"""Chromium for crawls: one for all crawls of a process, lent to each by a browser provider."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from playwright.async_api import async_playwright

from scripts.browser import launch_options

HANDLER = "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler"


def crawl_settings() -> dict[str, Any]:
    """The settings of a crawl that downloads by scrapy-playwright."""
    return {
        "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
        "PLAYWRIGHT_BROWSER_PROVIDER": "tests.crawl_browser.BrowserLender",
        "PLAYWRIGHT_LAUNCH_OPTIONS": launch_options(),  # where scrapy-playwright knows no providers
        "CONCURRENT_REQUESTS": 4,
        "LOG_LEVEL": "INFO",
    }


class LentBrowser:
    """A browser that goes on when the crawl that has it ends."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.new_context = browser.new_context

    def on(self, event: str, listener: Any) -> None:
        """Tell nobody of its end, which is that of all tests."""

    async def close(self) -> None:
        """Leave it to the next crawl; scrapy-playwright has closed its contexts."""


class BrowserLender:
    """A browser provider of scrapy-playwright."""

    _stack = AsyncExitStack()
    _browser: Any = None

    def __init__(self, config: Any) -> None:
        pass

    async def start(self) -> None:
        """Nothing has to be begun."""

    async def launch_browser(self) -> LentBrowser:
        """The browser, launched for the first crawl."""
        cls = type(self)
        if cls._browser is None or not cls._browser.is_connected():
            playwright = await cls._stack.enter_async_context(async_playwright())
            cls._browser = await cls._stack.enter_async_context(
                await playwright.chromium.launch(**launch_options())
            )
        return LentBrowser(cls._browser)

    async def launch_persistent_context(self, context_kwargs: dict[str, Any]) -> Any:
        """No test asks for one."""
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing has to be ended."""

    @classmethod
    async def stop(cls) -> None:
        """Close the browser after the last crawl."""
        cls._browser = None
        await cls._stack.aclose()
