"""Does the event loop go on while ten Playwright pages wait for the API?

Run as ``python -m benchmarks.heartbeat SITE API SECONDS ROUNDS``. Prints JSON: for each round the
longest gap between two beats, in seconds, with ten pages that are being solved and with the same
ten pages that merely wait.
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


async def longest_gap(work: list[Coroutine[Any, Any, Any]]) -> float:
    """Seconds by which the latest beat was late while *work* was done."""
    worst = 0.0
    tasks = asyncio.gather(*work)
    while not tasks.done():
        before = time.perf_counter()
        await asyncio.sleep(BEAT)
        worst = max(worst, time.perf_counter() - before - BEAT)
    await tasks
    return worst


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
    gaps: dict[str, list[float]] = {"solving": [], "waiting": []}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())
        with AceCaptchaClient("token", f"{api}/heartbeat/{seconds}") as client:
            for _ in range(int(rounds)):
                async with pages(browser, url) as ten:
                    waiting = [page.wait_for_timeout(float(seconds) * 1000) for page in ten]
                    gaps["waiting"].append(await longest_gap(waiting))
                    solving = [solve_captcha(page, RULE, client=client) for page in ten]
                    gaps["solving"].append(await longest_gap(solving))
        await browser.close()
    print(json.dumps(gaps))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
