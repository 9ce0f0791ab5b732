"""Real browsers for the tests, one for each of Playwright's APIs, each in a thread of its own.

Test bodies are generators that yield Playwright's calls, as the code under test does: one body is
run on both APIs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.async_api import async_playwright
from playwright.sync_api import sync_playwright

from scrapy_acecaptcha.flow import Steps, drive, drive_async
from scripts.browser import launch_options

TIMEOUT = 90  # seconds for one test body


class SyncBrowser:
    """Chromium behind the sync API."""

    is_async = False

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "sync-playwright")
        self._stack = ExitStack()
        self.browser: Any = self._thread.submit(self._launch).result(TIMEOUT)

    def _launch(self) -> Any:
        playwright = self._stack.enter_context(sync_playwright())
        return self._stack.enter_context(playwright.chromium.launch(**launch_options()))

    def run(self, steps: Callable[[], Steps[Any]]) -> Any:
        return self._thread.submit(lambda: drive(steps())).result(TIMEOUT)

    def close(self) -> None:
        self._thread.submit(self._stack.close).result(TIMEOUT)
        self._thread.shutdown()


class AsyncBrowser:
    """Chromium behind the async API."""

    is_async = True

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.browser: Any = self._submit(self._launch()).result(TIMEOUT)

    async def _launch(self) -> Any:
        self._playwright = await async_playwright().start()
        return await self._playwright.chromium.launch(**launch_options())

    def _submit(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, steps: Callable[[], Steps[Any]]) -> Any:
        return self._submit(drive_async(steps())).result(TIMEOUT)

    def run_async(self, function: Callable[[], Any]) -> Any:
        """Run a coroutine function, for tests of many things at once."""
        return self._submit(function()).result(TIMEOUT)

    def close(self) -> None:
        async def stop() -> None:
            await self.browser.close()
            await self._playwright.stop()

        self._submit(stop()).result(TIMEOUT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT)
        self.loop.close()


Browser = SyncBrowser | AsyncBrowser

# For tests of what differs between the APIs: dispatch, dialogs, threads, tabs.
both_apis = pytest.mark.parametrize("browser", ["sync", "async"], indirect=True)


def on_page(browser: Browser, body: Callable[[Any], Any], **context_options: Any) -> Any:
    """Run *body* on a page of a fresh browser context, and close the context."""

    def steps() -> Steps[Any]:
        context = yield browser.browser.new_context(**context_options)
        try:
            context.set_default_timeout(10_000)
            page = yield context.new_page()
            return (yield body(page))
        finally:
            yield context.close()

    return browser.run(steps)
