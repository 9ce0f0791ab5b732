"""Does the event loop go on while ten Playwright pages wait for the API?

Run as ``python -m benchmarks.heartbeat SITE API SECONDS ROUNDS``. Prints JSON: for each round, by
how many seconds the latest heartbeat was late while the ten pages only waited, while they were
being solved, and of that while the API was at work for all ten.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from benchmarks.servers import RULE
from scrapy_acecaptcha import AceCaptchaClient
from scrapy_acecaptcha.playwright import solve_captcha
from scripts.browser import launch_options

PAGES = 10
BEAT = 0.005  # seconds


class CountingClient(AceCaptchaClient):
    """Knows how many calls are under way."""

    under_way = 0

    async def recognize_async(self, image: bytes, **options: Any) -> str:
        self.under_way += 1
        try:
            return await super().recognize_async(image, **options)
        finally:
            self.under_way -= 1


async def gaps(work: list[Coroutine[Any, Any, Any]], client: CountingClient) -> tuple[float, float]:
    """Seconds by which the latest beat was late while *work* was done.

    Over all of it, and while the API was at work for all pages.
    """
    worst = worst_in_calls = 0.0
    tasks = asyncio.gather(*work)
    while not tasks.done():
        before, called = time.perf_counter(), client.under_way
        await asyncio.sleep(BEAT)
        late = time.perf_counter() - before - BEAT
        worst = max(worst, late)
        if called == client.under_way == PAGES:
            worst_in_calls = max(worst_in_calls, late)
    await tasks
    return worst, worst_in_calls


@asynccontextmanager
async def pages(browser: Browser, url: str) -> AsyncIterator[list[Page]]:
    """Ten pages with a captcha, each in a session of its own."""
    contexts = [await browser.new_context() for _ in range(PAGES)]
    opened = [await context.new_page() for context in contexts]
    for page in opened:
        await page.goto(url)
    yield opened
    for context in contexts:
        await context.close()


async def main(site: str, api: str, seconds: str, rounds: str) -> None:
    url = f"{site}/heartbeat/record/1"
    late: dict[str, list[float]] = {"waiting": [], "solving": [], "calling": []}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())
        with CountingClient("token", f"{api}/heartbeat/{seconds}") as client:
            for _ in range(int(rounds)):
                async with pages(browser, url) as ten:
                    waiting = [page.wait_for_timeout(float(seconds) * 1000) for page in ten]
                    late["waiting"].append((await gaps(waiting, client))[0])
                    solving = [solve_captcha(page, RULE, client=client) for page in ten]
                    for kind, worst in zip(
                        ("solving", "calling"), await gaps(solving, client), strict=True
                    ):
                        late[kind].append(worst)
        await browser.close()
    print(json.dumps(late))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
