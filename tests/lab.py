"""Pages made up on the spot, for what browsers do and plain HTTP does not.

with Lab() as lab:
    lab.page = '<form method=post action=/send><img id=captcha src=/captcha.png>...'
    # open lab.url in a browser
    lab.images      # images drawn so far
    lab.sent        # forms that came in
"""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from flask import Flask, Response, jsonify, redirect, request, send_from_directory

from tests.site.drawing import Gallery
from tests.site.server import Server

RECORD = "<!DOCTYPE html><title>Record</title><h1 class=record>Record 1</h1>"
IMAGE = "<img id=captcha src=/captcha.png>"
REST = "<input name=code><button>Go</button>"


def form(inside: str = IMAGE + REST) -> str:
    return f"<form method=post action=/send>{inside}</form>"


class Lab:
    """A site of one page, one visitor and one expected answer: that of the newest image.

    What tests set: `page` (inside of the body), `frame` (the same for /frame), `wrong` (where a
    wrong answer leads; default: back to the page), `latency` of images in seconds.
    """

    def __init__(self) -> None:
        self.gallery = Gallery()
        self._drawn = 0
        self.reset()
        app = Flask("lab")
        app.add_url_rule("/", view_func=self._page, methods=["GET", "POST"])
        app.add_url_rule("/frame", "frame", view_func=lambda: self.frame)
        app.add_url_rule("/captcha.png", view_func=self._image)
        app.add_url_rule("/captcha.svg", view_func=self._svg)
        app.add_url_rule("/send", view_func=self._send, methods=["GET", "POST"])
        app.add_url_rule("/check", view_func=self._check, methods=["GET", "POST"])
        app.add_url_rule("/record", view_func=self._record, methods=["GET", "POST"])
        app.add_url_rule(
            "/wrong", "wrong", lambda: Response(self.refusal[0], headers=self.refusal[1])
        )
        app.add_url_rule("/captcha.json", view_func=self._json)
        app.add_url_rule("/library/<name>", view_func=self._library)
        app.add_url_rule("/slow", view_func=self._slow)
        app.add_url_rule("/events", view_func=self._events)
        self._server = Server(app)
        self.url = self._server.url + "/"

    def reset(self) -> None:
        self.page = form()
        self.frame = ""
        self.wrong = "/"
        self.refusal: Any = ("", {})  # what /wrong says
        self.record: Any = (RECORD, {"Content-Type": "text/html"})
        self.images: list[bytes] = []
        self.sent: list[dict[str, list[str]]] = []
        self.loads = 0
        self.expected = ""
        self.hold: Any = None  # an Event that /slow waits for
        self.libraries = Path()  # what /library/ serves
        self.shows_record = Event()
        self.open_page = "The register"
        self.queries: list[str] = []  # what was searched for
        self.opens = self.opened = 0  # pages without a captcha, after a right answer; just now
        self.events: SimpleQueue[str] = SimpleQueue()  # what /events tells the page

    def __enter__(self) -> Lab:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def draw(self) -> bytes:
        self._drawn += 1
        self.expected = f"{self._drawn:05d}".translate(str.maketrans("0158", "AHMW"))
        self.images.append(self.gallery.png(self.expected))
        return self.images[-1]

    def _page(self) -> str:
        self.loads += 1
        if self.opened:
            self.opened -= 1
            return f"<!DOCTYPE html><title>Register</title>{self.open_page}"
        page = self.page
        if "{data}" in page:
            page = page.replace("{data}", base64.b64encode(self.draw()).decode())
        if "{svg}" in page:
            page = page.replace("{svg}", self._svg().get_data(as_text=True))
        return f"<!DOCTYPE html><title>Lab</title><body>{page}</body>"

    def _image(self) -> Response:
        return Response(self.draw(), mimetype="image/png", headers={"Cache-Control": "no-store"})

    def _json(self) -> Response:
        return jsonify(image="data:image/png;base64," + base64.b64encode(self.draw()).decode())

    def _library(self, name: str) -> Response:
        return send_from_directory(self.libraries, name)

    def _svg(self) -> Response:
        self.draw()
        svg = self.gallery.svg(self.expected).replace("<svg ", "<svg id='captcha' ", 1)
        return Response(svg, mimetype="image/svg+xml", headers={"Cache-Control": "no-store"})

    def _is_right(self) -> bool:
        self.sent.append({name: request.values.getlist(name) for name in request.values})
        expected, self.expected = self.expected, ""  # every answer is single use
        is_right = bool(expected) and request.values.get("code") == expected
        self.opened = self.opens if is_right else 0
        return is_right

    def _send(self) -> Any:
        is_right = self._is_right()
        if is_right and "q" in request.values:
            self.queries.append(request.values["q"])
        return redirect("/record" if is_right else self.wrong)

    def _check(self) -> Response:
        return jsonify(ok=self._is_right())

    def _events(self) -> Response:
        """What a test tells the page, as server-sent events; one to a connection."""
        with suppress(Empty):
            told = self.events.get(timeout=5)
            return Response(f"retry: 50\ndata: {told}\n\n", mimetype="text/event-stream")
        return Response("retry: 50\n\n", mimetype="text/event-stream")

    def _record(self) -> Response:
        self.shows_record.set()
        if "q" in request.values:
            self.queries.append(request.values["q"])
        return Response(self.record[0], headers=self.record[1])

    def _slow(self) -> str:
        if self.hold is not None:
            self.hold.wait(20)
        return RECORD
