"""The site and the recognition API that the benchmarks crawl, each in a process of its own.

They are made to be fast, so that what is measured is the crawler: nothing is drawn, and what is
written on a captcha's image stands behind the image's last byte, where only the API looks.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import random
import string
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

from aiohttp import web
from PIL import Image

PAGES = 100  # different pages without a captcha
PAGE_BYTES = 20_000
PAGES_THAT_SAY_CAPTCHA = 5  # of these hundred
RULE = {"image": "img#captcha", "input": "input[name=code]"}
# Pages per captcha, by what is asked for at a wall: shown to whoever has answered once, walls in
# place and on a page of its own that ask again, and a query form that asks each time.
PER_CAPTCHA = {"record": math.inf, "again": 100, "away": 100, "ask": 1}
UNREAD = "UNREAD"  # what the API reads in a screenshot; the site takes it

_TEXT_LENGTH = 6


def _picture() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((150, 50), 60).save(file, "PNG")
    return file.getvalue()


_PICTURE = _picture()


def draw(text: str) -> bytes:
    """An image with *text* on it."""
    return _PICTURE + text.encode("ascii")


def read(image: bytes) -> str:
    """What is written on an image."""
    text = image[-_TEXT_LENGTH:]
    return text.decode("ascii") if text.isalnum() else UNREAD


# The API


@dataclass
class Calls:
    """What one customer of the API has asked for."""

    calls: int = 0
    parallel: int = 0
    max_parallel: int = 0


def api() -> web.Application:
    """The API, at /<customer>/<seconds>: each has a latency and counters of its own."""
    customers: dict[str, Calls] = {}

    async def recognise(request: web.Request) -> web.Response:
        mine = customers.setdefault(request.match_info["customer"], Calls())
        mine.calls += 1
        mine.parallel += 1
        mine.max_parallel = max(mine.max_parallel, mine.parallel)
        try:
            image = base64.b64decode((await request.json())["image"])
            await asyncio.sleep(float(request.match_info["seconds"]))
            return web.json_response({"text": read(image)})
        finally:
            mine.parallel -= 1

    async def stats(request: web.Request) -> web.Response:
        return web.json_response(vars(customers.get(request.match_info["customer"], Calls())))

    app = web.Application()
    app.router.add_post("/{customer}/{seconds}/captcha/recognition/image2text", recognise)
    app.router.add_get("/{customer}/stats", stats)
    return app


# The site


@dataclass
class HttpSession:
    """What the site remembers of a visitor: above all one expected answer, never two."""

    expected: str = ""
    pages: float = 0  # that it may still see


@dataclass
class Wall:
    """Records that are shown to whoever has answered, as in many a registry.

    The right answer leads back to the record, a wrong one to the next captcha.
    """

    visitors: dict[str, HttpSession] = field(default_factory=dict)
    stats: Counter[str] = field(default_factory=Counter)

    def visitor(self, request: web.Request) -> tuple[HttpSession, str]:
        """Like PHP's, a session starts with the first request without a cookie."""
        key = request.cookies.get("sid", "")
        if key not in self.visitors:
            key = uuid.uuid4().hex
            self.visitors[key] = HttpSession()
        return self.visitors[key], key

    async def record(self, request: web.Request) -> web.Response:
        visitor, key = self.visitor(request)
        self.stats["requests"] += 1
        if visitor.pages:
            visitor.pages -= 1
            self.stats["pages"] += 1
            return _html(_RECORD % request.match_info["i"])
        if request.match_info["kind"] == "away":
            check = f"/{request.match_info['wall']}/away/{request.match_info['i']}/check"
            response = web.Response(status=302, headers={"Location": check})
        else:
            response = self.form(request)
        response.set_cookie("sid", key, httponly=True)
        return response

    async def check(self, request: web.Request) -> web.Response:
        self.stats["requests"] += 1
        return self.form(request)

    def form(self, request: web.Request) -> web.Response:
        return _html(_FORM % f"/{request.match_info['wall']}/captcha.png")

    async def image(self, request: web.Request) -> web.Response:
        visitor, _ = self.visitor(request)
        self.stats["requests"] += 1
        visitor.expected = _random_text()
        return web.Response(body=draw(visitor.expected), content_type="image/png")

    async def answer(self, request: web.Request) -> web.Response:
        visitor, _ = self.visitor(request)
        self.stats["requests"] += 1
        answer = (await request.post()).get("code")
        expected, visitor.expected = visitor.expected, ""
        is_right = bool(answer) and answer in (expected, UNREAD)
        kind = request.match_info["kind"]
        if is_right:
            visitor.pages = PER_CAPTCHA[kind]
        self.stats["solved" if is_right else "wrong"] += 1
        if kind == "ask" and is_right:  # the query's answer
            visitor.pages = 0
            return _html(_RECORD % request.match_info["i"])
        raise web.HTTPSeeOther(request.path.removesuffix("/check"))


def site() -> web.Application:
    """The site: pages without a captcha, any number of walls, and a captcha on every page."""
    walls: dict[str, Wall] = {}
    free = [_free_page(i) for i in range(PAGES)]

    def wall(request: web.Request) -> Wall:
        return walls.setdefault(request.match_info["wall"], Wall())

    async def front_page(request: web.Request) -> web.Response:
        return _html("<h1>Records</h1>")

    async def page(request: web.Request) -> web.Response:
        return _html(free[int(request.match_info["i"]) % PAGES])

    async def record(request: web.Request) -> web.Response:
        return await wall(request).record(request)

    async def check(request: web.Request) -> web.Response:
        return await wall(request).check(request)

    async def image(request: web.Request) -> web.Response:
        return await wall(request).image(request)

    async def answer(request: web.Request) -> web.Response:
        return await wall(request).answer(request)

    async def stats(request: web.Request) -> web.Response:
        return web.json_response(wall(request).stats)

    app = web.Application()
    app.router.add_get("/", front_page)
    app.router.add_get("/page/{i}", page)
    kinds = "|".join(PER_CAPTCHA)
    records = f"/{{wall}}/{{kind:{kinds}}}/{{i}}"
    app.router.add_get(records, record)
    app.router.add_post(records, answer)
    app.router.add_get(f"{records}/check", check)
    app.router.add_post(f"{records}/check", answer)
    app.router.add_get("/{wall}/captcha.png", image)
    app.router.add_get("/{wall}/stats", stats)
    _add_query(app)
    return app


def _add_query(app: web.Application) -> None:
    """A captcha for every single page, which no cookie ties to a visitor."""
    expected: dict[str, str] = {}

    async def ask(request: web.Request) -> web.Response:
        key = uuid.uuid4().hex
        expected[key] = _random_text()
        return _html(_QUERY % {"key": key})

    async def image(request: web.Request) -> web.Response:
        return web.Response(
            body=draw(expected[request.match_info["key"]]), content_type="image/png"
        )

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        if expected.pop(str(form.get("key")), None) != form.get("code"):
            return await ask(request)
        return _html(_RECORD % request.match_info["i"])

    app.router.add_get("/query/{i}", ask)
    app.router.add_post("/query/{i}", answer)
    app.router.add_get("/query/captcha/{key}.png", image)


def _html(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/html", charset="utf-8")


def _random_text() -> str:
    return "".join(random.choices(string.ascii_uppercase, k=_TEXT_LENGTH))


_RECORD = """<!DOCTYPE html><html><head><title>Record</title></head><body>
<h1 class="record">Record %s</h1><p>Everything we know about it.</p></body></html>"""
_FORM = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Check</title></head>
<body><h2>Please verify that you are human</h2><form method="post" action=""><table>
<tr><td>Security code:</td><td><img id="captcha" src="%s" alt="code"></td></tr>
<tr><td>Type the code</td><td><input type="text" name="code" size="8"></td></tr>
<tr><td></td><td><input type="submit" name="go" value="Continue"></td></tr>
</table></form></body></html>"""
_QUERY = _FORM.replace("%s", "/query/captcha/%(key)s.png").replace(
    "</table>", '</table><input type="hidden" name="key" value="%(key)s">'
)
_WORDS = ["record", "court", "register", "office", "date", "party", "notice", "district", "deed"]


def _free_page(i: int) -> str:
    """A page as registries have them: navigation, a form, a table with links and images."""
    draw_from = random.Random(i)

    def words(count: int) -> str:
        return " ".join(draw_from.choices(_WORDS, k=count))

    def title() -> str:
        return (
            words(2) + draw_from.choices([" ", " &amp; ", "&#39;s "], [92, 7.6, 0.4])[0] + words(2)
        )

    parts = [f"<!DOCTYPE html><html><head><title>{words(4)}</title></head><body><ul>"]
    parts += [f'<li><a href="#{n}" class="nav">{words(2)}</a></li>' for n in range(30)]
    parts.append('</ul><form action="/search"><input name="q"><button>Find</button></form>')
    if i % (PAGES // PAGES_THAT_SAY_CAPTCHA) == 0:
        parts.append("<p>We may ask you for a captcha when there are many requests.</p>")
    parts.append('<table class="records">')
    length = sum(map(len, parts))
    while length < PAGE_BYTES:
        row = (
            f'<tr><td class="id">{draw_from.randrange(10**6)}</td><td>{words(3)}</td>'
            f'<td><a href="/page/{draw_from.randrange(1000)}">{title()}</a></td>'
            f'<td><img src="/icons/{draw_from.randrange(9)}.png" alt=""></td></tr>\n'
        )
        parts.append(row)
        length += len(row)
    return "".join([*parts, "</table></body></html>"])


# Processes


@contextmanager
def serve(name: str) -> Iterator[str]:
    """Serve one of the apps from a process of its own, at the URL that is yielded."""
    command = [sys.executable, "-m", "benchmarks.servers", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def fetch(url: str) -> Any:
    """The JSON at *url*."""
    with urlopen(url) as response:
        return json.load(response)


async def _serve_forever(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    from benchmarks.services import services

    apps = {"api": api, "site": site, "services": services}
    asyncio.run(_serve_forever(apps[sys.argv[1]]()))
