"""The rows of the table: each measures one claim against what a user would have otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import other_clients
from benchmarks.crawl import run, with_addon
from benchmarks.hostile import PAGES
from benchmarks.profiles import Profile
from benchmarks.servers import draw, fetch
from benchmarks.services import SECONDS as SERVICE_SECONDS
from benchmarks.tables import Row, Servers
from scrapy_acecaptcha import AceCaptchaClient

CLIENTS_PYTHON = Path(".venv/clients/bin/python")
BLOCKING = {"DOWNLOADER_MIDDLEWARES": {"benchmarks.blocking.BlockingCaptchaMiddleware": 543}}


def throughput(servers: Servers, spider: str, pairs: int, what: str, target: float | None) -> Row:
    """A crawl without captchas, by turns without and with the add-on."""
    pages: dict[str, Any] = {"site": servers.site, "path": "page", "n": 1500}
    addon = with_addon(servers.site)
    runs = [(run(spider, {}, **pages), run(spider, addon, **pages)) for _ in range(pairs)]
    ratio = median(bare["seconds"] / ours["seconds"] for bare, ours in runs)
    cpu = median(bare["cpu"] / ours["cpu"] for bare, ours in runs)
    bare, ours = (1500 / median(r[i]["seconds"] for r in runs) for i in (0, 1))
    return Row(
        f"1,500 captcha-free pages under a rule, {what}",
        f"{ours:.0f} pages/s; **{ratio:.3f}** of bare Scrapy (by CPU time {cpu:.3f})",
        f"{bare:.0f} pages/s without the add-on",
        f">= {target}" if target else "stated",
        ratio >= target if target else None,
    )


def parallel(servers: Servers, runs: int) -> Row:
    """Many sessions at a time: is the API kept busy?"""
    settings = {
        **with_addon(servers.site, f"{servers.api}/parallel/1"),
        "CONCURRENT_REQUESTS": 32,
        "ACECAPTCHA_CONCURRENCY": 32,
    }
    crawls = [
        run("sessions", settings, site=servers.site, path=f"parallel{i}/record", n=320)
        for i in range(runs)
    ]
    assert all(crawl["pages"] == crawl["stats"]["solved"] == 320 for crawl in crawls)
    seconds = median(crawl["seconds"] for crawl in crawls)
    at_once = fetch(f"{servers.api}/parallel/stats")["max_parallel"]
    return Row(
        "320 sessions, 32 at a time, API of 1 s",
        f"{seconds:.2f} s: **{10 / seconds:.3f}** of the ideal; {at_once} API calls at a time",
        "10 s if nothing but the API took time",
        ">= 0.90, 32 calls",
        10 / seconds >= 0.90 and at_once == 32,
    )


def latency(servers: Servers, times: int) -> Row:
    """One solve, end to end, against the API's time and the downloads alone."""
    settings = {
        **with_addon(servers.site, f"{servers.api}/latency/0.3"),
        "CONCURRENT_REQUESTS": 1,
    }
    crawl = run("one_by_one", settings, site=servers.site, path="latency/record", n=times)
    solved, plain = median(crawl["solved"]) * 1000, median(crawl["plain"]) * 1000
    over = solved - 300 - plain
    return Row(
        f"one solve end to end, API of 300 ms (median of {times})",
        f"{solved:.1f} ms: **{over:.1f} ms** over",
        f"300 ms and {plain:.1f} ms for the four downloads alone",
        "<= 10 ms over",
        over <= 10,
    )


def heartbeat(servers: Servers, rounds: int) -> Row:
    """The longest pause of the event loop while Playwright pages are solved."""
    command = [sys.executable, "-m", "benchmarks.heartbeat", servers.site, servers.api]
    done = subprocess.run([*command, "2", str(rounds)], check=True, stdout=subprocess.PIPE)
    late = {kind: median(gaps) * 1000 for kind, gaps in json.loads(done.stdout).items()}
    above = max(late["calling"] - late["waiting"], 0)
    return Row(
        "Playwright, ten pages at once, API of 2 s: the latest of the event loop's heartbeats",
        f"{late['calling']:.0f} ms late during the calls: **{above:.0f} ms** above noise "
        f"({late['solving']:.0f} ms over the whole solve)",
        f"{late['waiting']:.0f} ms when the same pages only wait",
        "<= 50 ms",
        above <= 50,
    )


def hostile() -> Row:
    """The longest that the event loop is busy with pages made to cost much."""
    command = [sys.executable, "-m", "benchmarks.hostile_crawl"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    busy: dict[str, tuple[float, str]] = json.loads(done.stdout)
    bare = busy.pop("without")
    seconds, page = max(busy.values())
    return Row(
        f"a crawl over {len(PAGES)} hostile pages, forms and their answers included: the event "
        "loop's longest gap, in CPU time",
        f"**{seconds:.2f} s** ({page})",
        f"{bare[0]:.2f} s without the add-on",
        "<= 1 s",
        seconds <= 1,
    )


def blocking(servers: Servers) -> Row:
    """The middleware that people write for themselves, on the same wall."""
    ours, theirs = _at_a_wall(servers, n=100, seconds="0.3")
    return Row(
        "100 pages behind a wall, 16 at a time, API of 0.3 s: the usual blocking middleware",
        _told(*ours),
        _told(*theirs),
        "stated",
    )


def calls(servers: Servers) -> Row:
    """What a wall costs."""
    (_, ours, _), (_, theirs, _) = _at_a_wall(servers, n=300, seconds="0.05")
    return Row(
        "paid calls per 300 pages behind a wall (API of 50 ms)",
        f"**{ours['calls']}**",
        f"{theirs['calls']} by the blocking middleware",
        "1",
        ours["calls"] == 1,
    )


Visit = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def _at_a_wall(servers: Servers, n: int, seconds: str) -> list[Visit]:
    """Our crawl and the blocking one: what each measured, its API calls, the site's counters."""
    visits = []
    for name in ("ours", "blocking"):
        customer = f"{name}{n}"
        api = f"{servers.api}/{customer}/{seconds}"
        settings = with_addon(servers.site, api)
        if name == "blocking":
            settings = {**BLOCKING, "ACECAPTCHA_API_BASE_URL": api}
        crawl = run("pages", settings, site=servers.site, path=f"{customer}/record", n=n)
        paid = fetch(f"{servers.api}/{customer}/stats")
        visits.append((crawl, paid, fetch(f"{servers.site}/{customer}/stats")))
    return visits


def _told(crawl: dict[str, Any], paid: dict[str, Any], seen: dict[str, Any]) -> str:
    return (
        f"{paid['calls']} calls, {seen.get('wrong', 0)} wrong answers, "
        f"{crawl['pages']} pages, {crawl['seconds']:.1f} s"
    )


def clients(servers: Servers, times: int) -> Row:
    """How long after the answer was ready a client hands it over."""
    with AceCaptchaClient("token", f"{servers.api}/client/{SERVICE_SECONDS}") as client:
        mine = other_clients.seconds(lambda: client.recognize(draw("K7Q364")), 3 * times)
    theirs: dict[str, list[float]] = {}
    if CLIENTS_PYTHON.exists():
        command = [str(CLIENTS_PYTHON), other_clients.__file__, servers.services, str(times)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        theirs = json.loads(done.stdout)
    over = {name: median(taken) - SERVICE_SECONDS for name, taken in theirs.items()}
    fastest_first = sorted(over, key=lambda name: over[name])
    return Row(
        f"recognise(), answer ready after {SERVICE_SECONDS} s: time over that",
        f"**{median(mine) - SERVICE_SECONDS:.3f} s**",
        ", ".join(f"{name} {over[name]:.3f} s" for name in fastest_first) or "none is installed",
        "stated",
    )


def memory(servers: Servers, n: int) -> Row:
    """The process's memory over many solves, each in a session of its own."""
    settings = {
        **with_addon(servers.site, f"{servers.api}/memory/0"),
        "COOKIES_ENABLED": False,  # Scrapy keeps those of every session
        # On asyncio's, Twisted keeps Scrapy's cancelled timeouts, with or without the add-on.
        "TWISTED_REACTOR": "twisted.internet.epollreactor.EPollReactor",
    }
    crawl = run("memory", settings, site=servers.site, path="query", n=n)
    assert crawl["stats"]["solved"] == n
    quarter = len(crawl["bytes"]) // 4
    first, last = median(crawl["bytes"][:quarter]), median(crawl["bytes"][-quarter:])
    return Row(
        f"memory over {n:,} solves in as many sessions",
        f"{first / 1e6:.1f} MB in the first quarter, {last / 1e6:.1f} MB in the last: "
        f"**{last / first - 1:+.1%}**",
        f"{n / crawl['seconds']:.0f} solves/s, {crawl['cpu'] / n * 1000:.1f} ms of CPU each",
        "within 5 %",
        last / first <= 1.05,
    )


def profiled(servers: Servers) -> Iterable[str]:
    """Where the time goes, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/profile"
        pages: dict[str, Any] = {"site": servers.site, "path": "page", "n": 1500}
        run("titles", with_addon(servers.site), profile=file, **pages)
        yield "### A page without a captcha\n"
        yield from _told_profile(Profile(file, 1500), least=0.00001)
        settings = with_addon(servers.site, f"{servers.api}/profile/0")
        records = {"site": servers.site, "path": "profile/record", "n": 500}
        crawl = run("sessions", settings, profile=file, **records)
        yield "### A solve, its four downloads included\n"
        yield from _told_profile(Profile(file, 500), least=0.0002)
        threads = (crawl["cpu"] - crawl["main_cpu"]) / 500 * 1000
        yield f"The API's call takes {threads:.1f} ms of CPU in its own thread, unprofiled.\n"


def _told_profile(profile: Profile, least: float) -> Iterable[str]:
    yield "| package | share of the CPU time |\n|---|---|"
    for name, share in profile.packages():
        yield f"| {name} | {share:.1%} |"
    yield "\n| function, with all it calls | µs |\n|---|---|"
    for name, seconds in profile.functions(least):
        yield f"| {name} | {seconds * 1e6:.0f} |"
    yield ""
