"""``python -m example_project``: start the example's sites and crawl them, as a user would.

With ACEDATACLOUD_API_TOKEN set, the real API reads the captchas, else the sandbox does.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from example_project.data import COMPANIES, TENDERS
from example_project.registry.spiders.court import COMPANIES as SEARCHED
from example_project.site import (
    RECORDS_PER_CAPTCHA,
    create_court,
    create_register,
    create_tenders,
)
from scrapy_acecaptcha.recognition.client import DEFAULT_BASE_URL
from scrapy_acecaptcha.recognition.sandbox import LocalServer, Sandbox
from scripts.browser import launch_options

PROJECT = Path(__file__).parent
OUTPUT = Path(os.environ.get("EXAMPLE_OUTPUT") or PROJECT / "output").resolve()
TIME_LIMIT = 180  # seconds for one crawl
PATIENCE = 10  # seconds for a crawl to stop


class Crawl(NamedTuple):
    spider: str
    about: str
    expected: int  # items

    @property
    def items(self) -> Path:
        return OUTPUT / f"{self.spider}.jl"

    @property
    def log(self) -> Path:
        return OUTPUT / f"{self.spider}.log"

    @property
    def stats(self) -> Path:
        return OUTPUT / f"{self.spider}.stats.json"


CRAWLS = (
    Crawl(
        "register",
        f"a captcha bars the records and opens {RECORDS_PER_CAPTCHA} at a time",
        len(COMPANIES),
    ),
    Crawl("court", "a search form wants a captcha for each query", len(SEARCHED)),
    Crawl("tenders", "a script draws the captcha on a canvas: in a browser", len(TENDERS)),
)


def main() -> int:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # through a pipe as well
    with ExitStack() as stack:
        environ = dict(os.environ)
        register = stack.enter_context(LocalServer(create_register()))
        court = stack.enter_context(LocalServer(create_court()))
        tenders = stack.enter_context(LocalServer(create_tenders()))
        environ |= {
            "EXAMPLE_REGISTER_PORT": str(register.port),
            "EXAMPLE_COURT_PORT": str(court.port),
            "EXAMPLE_TENDERS_PORT": str(tenders.port),
            "EXAMPLE_BROWSER": json.dumps(launch_options()),
        }
        real = bool(environ.get("ACEDATACLOUD_API_TOKEN"))
        if real:
            url = environ.get("ACEDATACLOUD_API_BASE_URL") or DEFAULT_BASE_URL
            print(f"Captchas are read by the API at {url}; that takes some 20 calls, charged to")
            print("the account of ACEDATACLOUD_API_TOKEN. Unset it to use the sandbox instead.")
        else:
            environ |= stack.enter_context(Sandbox()).environ
            print("Captchas are read by the sandbox, a local stand-in for the API.")
        complete = [run(crawl, environ) for crawl in CRAWLS]
    if not real:
        print("\nThe same with the real API: ACEDATACLOUD_API_TOKEN=<your token> make demo")
        print("A token is to be had at https://platform.acedata.cloud")
    return 0 if all(complete) else 1


def run(crawl: Crawl, environ: Mapping[str, str]) -> bool:
    """Crawl, print what came out, and tell whether all items did."""
    print(f"\n{crawl.spider}: {crawl.about}")
    crawl.stats.unlink(missing_ok=True)
    started = time.monotonic()
    with scrapy_crawl(crawl, environ) as process:
        while process.poll() is None:
            show_progress(crawl)
            time.sleep(0.1)
    seconds = time.monotonic() - started
    show_progress(None)
    stats = read_stats(crawl)
    items = stats.get("item_scraped_count", 0)
    print(summary(crawl, items, seconds, stats))
    if process.returncode == 0 and items == crawl.expected:
        return True
    print(f"  Missing: {crawl.expected - items}. {shown(crawl.log)} says:")
    lines = crawl.log.read_text(errors="replace").splitlines()
    # Scrapy's own words, or where a traceback ends.
    errors = [line for line in lines if " ERROR: " in line or line.startswith("scrapy_acecaptcha.")]
    print(*(f"    {line}" for line in (errors or lines)[-3:]), sep="\n")
    return False


@contextmanager
def scrapy_crawl(crawl: Crawl, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``scrapy crawl``, and end it on the way out, should it still run."""
    command = [sys.executable, "-m", "scrapy", "crawl", crawl.spider, "-O", str(crawl.items)]
    command += ["-s", f"STATS_FILE={crawl.stats}", "-s", f"CLOSESPIDER_TIMEOUT={TIME_LIMIT}"]
    with crawl.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=dict(environ),
            stdout=log,
            stderr=subprocess.STDOUT,
            # Out of the terminal's reach: Ctrl-C is for us to pass on, and once only, as Scrapy
            # takes a second one for impatience.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
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
    return (
        f"  {items} of {crawl.expected} records in {seconds:.1f} s: {shown(crawl.items)}\n"
        f"  captcha pages met: {count('challenges')}, captchas solved: {count('solved')}, "
        f"API calls: {count('api_requests')}, wrong answers: {wrong}"
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
