"""A crawl with faults everywhere, beside the same crawl without captchas: ``make soak``.

The site has walls that come back, answers 503, closes connections, drips its bodies and restarts
once, when all sessions are forgotten. The API is slow, errs, answers 429, 500, junk or nothing, and
is down for some seconds. The crawl itself is ended by signals and resumed. Every page that reaches
a callback is written down at once. Prints a table for docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Response, abort, after_this_request, request
from scrapy import Request, Spider
from scrapy.crawler import CrawlerProcess
from scrapy.http import Response as ScrapyResponse
from twisted.python.failure import Failure

from tests.site import RULES, CaptchaSite, Seen
from tests.stub import RESET, ApiStub, Reply

ROOT = Path(__file__).parent.parent
WALLS = ("every_k", "redirect_again", "through")  # every tenth page, every tenth, once a session
PAGES = 200  # of each wall
SESSIONS = 4
OUTAGE_SECONDS = 5.0
RESTART_SECONDS = 1.0
SETTINGS: dict[str, Any] = {
    "ADDONS": {"scrapy_acecaptcha.Addon": 500},
    "ACECAPTCHA_TOKEN": "token",
    "ACECAPTCHA_TIMEOUT": 3,
    "ACECAPTCHA_RETRIES": 2,
    "CONCURRENT_REQUESTS": 16,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 16,
    "DOWNLOAD_DELAY": 0,
    "DOWNLOAD_TIMEOUT": 10,
    "LOG_LEVEL": "WARNING",
    "RETRY_TIMES": 30,  # a site that restarts has closed as many connections in no time
    "ROBOTSTXT_OBEY": False,
    "TELNETCONSOLE_ENABLED": False,
}
# What docs/failure-and-resume.md names for crawls that may be killed.
KILL_PROOF: dict[str, Any] = {
    "SCHEDULER_DISK_QUEUE": "scrapy.squeues.PickleLifoSQLiteQueue",
    "SCHEDULER_START_DISK_QUEUE": None,
    "RETRY_PRIORITY_ADJUST": 0,
    "ACECAPTCHA_MAX_HELD": 0,
}


# Faults


class FaultySite:
    """Makes *site* err: 2 % are 503, 2 % closed connections, 1 % dripping bodies, one restart.

    :param restart_at: the number of the request with which it restarts
    """

    def __init__(self, site: CaptchaSite, restart_at: int) -> None:
        self._site = site
        self._random = random.Random(1)
        self._restart_at = restart_at
        self._count = 0
        self._down_until = 0.0
        site.on_request = self._handle

    def _handle(self, seen: Seen) -> None:
        with self._site.lock:
            self._count += 1
            if self._count == self._restart_at:
                self._down_until = time.monotonic() + RESTART_SECONDS
                for scenario in self._site.scenarios.values():
                    scenario.sessions.clear()
            dice = 0.03 if time.monotonic() < self._down_until else self._random.random()
        if dice < 0.02:
            abort(503)
        if dice < 0.04:
            request.environ["werkzeug.socket"].shutdown(2)
            abort(Response())
        if dice < 0.05:
            after_this_request(_dripping)


def _dripping(response: Response) -> Response:
    body = response.get_data()

    def drip() -> Iterator[bytes]:
        for i in range(0, len(body), len(body) // 5 + 1):
            time.sleep(0.1)
            yield body[i : i + len(body) // 5 + 1]

    response.response = drip()
    return response


class ApiFaults(deque[Reply]):
    """A script for the stub that never ends: a fifth of the replies are none, and one outage.

    :param answers: what is written on an image
    :param outage_at: the number of the call with which the outage begins
    """

    def __init__(self, answers: Callable[[bytes], str | None], outage_at: int) -> None:
        super().__init__()
        self._answers = answers
        self._random = random.Random(2)
        self._outage_at = outage_at
        self._down_until = 0.0
        self._count = 0

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Reply:
        """The next reply."""
        self._count += 1
        if self._count == self._outage_at:
            self._down_until = time.monotonic() + OUTAGE_SECONDS
        if time.monotonic() < self._down_until:
            return self._random.choice((RESET, (500, "down", {}), (503, "<html>down", {})))
        replies: tuple[tuple[float, Reply], ...] = (
            (0.05, (429, {"error": {"code": "too_many_requests"}}, {"Retry-After": "1"})),
            (0.05, (500, {"error": {"code": "api_error"}}, {})),
            (0.04, (200, "<html>not JSON", {})),
            (0.03, RESET),
            (0.01, _hang),
            (0.10, "WRONG"),
        )
        dice = self._random.random()
        for share, reply in replies:
            dice -= share
            if dice < 0:
                return reply
        return self._right

    def _right(self, image: bytes) -> Reply:
        return self._answers(image) or (400, {"error": {"code": "bad_request"}}, {})


def _hang(image: bytes) -> Reply:
    time.sleep(SETTINGS["ACECAPTCHA_TIMEOUT"] + 1)
    return RESET


# The crawl, in a process of its own


class SoakSpider(Spider):
    """Writes a line for every page, at once: `page URL`, `captcha URL` or `error URL ...`."""

    name = "soak"

    def __init__(self, listings: list[str], log: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.listings = listings
        self.log_file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def start(self) -> Any:
        for url in self.listings:
            yield Request(url, self.parse_listing, errback=self.fail, dont_filter=True)

    def parse_listing(self, response: ScrapyResponse) -> Any:
        for i, link in enumerate(response.css("a.record::attr(href)").getall()):
            wall = link.split("/")[1]
            meta: dict[str, Any] = {}
            if wall in WALLS:
                meta["acecaptcha"] = {**RULES[wall], "sessions": SESSIONS}
            if wall == WALLS[0]:  # the spider's own sessions; those of the others are ours
                meta["cookiejar"] = i % SESSIONS
            yield response.follow(link, self.parse_record, errback=self.fail, meta=meta)

    def parse_record(self, response: ScrapyResponse) -> None:
        heading = response.css("h1.record::text").get()
        if heading is None:
            self.write(f"captcha {response.url}")
        else:
            self.write(f"page {response.url}")

    def fail(self, failure: Failure) -> None:
        request: Request = failure.request  # type: ignore[attr-defined]
        self.write(f"error {request.url} {failure.value!r}")

    def write(self, line: str) -> None:
        os.write(self.log_file, (line.replace("\n", " ") + "\n").encode())


def crawl(listings: list[str], log: str, settings: dict[str, Any]) -> None:
    """Crawl in this process."""
    process = CrawlerProcess({**SETTINGS, **settings})
    process.crawl(SoakSpider, listings=listings, log=log)
    process.start()


# The runs


@dataclass
class Outcome:
    """What a crawl with all its resumptions brought."""

    wanted: int
    lines: list[str]
    calls: int
    rows: int
    seconds: float
    ends: list[str] = field(default_factory=list)  # what each process but the last took to end

    @property
    def delivered(self) -> Counter[str]:
        """How often each page reached a callback."""
        return Counter(line for line in self.lines if line.startswith("page "))

    @property
    def is_perfect(self) -> bool:
        """Whether every page came once, without a captcha, and every call is in the journal."""
        once = len(self.delivered) == self.delivered.total() == self.wanted
        return once and not self.count("captcha") and self.calls == self.rows

    def count(self, kind: str) -> int:
        """Lines of a *kind*."""
        return sum(line.startswith(f"{kind} ") for line in self.lines)

    def cells(self) -> list[str]:
        """The cells of its row."""
        delivered, errors = len(self.delivered), self.count("error")
        return [
            f"{self.wanted:,}",
            f"{delivered:,}",
            f"{self.wanted - delivered - errors:,}",
            f"{self.delivered.total() - delivered:,}",
            f"{errors:,}",
            f"{self.count('captcha'):,}",
            f"{self.calls:,}",
            f"{self.rows:,}",
            ", ".join(self.ends),
            f"{self.seconds:.0f} s",
        ]


HEAD = (
    *("run", "pages", "delivered", "lost", "twice", "errback", "captcha in a callback"),
    *("API calls", "journal rows", "time to end", "took"),
)


def run(
    captchas: bool, stop: signal.Signals | None = None, settings: dict[str, Any] | None = None
) -> Outcome:
    """Crawl all pages; *stop* is sent after a third and two thirds of them, if given."""
    wanted = PAGES * len(WALLS)
    with (
        CaptchaSite() as site,
        ApiStub(site.answers, ApiFaults(site.answers, outage_at=30), latency=0.05) as api,
        tempfile.TemporaryDirectory() as folder,
    ):
        FaultySite(site, restart_at=wanted // 2)
        listings = [f"{site.url}/{wall}/?n={PAGES}" for wall in WALLS]
        if not captchas:
            listings = [f"{site.url}/nocaptcha/?n={wanted}"]
        log, job = Path(folder, "log"), Path(folder, "job")
        log.touch()
        config = {"ACECAPTCHA_API_BASE_URL": api.url, "JOBDIR": str(job), **(settings or {})}
        started = time.monotonic()
        ends = []
        for third in (1, 2) if stop else ():
            process = _start(listings, log, config)
            _wait_for_pages(log, wanted * third // 3, process)
            sent = time.monotonic()
            process.send_signal(stop or signal.SIGTERM)
            process.wait(300)
            ends.append(f"{time.monotonic() - sent:.1f} s")
        _start(listings, log, config).wait(300)
        seconds = time.monotonic() - started
        lines = log.read_text().splitlines()
        return Outcome(wanted, lines, len(api.calls), _rows(job / "acecaptcha.db"), seconds, ends)


def _start(listings: list[str], log: Path, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    config = json.dumps([listings, str(log), settings])
    return subprocess.Popen([sys.executable, "-m", "benchmarks.soak", "crawl", config], cwd=ROOT)


def _wait_for_pages(log: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    while log.read_text().count("page ") < count and process.poll() is None:
        time.sleep(0.02)


def _rows(journal: Path) -> int:
    with sqlite3.connect(journal) as db:
        return int(db.execute("SELECT COUNT(*) FROM calls").fetchone()[0])


RUNS: dict[str, tuple[signal.Signals | None, dict[str, Any]]] = {
    "to its end": (None, {}),
    "SIGTERM twice": (signal.SIGTERM, {}),
    "SIGKILL twice": (signal.SIGKILL, {}),
    "SIGKILL twice, queues in SQLite": (signal.SIGKILL, KILL_PROOF),
}


def main() -> int:
    """Print the table; 0 if nothing was lost that Scrapy does not lose itself."""
    is_good = True
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for name, (stop, settings) in RUNS.items():
        for captchas in (True, False):
            outcome = run(captchas, stop, settings)
            kind = "captchas" if captchas else "none"
            print("| " + " | ".join([f"{name}: {kind}", *outcome.cells()]) + " |", flush=True)
            for line in outcome.lines:
                if not line.startswith("page "):
                    print(line, file=sys.stderr)
            if stop != signal.SIGKILL:
                is_good = is_good and outcome.is_perfect
    return int(not is_good)


if __name__ == "__main__":
    if sys.argv[1:2] == ["crawl"]:
        crawl(*json.loads(sys.argv[2]))
    else:
        sys.exit(main())
