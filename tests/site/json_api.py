"""A JSON API behind a captcha, as single-page applications have them: no form, no page."""

from __future__ import annotations

import base64
import random
import threading
import uuid
from collections import Counter
from typing import Any

from flask import Flask, jsonify, request

from .drawing import ALPHABET, Gallery
from .server import Server


class JsonApi:
    """``GET /api/captcha`` gives id and image, ``POST /api/search`` takes JSON; 403: wrong answer.

    With ``bound`` the newest captcha of a cookie is the only one that counts. ``stats``: captchas,
    solved, wrong.
    """

    def __init__(self, *, bound: bool = False) -> None:
        self.gallery = Gallery()
        self.bound = bound
        self.stats: Counter[str] = Counter()
        self._expected: dict[str, str] = {}
        self._newest: dict[str, str] = {}  # session -> captcha id
        self._lock = threading.Lock()
        app = Flask("json-api")
        app.add_url_rule("/api/captcha", view_func=self._captcha)
        app.add_url_rule("/api/search", view_func=self._search, methods=["POST"])
        self._server = Server(app)
        self.url = self._server.url

    def __enter__(self) -> JsonApi:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def _captcha(self) -> Any:
        text = "".join(random.choices(ALPHABET, k=5))
        with self._lock:
            number = uuid.uuid4().hex
            self._expected[number] = text
            self._newest[request.cookies.get("sid", "")] = number
            self.stats["captchas"] += 1
        image = base64.b64encode(self.gallery.png(text)).decode()
        return jsonify(id=number, image=f"data:image/png;base64,{image}")

    def _search(self) -> Any:
        asked = request.get_json()
        with self._lock:
            number = asked["captcha"]
            right = self._expected.pop(number, None)
            if self.bound and self._newest.get(request.cookies.get("sid", "")) != number:
                right = None
            verdict = "solved" if right is not None and asked["answer"] == right else "wrong"
            self.stats[verdict] += 1
        if verdict == "wrong":
            return jsonify(error="The code is not correct."), 403
        return jsonify(results=[f"{asked['query']} {i}" for i in range(3)])
