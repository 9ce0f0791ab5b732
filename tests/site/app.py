"""The site as a running thing: two ports, a log of requests, counters, answers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import Flask, Response, request

from .drawing import ALPHABET, Gallery
from .scenario import Scenario
from .server import Server


class Seen(NamedTuple):
    """A request that came in."""

    method: str
    path: str
    cookies: dict[str, str]
    headers: dict[str, str]
    body: bytes
    query: str = ""
    host: str = ""


class CaptchaSite:
    """Every scenario behind one URL: `with CaptchaSite() as site: ...`.

    `second_url` is the same app on another port, `other_host_url` that port under another host
    name (localhost), where no cookie of the first goes. Attributes below may be set by a test;
    reset() puts them back.
    """

    def __init__(self, scenarios: list[type[Scenario]] | None = None) -> None:
        from . import SCENARIOS

        self.lock = threading.RLock()
        self.gallery = Gallery()
        self.scenarios = {cls.name: cls(self) for cls in scenarios or SCENARIOS}
        app = self._app()
        self._servers = [Server(app), Server(app)]
        self.url, self.second_url = (server.url for server in self._servers)
        self.other_host_url = f"http://localhost:{self._servers[1].port}"
        self.reset()

    def reset(self) -> None:
        """Forget all sessions, requests and counters. Images stay known."""
        with self.lock:
            self.requests: list[Seen] = []
            self.robots = "User-agent: *\nAllow: /\n"
            self.every_k = 10  # records per right answer at /every_k/
            self.latency = 0.0  # seconds before each reply
            self.length = 5  # letters of a captcha
            self.image_format = "PNG"  # or GIF, JPEG, WEBP, BMP
            # Called with each request before it is handled; may wait, to force an order of events.
            self.on_request: Callable[[Seen], object] | None = None
            for scenario in self.scenarios.values():
                scenario.reset()

    def __enter__(self) -> CaptchaSite:
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop()

    @property
    def stats(self) -> dict[str, Counter[str]]:
        """Counters by scenario, see Scenario."""
        return {name: scenario.stats for name, scenario in self.scenarios.items()}

    def answers(self, image: bytes) -> str | None:
        """What is written on the image, be it the site's own file, a screenshot or a rendering."""
        return self.gallery.answer(image)

    def svg_answer(self) -> str | None:
        """What is written on the newest SVG."""
        return self.gallery.newest_svg

    def random_text(self) -> str:
        return "".join(random.choices(ALPHABET, k=self.length))

    def _app(self) -> Flask:
        app = Flask("captcha-site")
        app.before_request(self._record)
        app.add_url_rule("/", view_func=self._index)
        app.add_url_rule("/robots.txt", view_func=self._robots_txt)
        app.add_url_rule("/<name>/", view_func=self._scenario, methods=["GET", "POST"])
        app.add_url_rule("/<name>/<path:path>", view_func=self._scenario, methods=["GET", "POST"])
        return app

    def _record(self) -> None:
        seen = Seen(
            request.method,
            request.path,
            request.cookies.to_dict(),
            dict(request.headers),
            request.get_data(),
            request.query_string.decode(),
            request.host,
        )
        with self.lock:
            self.requests.append(seen)
        if self.on_request:
            self.on_request(seen)
        if self.latency:
            time.sleep(self.latency)

    def _index(self) -> str:
        links = "".join(f'<li><a href="/{name}/">{name}</a></li>' for name in self.scenarios)
        return f"<!DOCTYPE html><title>Index</title><ul>{links}</ul>"

    def _robots_txt(self) -> Response:
        return Response(self.robots, mimetype="text/plain")

    def _scenario(self, name: str, path: str = "") -> Any:
        scenario = self.scenarios.get(name)
        return scenario.respond(path) if scenario else ("Not found", 404)
