"""Pages that mean harm, by accident or not. Nothing here may hang a crawl or reach a file.

/hostile/<kind> for each of KINDS. Everything but the named fault is a plain captcha form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any, ClassVar

from flask import Response, redirect, request
from PIL import Image

from .scenario import InPlace, Session

_GOOD = '<img id="captcha" src="/hostile/captcha.png">'

# The captcha element of each kind.
IMAGES = {
    "src-file": '<img id="captcha" src="file:///etc/passwd">',
    "src-ftp": '<img id="captcha" src="ftp://127.0.0.1/captcha.png">',
    "src-missing": '<img id="captcha" alt="no source">',
    "src-empty": '<img id="captcha" src="">',
    "src-404": '<img id="captcha" src="/hostile/no-such-image.png">',
    "src-html": '<img id="captcha" src="/hostile/image/html">',
    "src-lying": '<img id="captcha" src="/hostile/image/lying">',
    "src-text": '<img id="captcha" src="/hostile/image/text">',
    "src-nothing": '<img id="captcha" src="/hostile/image/nothing">',
    "src-broken": '<img id="captcha" src="data:image/png;base64,iVBORw0KGgo=!!!not*base64">',
    "src-big": '<img id="captcha" src="/hostile/image/big">',
    "src-loop": '<img id="captcha" src="/hostile/image/loop">',
    "many-images": "\n".join([_GOOD] * 10_000),
}
ACTIONS = {"action-file": "file:///etc/passwd", "action-javascript": "javascript:alert(1)"}
PAGES = ("no-form", "no-input", "huge-page")
KINDS = (*IMAGES, *ACTIONS, *PAGES)


class Hostile(InPlace):
    name = "hostile"
    cookie = "hostile_sid"
    rule: ClassVar = {"image": "img#captcha", "input": "input[name=code]"}

    def route(self, session: Session, path: str) -> Any:
        return self.do_record(session, path) if path in KINDS else super().route(session, path)

    def do_listing(self, session: Session) -> str:
        return "".join(f'<li><a class="record" href="/hostile/{k}">{k}</a></li>' for k in KINDS)

    def wall(self, session: Session, message: str = "") -> Any:
        self.count("walls")
        kind = request.path.rpartition("/")[2]
        return Response(_huge()) if kind == "huge-page" else _page(kind, message)

    def do_image(self, session: Session, kind: str) -> Any:
        if kind == "loop":
            return redirect(f"/hostile/image/loop?{len(request.query_string) % 40 * 'x'}x")
        body, mimetype = {
            "html": (b"<html><body>Session expired</body></html>", "text/html"),
            "lying": (b"<html><body>Session expired</body></html>", "image/png"),
            "text": (b"no image today", "text/plain"),
            "nothing": (b"", "image/png"),
            "big": (_big_image() if kind == "big" else b"", "image/png"),
        }[kind]
        return Response(body, mimetype=mimetype)


def _page(kind: str, message: str = "") -> str:
    image = IMAGES.get(kind, _GOOD)
    field = "" if kind == "no-input" else '<input name="code">'
    inside = f"{image}{field}<button>Go</button>"
    form = f'<form method="post" action="{ACTIONS.get(kind, "")}">{inside}</form>'
    return (
        f"<!DOCTYPE html><html><head><title>{kind}</title></head><body>{message}"
        f"{inside if kind == 'no-form' else form}</body></html>"
    )


def _huge() -> Iterator[str]:
    """50 MB of paragraphs after the form."""
    page, end = _page("huge-page").split("</body>")
    yield page
    for _ in range(500):
        yield "<p>And so on, and so on.</p>\n" * 3_572
    yield "</body>" + end


@cache
def _big_image() -> bytes:
    """A 9 MB PNG that nothing is wrong with but its size."""
    file = BytesIO()
    Image.frombytes("RGB", (1733, 1733), os.urandom(1733 * 1733 * 3)).save(file, "PNG")
    return file.getvalue()
