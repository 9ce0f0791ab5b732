"""Measure everything, print one table, write RESULTS.md: ``python -m benchmarks``.

``python -m benchmarks --queue 1000 10000 100000`` measures that row alone, with queues of so many
requests, and prints it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks import rows, walls
from benchmarks.servers import serve
from benchmarks.tables import Row, Servers, side_by_side

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("scrapy-acecaptcha", "Scrapy", "Twisted", "parsel", "lxml", "requests", "playwright")
SOLVES = 20_000
QUEUED = [1_000, 10_000]
HOW = """
Rows are measured one after the other, each crawl in a process of its own, the site and the API in
others; the last four rows, which are about calls, long waits and memory rather than speed, run side
by side. Without and with the add-on take turns, and ratios are medians of such pairs. Pages have
20 kB; five in a hundred speak of captchas in their text, a third has numeric character references.
The site and the API are made to be fast: what is measured is the crawler.

The blocking middleware is `blocking.py`, the clients of other services are as published and
configured as by default, at a stub of their own protocol (`services.py`); CapSolver's answers
images in the first reply, the others are polled.

Longer queues: `python -m benchmarks --queue 1000 10000 100000`, which takes some minutes. They are
compared by the crawl's own CPU time.

Memory is measured on Twisted's epoll reactor, in a crawl that asks for a page whenever it has one,
so that no queue shrinks meanwhile. On the asyncio reactor a crawl grows by 0.7 kB per download with
the add-on and without: Twisted keeps the timeouts that Scrapy has cancelled.

The heartbeat's figure is the longest gap between two beats of 5 ms while the API
was at work for all ten pages; opening, watching and sending ten pages at once is Playwright's own
work.
"""

WHERE = """\
A page without a captcha costs us 30 µs when our two methods are called by themselves, and about 65
in a crawl, where caches are cold and Scrapy's own way to call a middleware comes on top, beside the
2,200 to 2,500 of Scrapy itself. Half of it is the look into the page's source for a word that the
rule's selector needs; the page is parsed only if that word may stand in an attribute. The rest are
a look-up of rule and session, the count of requests in flight, and a note of what a redirect would
take from the request. Pages that had to be parsed cost nothing twice: the spider's own selectors
find them parsed. A quarter of Scrapy's time goes to Python's collections of garbage; the large ones
take 55 ms each, so one more or less in a crawl of 1,500 pages changes a ratio by 0.015. The ratio
of a spider that looks at nothing is the worst there is.

A solve's four downloads take 5 ms of Scrapy's and Twisted's CPU time, 0.7 ms the form, 0.6 ms the
thread of the API's call (which then takes 1 ms itself). With 32 sessions and an API that always
takes a second, all answers came together, then all downloads, then all calls, and the API idled
meanwhile: 0.85 of the ideal. Since answers that come together are passed on 5 ms apart, it is 0.93.
"""


def measure(servers: Servers) -> tuple[list[Row], list[str]]:
    """All rows, and where the time goes."""
    table = [
        rows.throughput(servers, "titles", 7, "a spider that reads each page's title", 0.97),
        rows.throughput(servers, "pages", 3, "at worst: a spider that looks at nothing", None),
        rows.parallel(servers, 1),
        *walls.walls(servers),
        walls.pools(servers),
        walls.growth(servers, *QUEUED),
        rows.latency(servers, 20),
        rows.heartbeat(servers, 2),
        rows.hostile(),
    ]
    *more, profile = side_by_side(
        partial(rows.blocking, servers),
        partial(rows.calls, servers),
        partial(rows.clients, servers, 2),
        partial(rows.memory, servers, SOLVES),
        lambda: list(rows.profiled(servers)),
    )
    return [*table, *more], profile


def as_markdown(table: list[Row]) -> str:
    """The table, with columns that line up in a terminal, too."""
    lines: list[tuple[str, ...]] = [("what", "scrapy-acecaptcha", "otherwise", "must reach", "")]
    mark = {True: "yes", False: "**NO**", None: ""}
    lines += [(r.what, r.ours, r.otherwise, r.target, mark[r.reached]) for r in table]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def machine() -> str:
    """What it was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GB, {platform.platform()}; load average before: {os.getloadavg()[0]:.1f}"
    )


def main() -> int:
    """0 if every row reached what it must."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--queue", type=int, nargs="+", metavar="N", help="this row alone")
    queued = parser.parse_args().queue
    if queued:
        with serve("site") as site, serve("api") as api:
            print(as_markdown([walls.growth(Servers(site, api, ""), *queued)]))
        return 0
    started = time.monotonic()
    measured_on = machine()
    with serve("site") as site, serve("api") as api, serve("services") as services:
        table, profile = measure(Servers(site, api, services))
    seconds = time.monotonic() - started
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    told = as_markdown(table)
    RESULTS.write_text(
        f"# Benchmarks\n\n`make bench`, {date.today()}, took {seconds:.0f} s.\n\n"
        f"- {measured_on}\n- Python {platform.python_version()}, {versions}\n\n"
        f"{told}\n{HOW}\n## Where the time goes\n\n{WHERE}\nBy cProfile, which makes calls of "
        "Python functions look dearer than they are.\n\n" + "\n".join(profile),
        encoding="utf-8",
    )
    print(f"{told}\n\n{seconds:.0f} s; {RESULTS}")
    return int(any(row.reached is False for row in table))


if __name__ == "__main__":
    sys.exit(main())
