"""``python -m example_project``: start the example's sites and crawl them, as a user would.

With ACEDATACLOUD_API_TOKEN set, the real API reads the captchas, else the sandbox does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from example_project.data import COMPANIES, TENDERS
from example_project.registry.spiders.court import COMPANIES as SEARCHED
from example_project.site import RECORDS_PER_CAPTCHA, SITES
from scrapy_acecaptcha.cli.main import main as acecaptcha
from scrapy_acecaptcha.recognition.client import DEFAULT_BASE_URL
from scrapy_acecaptcha.recognition.sandbox import LocalServer, Sandbox
from scripts.browser import launch_options

PROJECT = Path(__file__).parent
OUTPUT = Path(os.environ.get("EXAMPLE_OUTPUT") or PROJECT / "output").resolve()
TIME_LIMIT = 180  # seconds for one crawl
PATIENCE = 10  # seconds for a crawl to stop


class Crawl(NamedTuple):
    """One crawl of the demo.

    :param expected: records
    :param settings: beside those of the project
    :param interrupt_at: records after which it is stopped, to go on where it stood
    """

    name: str
    spider: str
    about: str
    expected: int
    settings: Mapping[str, object] = {}
    interrupt_at: int = 0

    @property
    def items(self) -> Path:
        return OUTPUT / f"{self.name}.jl"

    @property
    def log(self) -> Path:
        return OUTPUT / f"{self.name}.log"

    @property
    def stats(self) -> Path:
        return OUTPUT / f"{self.name}.stats.json"


JOBDIR = OUTPUT / "job"
JOURNAL = OUTPUT / "captchas.db"
REPORT = OUTPUT / "report.html"

USUAL = Crawl(
    "usual",
    "register",
    "the same by the middleware that many write for themselves",
    len(COMPANIES),
    {
        "ACECAPTCHA_ENABLED": False,
        "DOWNLOADER_MIDDLEWARES": '{"benchmarks.blocking.BlockingCaptchaMiddleware": 585}',
    },
)
CRAWLS = (
    Crawl(
        "register",
        "register",
        f"a captcha bars the records and opens {RECORDS_PER_CAPTCHA} at a time",
        len(COMPANIES),
    ),
    Crawl(
        "court",
        "court",
        "a search form wants a captcha for each query: four sessions side by side",
        len(SEARCHED),
    ),
    Crawl(
        "local",
        "court",
        "the court once more, read on this machine first",
        len(SEARCHED),
        {"ACECAPTCHA_LOCAL_READER": "ddddocr"},
    ),
    Crawl("permits", "permits", "a JSON API with captchas: by the Solver", len(SEARCHED)),
    Crawl(
        "tenders", "tenders", "a script draws the captcha on a canvas: in a browser", len(TENDERS)
    ),
    Crawl(
        "resumed",
        "register",
        "the register once more, interrupted and resumed",
        len(COMPANIES),
        {"JOBDIR": JOBDIR, "DOWNLOAD_DELAY": 0.03},
        interrupt_at=20,
    ),
)


def main() -> int:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(JOBDIR, ignore_errors=True)
    JOURNAL.unlink(missing_ok=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # through a pipe as well
    with ExitStack() as stack:
        environ = dict(os.environ)
        for name, create in SITES.items():
            site = stack.enter_context(LocalServer(create()))
            environ[f"EXAMPLE_{name.upper()}_PORT"] = str(site.port)
        environ["EXAMPLE_BROWSER"] = json.dumps(launch_options())
        real = bool(environ.get("ACEDATACLOUD_API_TOKEN"))
        if real:
            url = environ.get("ACEDATACLOUD_API_BASE_URL") or DEFAULT_BASE_URL
            print(f"Captchas are read by the API at {url}; that takes some 30 calls, charged to")
            print("the account of ACEDATACLOUD_API_TOKEN. Unset it to use the sandbox instead.")
        else:
            environ |= stack.enter_context(Sandbox()).environ
            print("Captchas are read by the sandbox, a local stand-in for the API.")
        complete = []
        for crawl in CRAWLS:
            complete.append(run(crawl, environ))
            if crawl is CRAWLS[0] and not real:
                compare(crawl, environ)
    write_report()
    if not real:
        print("\nThe same with the real API: ACEDATACLOUD_API_TOKEN=<your token> make demo")
        print("A token is to be had at https://platform.acedata.cloud")
    return 0 if all(complete) else 1


def run(crawl: Crawl, environ: Mapping[str, str]) -> bool:
    """Crawl, print what came out, and tell whether all records did."""
    print(f"\n{crawl.name}: {crawl.about}")
    started = time.monotonic()
    for file in (crawl.items, crawl.log, crawl.stats):
        file.unlink(missing_ok=True)
    before: Mapping[str, Any] = {}
    if crawl.interrupt_at:
        follow(crawl, environ, stop_at=crawl.interrupt_at)
        before = read_stats(crawl)
        print(f"  interrupted after {before.get('item_scraped_count', 0)} records, and resumed")
    code = follow(crawl, environ)
    seconds = time.monotonic() - started
    stats = Counter({k: v for k, v in read_stats(crawl).items() if isinstance(v, int)})
    stats += Counter({k: v for k, v in before.items() if isinstance(v, int)})
    items = stats["item_scraped_count"]
    print(summary(crawl, items, seconds, stats))
    if code == 0 and items == crawl.expected:
        return True
    print(f"  Missing: {crawl.expected - items}. {shown(crawl.log)} says:")
    lines = crawl.log.read_text(errors="replace").splitlines()
    # Scrapy's own words, or where a traceback ends.
    errors = [line for line in lines if " ERROR: " in line or line.startswith("scrapy_acecaptcha.")]
    print(*(f"    {line}" for line in (errors or lines)[-3:]), sep="\n")
    return False


def follow(crawl: Crawl, environ: Mapping[str, str], stop_at: int = 0) -> int | None:
    """Show how far a crawl is until it ends, or has *stop_at* records; its exit code."""
    with scrapy_crawl(crawl, environ) as process:
        while process.poll() is None:
            show_progress(crawl)
            if stop_at and read_stats(crawl).get("item_scraped_count", 0) >= stop_at:
                break
            time.sleep(0.1)
    show_progress(None)
    return process.returncode


def compare(crawl: Crawl, environ: Mapping[str, str]) -> None:
    """Crawl the same site by the usual middleware, and print what that brings and costs."""
    print(f"\n{USUAL.name}: {USUAL.about}")
    for file in (USUAL.items, USUAL.log, USUAL.stats):
        file.unlink(missing_ok=True)
    follow(USUAL, environ)
    names = {company.name for company in COMPANIES}
    brought = [json.loads(line) for line in USUAL.items.read_text().splitlines()]
    right = len({item["name"] for item in brought} & names)
    calls = read_stats(USUAL).get("usual/api_requests", 0)
    ours = read_stats(crawl).get("acecaptcha/api_requests", 0)
    print(f"  {right} of {USUAL.expected} records, {len(brought) - right} other pages as records")
    print(f"  API calls: {calls}, where scrapy-acecaptcha made {ours}")


def write_report() -> None:
    """Make the report of all calls, and say where it is."""
    with contextlib.redirect_stdout(io.StringIO()):
        done = acecaptcha(["report", str(JOURNAL), "-o", str(REPORT)])
    if done == 0:
        print(f"\nWhat was paid for, and what became of it: {shown(REPORT)}")


@contextmanager
def scrapy_crawl(crawl: Crawl, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``scrapy crawl``, and end it on the way out, should it still run."""
    command = [sys.executable, "-m", "scrapy", "crawl", crawl.spider, "-o", str(crawl.items)]
    settings = {
        "STATS_FILE": crawl.stats,
        "CLOSESPIDER_TIMEOUT": TIME_LIMIT,
        "ACECAPTCHA_JOURNAL": JOURNAL,
        **crawl.settings,
    }
    for name, value in settings.items():
        command += ["-s", f"{name}={value}"]
    with crawl.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**environ, "PYTHONPATH": str(PROJECT.parent)},
            stdout=log,
            stderr=subprocess.STDOUT,
            # Out of the terminal's reach: Ctrl-C is for us to pass on.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # once: Scrapy takes a second signal for impatience
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()


def read_stats(crawl: Crawl) -> dict[str, Any]:
    """Return Scrapy's stats as of the last item; there are none before the first one."""
    try:
        stats: dict[str, Any] = json.loads(crawl.stats.read_text())
    except FileNotFoundError:
        return {}
    return stats


def show_progress(crawl: Crawl | None) -> None:
    """Overwrite the line at the cursor with how far the crawl is; None clears it."""
    if not sys.stdout.isatty():
        return
    line = ""
    if crawl is not None:
        stats = read_stats(crawl)
        line = (
            f"  {stats.get('item_scraped_count', 0)} of {crawl.expected} records, "
            f"{stats.get('acecaptcha/solved', 0)} captchas solved"
        )[: shutil.get_terminal_size().columns - 1]
    print(f"\r\033[K{line}", end="", flush=True)


def summary(crawl: Crawl, items: int, seconds: float, stats: Mapping[str, Any]) -> str:
    def count(name: str) -> int:
        return int(stats.get(f"acecaptcha/{name}", 0))

    wrong = count("rejected") + count("unreadable")  # refused by the site, or not four digits
    has_reader = "ACECAPTCHA_LOCAL_READER" in crawl.settings
    local = f", read here for nothing: {count('local_accepted')}" if has_reader else ""
    return (
        f"  {items} of {crawl.expected} records in {seconds:.1f} s: {shown(crawl.items)}\n"
        f"  captcha pages met: {count('challenges')}, captchas solved: {count('solved')}, "
        f"API calls: {count('api_requests')}, wrong answers: {wrong}{local}"
    )


def shown(path: Path) -> str:
    """Return a path as one would type it here."""
    return os.path.relpath(path)


if __name__ == "__main__":
    # Both end the demo alike, in the background as well: it stops on its way out what it started.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped.")
        sys.exit(130)
