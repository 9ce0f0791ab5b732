"""A crawl in a process of its own: for other reactors, Ctrl-C and kill -9.

Run as ``python -m tests.crawl_process CONFIG``, where CONFIG is JSON with ``start`` (URLs) and
``settings``. Prints one JSON object when the crawl has ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.crawling import BASE_SETTINGS, CollectingSpider, Crawl

ROOT = Path(__file__).parent.parent


def start_crawl(start: list[str], settings: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a crawl as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crawl_process", json.dumps([start, settings])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_crawl(process: subprocess.Popen[str], timeout: float = 100) -> dict[str, Any]:
    """Wait for a crawl to end, and return what it printed."""
    out, log = process.communicate(timeout=timeout)
    assert process.returncode == 0, log[-3000:]
    result: dict[str, Any] = json.loads(out)
    return {**result, "log": log}


def main() -> None:
    start, settings = json.loads(sys.argv[1])
    from scrapy.crawler import AsyncCrawlerProcess, CrawlerProcess

    settings = {**BASE_SETTINGS, "LOG_LEVEL": "INFO", **settings}
    no_reactor = settings.get("TWISTED_REACTOR_ENABLED") is False
    process = (AsyncCrawlerProcess if no_reactor else CrawlerProcess)(settings)
    crawl = Crawl(crawler=(crawler := process.create_crawler(CollectingSpider)))
    process.crawl(crawler, start=start, crawl=crawl)
    process.start()
    print(
        json.dumps(
            {
                "records": crawl.records,
                "pages": len(crawl.pages),
                "errors": [repr(error) for error in crawl.errors],
                "stats": crawl.stats,
                "reason": crawl.reason,
            }
        )
    )


if __name__ == "__main__":
    main()
