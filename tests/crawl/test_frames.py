"""A captcha in a frame."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import pytest
from flask import Flask, Response, redirect, request, session
from pytest_twisted import ensureDeferred
from scrapy.http import HtmlResponse

from scrapy_acecaptcha.crawl.rule_health import what_detection_sees
from scrapy_acecaptcha.errors import CaptchaUnsolved
from tests.crawling import run_crawl
from tests.site import CaptchaSite
from tests.site.server import Server

RECORD = "<!DOCTYPE html><h1 class=record>Record 1</h1><img id=captcha src=/logo.png>"
FORM = "<form method=post action=/check><img id=captcha src=/c.png><input name=code></form>"


class FramedSite:
    """A page whose captcha stands in a frame, or in a frame inside of one."""

    def __init__(self, site: CaptchaSite) -> None:
        self.gallery = site.gallery
        self.paths: list[str] = []
        self.frame = "<iframe id=outer src=/frame></iframe>"
        self.inner = FORM
        self.wrong = 0
        app = Flask("framed")
        app.secret_key = "framed"
        app.before_request(lambda: self.paths.append(request.path))
        app.add_url_rule("/record/1", view_func=self.record)
        app.add_url_rule("/frame", view_func=lambda: self.inner, endpoint="frame")
        app.add_url_rule("/deep", view_func=lambda: FORM, endpoint="deep")
        app.add_url_rule("/c.png", view_func=self.image, endpoint="image")
        app.add_url_rule("/deeper/c.png", view_func=self.image, endpoint="deeper")
        app.add_url_rule("/check", view_func=self.check, methods=["POST"], endpoint="check")
        self.server = Server(app)

    def record(self) -> Any:
        return RECORD if session.get("passed") else f"<p>Wait</p>{self.frame}"

    def image(self) -> Any:
        session["answer"] = f"ab{len(self.paths)}"
        return Response(self.gallery.png(session["answer"]), mimetype="image/png")

    def check(self) -> Any:
        if self.wrong:
            self.wrong -= 1
            return redirect("/frame")
        session["passed"] = request.form["code"] == session.pop("answer", None)
        return "<p>Thank you</p>" if session["passed"] else FORM


@pytest.fixture
def framed(site: CaptchaSite) -> Iterator[FramedSite]:
    running = FramedSite(site)
    running.server.start()
    yield running
    running.server.stop()


async def crawl(framed: FramedSite, api: Any, **rule: Any) -> Any:
    rules = {"127.0.0.1": {"image": "#captcha", "input": "[name=code]", **rule}}
    settings = {"ACECAPTCHA_API_BASE_URL": api.url, "ACECAPTCHA_RULES": rules}
    return await run_crawl([f"{framed.server.url}/record/1"], settings)


@pytest.mark.parametrize("more", [{}, {"success": "h1.record"}], ids=["plain", "success"])
@ensureDeferred
async def test_a_captcha_in_a_frame(framed: FramedSite, api: Any, more: dict[str, str]) -> None:
    crawled = await crawl(framed, api, frame="iframe#outer", **more)
    assert crawled.records == ["Record 1"]
    assert framed.paths == ["/record/1", "/frame", "/c.png", "/check", "/record/1"]
    assert (crawled.stats["solved"], len(api.calls)) == (1, 1)


@ensureDeferred
async def test_a_frame_inside_of_a_frameset(framed: FramedSite, api: Any) -> None:
    framed.frame = "<frameset><frame name=left src=/frame></frameset>"
    framed.inner = "<iframe src=/deep></iframe>"
    crawled = await crawl(framed, api, frame="frame[name=left] >> iframe")
    assert crawled.records == ["Record 1"]
    assert framed.paths == ["/record/1", "/frame", "/deep", "/c.png", "/check", "/record/1"]


@ensureDeferred
async def test_a_frame_that_is_written_out_in_its_page(framed: FramedSite, api: Any) -> None:
    inner = FORM.replace("/c.png", "c.png")
    framed.frame = f"<base href=/deeper/><iframe id=outer src=/x srcdoc='{escape(inner)}'></iframe>"
    crawled = await crawl(framed, api, frame="iframe#outer")
    assert crawled.records == ["Record 1"]
    assert framed.paths == ["/record/1", "/deeper/c.png", "/check", "/record/1"]


@ensureDeferred
async def test_a_refused_answer_in_a_frame_is_tried_again(framed: FramedSite, api: Any) -> None:
    framed.wrong = 1
    crawled = await crawl(framed, api, frame="iframe#outer")
    assert crawled.records == ["Record 1"]
    assert (crawled.stats["rejected"], crawled.stats["solved"]) == (1, 1)


@ensureDeferred
async def test_a_frame_that_cannot_be_had_is_an_error(framed: FramedSite, api: Any) -> None:
    framed.frame = "<iframe id=outer src=http://127.0.0.1:1/></iframe>"
    crawled = await crawl(framed, api, frame="iframe#outer")
    assert isinstance(crawled.error, CaptchaUnsolved)
    assert "The frame http://127.0.0.1:1/ could not be downloaded" in str(crawled.error)


def test_frames_are_named_where_a_rule_matches_nothing() -> None:
    page = HtmlResponse("http://a.example/", body=b"<iframe id=outer src=/x></iframe>")
    assert "set frame to one of 'iframe[id=\"outer\"]'" in what_detection_sees(page)
