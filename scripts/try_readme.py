"""Tries the README's own lines with the package as it is installed.

    python scripts/try_readme.py

Needs nothing but the package with its extra ``playwright``. A server on this machine is the site
with the captcha and the API that reads it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import scrapy
from scrapy.crawler import CrawlerProcess

README = Path(__file__).parent.parent / "README.md"
HOST = "records.example.org"  # in the README
TEXT = "7364"
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(40)
FORM = """<form action=/check method=post>
    <img id=captcha src=/captcha.png><input name=code><button>Go</button></form>"""


class SiteAndApi(BaseHTTPRequestHandler):
    """A record behind a captcha, and the API."""

    def do_GET(self) -> None:
        if self.path == "/captcha.png":
            self._reply(IMAGE, "image/png")
        elif self.path == "/robots.txt":
            self._reply(b"", "text/plain")
        else:
            is_let_in = "let_in=yes" in self.headers.get("Cookie", "")
            self._reply(b"<h1>Record</h1>" if is_let_in else FORM.encode(), "text/html")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/check":
            self.send_response(302)
            if f"code={TEXT}" in body:
                self.send_header("Set-Cookie", "let_in=yes")
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._reply(json.dumps({"text": TEXT}).encode(), "application/json")

    def _reply(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


class RecordSpider(scrapy.Spider):
    """Asks for the record."""

    name = "record"
    records: ClassVar[list[tuple[str | None, bool]]] = []

    def parse(self, response: Any) -> None:
        """Note what came."""
        self.records.append((response.css("h1::text").get(), "acecaptcha" in response.flags))


def blocks() -> list[dict[str, Any]]:
    """What each Python block of the README defines."""
    found = []
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S):
        names: dict[str, Any] = {}
        exec(compile(block, str(README), "exec"), names)  # noqa: S102 - our own page
        found.append(names)
    return found


def main() -> None:
    """Run the README's lines against a server of our own, or fail."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SiteAndApi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"127.0.0.1:{server.server_port}"
    os.environ["ACEDATACLOUD_API_BASE_URL"] = f"http://{place}"
    os.environ["ACEDATACLOUD_API_TOKEN"] = "any"  # noqa: S105

    in_settings, in_browser, in_script = blocks()
    assert callable(in_browser["search"])  # its browser is tried by the tests
    assert in_script["read"](IMAGE) == TEXT

    rules = {place: in_settings["ACECAPTCHA_RULES"][HOST]}
    process = CrawlerProcess(
        {"ADDONS": in_settings["ADDONS"], "ACECAPTCHA_RULES": rules, "LOG_LEVEL": "WARNING"}
    )
    process.crawl(RecordSpider, start_urls=[f"http://{place}/"])
    process.start()
    assert RecordSpider.records == [("Record", True)], RecordSpider.records
    print("The README's lines work.")


if __name__ == "__main__":
    main()
