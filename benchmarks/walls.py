"""Rows about walls that come back, sessions side by side, and long queues."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

from benchmarks.crawl import run, with_addon
from benchmarks.servers import PER_CAPTCHA, fetch
from benchmarks.tables import Row, Servers, side_by_side

POOLS = (1, 2, 4, 8, 16, 32)
QUERIES = 64
CALL_SECONDS = 0.3
MORE = 1.15  # times what cookiejars set by hand take
WALL_PAGES = 300


def _crawl(servers: Servers, name: str, kind: str, n: int, **more: Any) -> dict[str, Any]:
    """Crawl *n* pages of a kind, and look at what the site has counted.

    :param more: fields of the rule; `jars`: spread by hand; `at_once`; `seconds` of an API call
    """
    jars, at_once = more.pop("jars", 0), more.pop("at_once")
    api = f"{servers.api}/{name}/{more.pop('seconds')}"
    settings = {
        **with_addon(servers.site, api, **more),
        "CONCURRENT_REQUESTS": at_once,
        "ACECAPTCHA_CONCURRENCY": 32,
    }
    pages: dict[str, Any] = {"site": servers.site, "path": f"{name}/{kind}", "n": n}
    crawl = run("jars", settings, jars=jars, **pages) if jars else run("pages", settings, **pages)
    seen = fetch(f"{servers.site}/{name}/stats")
    assert crawl["pages"] == n, f"{name}: {crawl['pages']} of {n} pages came"
    assert not seen.get("wrong"), f"{name}: {seen['wrong']} answers were refused"
    return {**crawl, "requests": seen["requests"]}


def walls(servers: Servers) -> list[Row]:
    """Both kinds of walls, a page at a time and many."""
    rows = []
    per = int(PER_CAPTCHA["away"])
    for at_once in (8, 32):
        taken: dict[str, list[dict[str, Any]]] = {"again": [], "away": []}
        for i in range(2):
            for kind, crawls in taken.items():
                name = f"{kind}{at_once}x{i}"
                crawls.append(
                    _crawl(servers, name, kind, WALL_PAGES, at_once=at_once, seconds=CALL_SECONDS)
                )
        here, away = (median(c["seconds"] for c in crawls) for crawls in taken.values())
        asked = max(crawl["requests"] for crawl in taken["away"]) / WALL_PAGES
        in_place = max(crawl["requests"] for crawl in taken["again"]) / WALL_PAGES
        rows.append(
            Row(
                f"{WALL_PAGES} pages, a captcha each {per} (API of {CALL_SECONDS} s), {at_once} at "
                "a time: a wall that redirects to its check page",
                f"{away:.1f} s, **{away / here:.2f}** of the wall in place; {asked:.2f} requests "
                "a page",
                f"{here:.1f} s and {in_place:.2f} requests a page for a wall in place",
                "<= 1.5, <= 1.3 requests",
                away / here <= 1.5 and asked <= 1.3,
            )
        )
    return rows


def pools(servers: Servers) -> Row:
    """A query form that asks for a captcha each time, with pools of several sizes."""
    query = {"fields": {"q": "smith"}, "at_once": 32, "seconds": CALL_SECONDS}

    def crawl(size: int) -> dict[str, Any]:
        return _crawl(servers, f"pool{size}", "ask", QUERIES, sessions=size, **query)

    waiting = [size for size in POOLS if size <= 4]  # most of their time
    taken = dict(zip(waiting, side_by_side(*(partial(crawl, s) for s in waiting)), strict=True))
    taken |= {size: crawl(size) for size in POOLS if size not in taken}
    most = POOLS[-1]
    pairs = [
        (
            _crawl(servers, f"pair{i}", "ask", 5 * most, sessions=most, **query)["seconds"],
            _crawl(servers, f"jars{i}", "ask", 5 * most, jars=most, **query)["seconds"],
        )
        for i in range(3)
    ]
    ratio = median(pool / by_hand for pool, by_hand in pairs)
    told = ", ".join(f"{size}: {taken[size]['seconds']:.1f} s" for size in POOLS)
    downloads = max(crawl["requests"] for crawl in taken.values()) / QUERIES
    return Row(
        f"{QUERIES} queries, a captcha each (API of {CALL_SECONDS} s), by `sessions`",
        f"{told}; {downloads:.2f} downloads a query; {5 * most} queries in {most} sessions "
        f"**{ratio:.2f}** of the time with cookiejars set by hand",
        f"{median(by_hand for _, by_hand in pairs):.1f} s by hand",
        f"<= {MORE}",
        ratio <= MORE,
    )


def growth(servers: Servers, *queued: int) -> Row:
    """Time and memory of a page behind a wall, as the queue grows."""
    told, cost = [], []
    for n in queued:
        crawl = _crawl(servers, f"queue{n}", "away", n, at_once=16, seconds=0.02)
        cost.append(crawl["cpu"] / n)
        told.append(
            f"{n:,}: {crawl['seconds'] / n * 1000:.1f} ms a page ({cost[-1] * 1000:.2f} of CPU), "
            f"{crawl['bytes_at_the_end'] / 1e6:.0f} MB"
        )
    return Row(
        "pages queued behind a wall that redirects and asks again each 100 pages, 16 at a time",
        f"{'; '.join(told)}: **{cost[-1] / cost[0]:.2f}** of the CPU time a page",
        "",
        "<= 1.2",
        cost[-1] / cost[0] <= 1.2,
    )
