"""A heartbeat beside a crawl over all pages of hostile.py: ``python -m benchmarks.hostile_crawl``.

Each page is downloaded, its image read, its form sent; the form's answer is the same page. Prints
JSON: for each kind of rule, and without the add-on, how many seconds of CPU time the event loop
spent between two beats at most, and on which page.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

from scrapy import Request, Spider
from scrapy.crawler import CrawlerProcess

from benchmarks.hostile import PAGES, make
from benchmarks.servers import draw

BEAT = 0.005  # seconds
TOLD = {"success": "text=thank you", "failure": "text=wrong code"}
RULES: dict[str, dict[str, Any] | None] = {
    "without": None,
    "named": {"image": "#captcha"},
    "auto": {"image": "auto"},
    "told": {"image": "#captcha", **TOLD},
}
SETTINGS: dict[str, Any] = {
    "ACECAPTCHA_TOKEN": "token",
    "CONCURRENT_REQUESTS": 1,
    "DOWNLOAD_DELAY": 0,
    "LOG_ENABLED": False,
    "RETRY_ENABLED": False,
    "TELNETCONSOLE_ENABLED": False,
}


class Handler(BaseHTTPRequestHandler):
    """The pages, their image, and an API that reads the same from every image."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a page or the image."""
        if self.path == "/c.png":
            self._send(draw("AB12C"), "image/png")
        else:
            self._send(make(unquote(self.path[1:].partition("?")[0])).body, "text/html")

    def do_POST(self) -> None:
        """Answer with a text, or to a form with its page."""
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path.startswith("/captcha/"):
            self._send(b'{"text": "AB12C"}', "application/json")
        else:
            self.do_GET()

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class HeartbeatSpider(Spider):
    """Asks for each page, one after the other, and notes its longest gap."""

    name = "heartbeat"

    def __init__(self, site: str, late: dict[str, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site, self.late = site, late

    async def start(self) -> Any:
        self.worst = 0.0
        self.beating = asyncio.ensure_future(self.beat())
        for name in PAGES:
            meta = {"cookiejar": name}
            yield Request(f"{self.site}/{quote(name, safe='')}", meta=meta, errback=self.parse)

    async def beat(self) -> None:
        """Note how long the loop is busy between two beats."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(BEAT)
            self.worst = max(self.worst, time.thread_time() - before)

    async def parse(self, response: Any) -> None:
        """The page is done, whatever came of it."""
        await asyncio.sleep(3 * BEAT)
        request = getattr(response, "request", None)
        self.late[unquote(request.url.rpartition("/")[2])] = self.worst
        self.worst = 0.0

    def closed(self, reason: str) -> None:
        """Stop the heart."""
        self.beating.cancel()


def crawl(site: str, kind: str) -> None:
    """Crawl in this process and print how late the beats were."""
    rule = RULES[kind]
    settings = {**SETTINGS, "ACECAPTCHA_API_BASE_URL": site}
    if rule is not None:
        settings["ADDONS"] = {"scrapy_acecaptcha.Addon": 500}
        settings["ACECAPTCHA_RULES"] = {site.partition("://")[2]: {**rule, "max_attempts": 1}}
    late: dict[str, float] = {}
    process = CrawlerProcess(settings)
    process.crawl(HeartbeatSpider, site=site, late=late)
    process.start()
    assert late.keys() == PAGES.keys(), late.keys() ^ PAGES.keys()
    print(json.dumps(late))


def main() -> None:
    """Crawl once for each kind of rule, and print the latest beat of each and its page."""
    module = [sys.executable, "-m", "benchmarks.hostile_crawl"]
    with subprocess.Popen([*module, "serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        site = server.stdout.readline().strip()
        try:
            worst = {}
            for kind in RULES:
                done = subprocess.run([*module, site, kind], check=True, stdout=subprocess.PIPE)
                late: dict[str, float] = json.loads(done.stdout)
                page = max(late, key=late.__getitem__)
                worst[kind] = (late[page], page)
                if "-v" in sys.argv:
                    for name, seconds in late.items():
                        print(f"{kind}\t{seconds:.3f}\t{name}", file=sys.stderr)
            print(json.dumps(worst))
        finally:
            server.terminate()


def serve() -> None:
    """Serve on a free port and print the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve()
    elif len(sys.argv) > 2:
        crawl(*sys.argv[1:])
    else:
        main()
