"""A site that a test makes up of a view, and the ways in which sites tell right from wrong."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, redirect, request, session

from tests.crawling import CollectingSpider, run_crawl
from tests.site.drawing import Gallery
from tests.site.server import Server
from tests.stub import ApiStub

RULE = {"image": "#captcha", "input": "[name=code]"}
FORM = (
    "<form method=post action='{action}'>{fields}<img id=captcha src=/captcha.png>"
    "<input name=code><button>Go</button></form>"
)
Answer = Callable[[bool, str], Any]


class Register:
    """A site whose `view` a test makes up of what is here.

    `solved`, `wrong`: submissions; `asked`: addresses asked for, in order.
    """

    def __init__(self) -> None:
        self.gallery = Gallery()
        self.lock = threading.Lock()
        self.app = Flask("register")
        self.app.secret_key = "not a secret"
        self.app.add_url_rule("/captcha.png", view_func=self._image)
        self.app.add_url_rule("/<path:path>", "page", self._page, methods=["GET", "POST"])
        self._drawn = 0
        self.texts: dict[int, str] = {}
        self.server = Server(self.app)
        self.url = self.server.url
        self.reset(lambda path: "")

    def reset(self, view: Callable[[str], Any]) -> None:
        self.view = view
        self.solved = self.wrong = 0
        self.asked: list[str] = []
        self.posted: list[dict[str, str]] = []

    def form(self, action: str = "", fields: str = "", message: str = "") -> str:
        return f"<title>Check</title><p>{message}</p>" + FORM.format(action=action, fields=fields)

    def query(self, *, free: bool) -> str:
        """A search form, which asks for no captcha in a session that has been let through."""
        fields = "<input name=q>"
        bare = f"<form method=post>{fields}<button>Go</button></form>"
        return bare if free else self.form(fields=fields)

    def record(self, path: str) -> str:
        return f"<title>Record</title><h1 class=record>Record {path.rpartition('/')[2]}</h1>"

    def is_right(self) -> bool:
        """Judge the answer that was sent; each is good for one try."""
        expected = self.texts.get(session.pop("drawn", 0), "")
        is_right = bool(expected) and request.form.get("code") == expected
        with self.lock:
            self.posted.append(dict(request.form))
            self.solved += is_right
            self.wrong += not is_right
        return is_right

    def _page(self, path: str) -> Any:
        with self.lock:
            self.asked.append(f"{request.method} /{path}")
        return self.view(path)

    def _image(self) -> Any:
        with self.lock:
            self._drawn += 1
            number = session["drawn"] = self._drawn
        self.texts[number] = f"{number:05d}".translate(str.maketrans("0158", "AHMW"))
        image = self.gallery.png(self.texts[number])
        return io.BytesIO(image).getvalue(), {"Content-Type": "image/png"}


def wall(register: Register, told: Answer) -> Callable[[str], Any]:
    """A wall in place, whose answers are told by *told*; one right answer opens it."""

    def view(path: str) -> Any:
        if request.method == "POST":
            is_right = register.is_right()
            session["free"] = session.get("free") or is_right
            return told(is_right, path)
        return register.record(path) if session.get("free") else register.form()

    return view


WAYS: dict[str, Answer] = {
    "alert": lambda ok, path: (
        redirect(f"/{path}") if ok else "<script>alert('Wrong code');history.back()</script>"
    ),
    "json": lambda ok, path: {"ok": ok},
    "text": lambda ok, path: ("done" if ok else "error", {"Content-Type": "text/plain"}),
    "untagged": lambda ok, path: redirect(f"/{path}") if ok else "failed captcha",
    "json as html": lambda ok, path: ('{"ok": true}' if ok else '{"ok": false}', 200),
    "empty": lambda ok, path: redirect(f"/{path}") if ok else "",
    "error": lambda ok, path: redirect(f"/{path}") if ok else ("No", 403),
    "thanks": lambda ok, path: "<p>Thank you</p>" if ok else register_form("Wrong, once more"),
    "home": lambda ok, path: redirect("/home") if ok else register_form("Wrong"),
    "script": lambda ok, path: (
        f"<script>location.href = '/{path}'</script>" if ok else register_form("Wrong")
    ),
}


def register_form(message: str) -> str:
    return f"<p>{message}</p>" + FORM.format(action="", fields="")


def crawl(
    register: Register,
    reader: ApiStub,
    start: list[Any],
    rule: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """Crawl pages of the register, by their paths or by requests."""
    spider = more.pop("spider", CollectingSpider)
    host = register.url.partition("://")[2]
    settings = {
        "ACECAPTCHA_API_BASE_URL": reader.url,
        "ACECAPTCHA_RULES": {host: {**RULE, **(rule or {})}},
        **more,
    }
    return run_crawl(
        [f"{register.url}{one}" if isinstance(one, str) else one for one in start],
        settings,
        spider=spider,
    )


def check_suspended(caplog: pytest.LogCaptureFixture, *, answers: int) -> None:
    """One ERROR says why a rule was suspended whose form was sent without a court."""
    told = [r.getMessage() for r in caplog.records if "is suspended until" in r.getMessage()]
    assert len(told) == 1
    assert f"{answers} answers in a row were not taken" in told[0]
    assert "sent with nothing in court: fill it in by `fields`" in told[0]
    assert "`success`" in told[0]
