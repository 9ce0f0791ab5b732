"""Sites that tell right and wrong answers in their own ways: what the spider gets of each."""

from __future__ import annotations

from typing import Any

import pytest
from flask import redirect, request, session
from pytest_twisted import ensureDeferred
from scrapy import FormRequest, Request

from scrapy_acecaptcha import CaptchaUnsolved
from tests.crawling import CollectingSpider, Crawl
from tests.register import RULE, WAYS, Register, check_suspended, crawl, wall
from tests.stub import ApiStub


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("script", [[], ["WRONG"]], ids=["right", "wrong first"])
@ensureDeferred
async def test_a_wall_in_place_brings_what_was_asked_for(
    register: Register, reader: ApiStub, way: str, script: list[str]
) -> None:
    register.view = wall(register, WAYS[way])
    reader.script += script
    done: Crawl = await crawl(register, reader, [f"/r/{i}" for i in range(3)])
    assert done.errors == []
    assert done.records == ["Record 0", "Record 1", "Record 2"]
    assert len(reader.calls) == register.solved + register.wrong == 1 + len(script)
    assert done.stats["solved"] == 1
    assert done.stats.get("rejected", 0) == len(script)


@ensureDeferred
async def test_a_form_is_looked_into_once(register: Register, reader: ApiStub) -> None:
    """One download more on a rule's first solve, and none after that."""

    def view(path: str) -> Any:
        if request.method == "POST" and register.is_right():
            return register.record(path)
        return register.form()

    register.view = view
    done: Crawl = await crawl(register, reader, [f"/r/{i}" for i in range(3)])
    assert done.records == ["Record 0", "Record 1", "Record 2"]
    assert register.asked == [
        *("GET /r/0", "POST /r/0", "GET /r/0"),
        *("GET /r/1", "POST /r/1"),
        *("GET /r/2", "POST /r/2"),
    ]


@ensureDeferred
async def test_a_post_that_meets_a_wall_brings_the_page_of_a_post(
    register: Register, reader: ApiStub
) -> None:
    def view(path: str) -> Any:
        if not session.get("free"):
            if "code" in request.form and register.is_right():
                session["free"] = True
                return redirect(f"/{path}")
            return register.form()
        return register.record(f"{path}/1" if request.method == "POST" else f"{path}/0")

    register.view = view
    post = Request(f"{register.url}/list", method="POST", body="page=2")
    done: Crawl = await crawl(register, reader, [post])
    assert done.records == ["Record 1"]
    assert done.stats["solved"] == 1


@ensureDeferred
async def test_an_empty_form_is_sent_again_without_a_captcha(
    register: Register, reader: ApiStub
) -> None:
    """A query is answered 403, but the session has been let through meanwhile."""

    def view(path: str) -> Any:
        if request.method == "GET":
            return register.query(free=session.get("free", False))
        if not session.get("free"):
            if not register.is_right():
                return register.query(free=False)
            session["free"] = True
            return "You searched a second ago", 403
        return register.record(f"x/{request.form['q']}")

    register.view = view
    done: Crawl = await crawl(register, reader, ["/search"], {"fields": {"q": "7"}})
    assert done.records == ["Record 7"]
    assert len(reader.calls) == 1


@ensureDeferred
async def test_a_session_let_through_meanwhile_still_gets_its_query(
    register: Register, reader: ApiStub
) -> None:
    def view(path: str) -> Any:
        if request.method == "GET":
            return register.query(free=session.get("free", False))
        session["free"] = session.get("free") or register.is_right()
        return register.record(f"x/{request.form['q']}") if session["free"] else register.form()

    register.view = view
    start = [
        Request(
            f"{register.url}/search?{i}",
            meta={"acecaptcha": {"fields": {"q": str(i)}}},
        )
        for i in range(5)
    ]
    done: Crawl = await crawl(register, reader, start, CONCURRENT_REQUESTS=4)
    assert done.errors == []
    assert done.records == [f"Record {i}" for i in range(5)]
    assert len(reader.calls) == 1


@ensureDeferred
async def test_one_request_reads_no_more_images_than_it_may_have_attempts(
    register: Register, reader: ApiStub
) -> None:
    """A site takes answers, lets the session through, and asks for a captcha all the same."""

    def view(path: str) -> Any:
        if request.method == "GET":
            return register.query(free=session.pop("free", False))
        if "code" not in request.form or not register.is_right():
            return register.query(free=False)
        session["free"] = True
        return "You searched a second ago", 403

    register.view = view
    wrong, right = "WRONG", register.gallery.answer
    reader.script.extend([wrong, right, wrong, right] * 2)
    done: Crawl = await crawl(register, reader, ["/search"], {"fields": {"q": "7"}}, RETRY_TIMES=1)
    assert [type(error) for error in done.errors] == [CaptchaUnsolved]
    assert len(reader.calls) == 3 * 2
    assert len(register.posted) == 3 * 2


class LoginSpider(CollectingSpider):
    """Logs in by the form of the page, as Scrapy's documentation shows."""

    def parse(self, response: Any) -> Any:
        yield FormRequest.from_response(
            response, formdata={"user": "me", "password": "secret"}, callback=self.keep
        )


# Deprecated, but spiders do it so.
@pytest.mark.filterwarnings("ignore:FormRequest:scrapy.exceptions.ScrapyDeprecationWarning")
@ensureDeferred
async def test_the_spiders_own_login(register: Register, reader: ApiStub) -> None:
    fields = (
        "<input name=user><input type=password name=password><input type=hidden name=t value={}>"
    )

    def view(path: str) -> Any:
        if request.method == "POST" and register.is_right() and request.form["password"]:
            return register.record("in/1")
        return register.form(fields=fields.format(len(register.asked)))

    register.view = view
    done: Crawl = await crawl(register, reader, ["/login"], spider=LoginSpider)
    assert done.records == ["Record 1"]
    assert [(one["user"], one["password"]) for one in register.posted] == [("me", "secret")] * 2
    assert register.posted[-1]["t"] == "2"  # the page's newest token, not the one that was posted
    assert len(reader.calls) == 1


@ensureDeferred
async def test_a_page_on_which_success_matches_is_no_wall(
    register: Register, reader: ApiStub
) -> None:
    """Result pages of WebForms show the captcha for the next search again."""

    def view(path: str) -> Any:
        if request.method == "POST" and register.is_right():
            session["found"] = True
        elif request.form.get("page") is None or not session.get("found"):
            return register.form()
        page = request.form.get("page", "1")
        return f"<div id=results></div>{register.record(f'x/{page}')}{register.form()}"

    register.view = view

    class Paging(CollectingSpider):
        def parse(self, response: Any) -> Any:
            self.keep(response)
            yield FormRequest(response.url, formdata={"page": "2"}, callback=self.keep)

    rule = {"success": "#results", "after": "stay"}
    done: Crawl = await crawl(register, reader, ["/search"], rule, spider=Paging)
    assert done.records == ["Record 1", "Record 2"]
    assert len(reader.calls) == 1


@ensureDeferred
async def test_a_file_is_no_text_of_which_success_is_missing(
    register: Register, reader: ApiStub
) -> None:
    pdf = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\nRecord\n"

    def view(path: str) -> Any:
        if request.method == "POST" and register.is_right():
            return pdf, {"Content-Type": "application/pdf"}
        return register.form()

    register.view = view
    done: Crawl = await crawl(register, reader, ["/a.pdf"], {"success": "h1.record"})
    assert [page.body for page in done.pages] == [pdf]
    assert done.stats["solved"] == 1


@pytest.mark.parametrize("concurrency", [1, 8])
@ensureDeferred
async def test_a_rule_that_can_never_succeed_is_suspended(
    register: Register, reader: ApiStub, concurrency: int, caplog: pytest.LogCaptureFixture
) -> None:
    def view(path: str) -> Any:
        if request.method == "POST":
            register.is_right()
        return register.form(fields="<input name=court><button name=go>Search</button>")

    register.view = view
    done: Crawl = await crawl(
        register,
        reader,
        [f"/r/{i}" for i in range(10)],
        {"session": False},
        ACECAPTCHA_MAX_REFUSED=5,
        CONCURRENT_REQUESTS=concurrency,
    )
    assert len(reader.calls) == 5
    assert done.pages == []
    assert [type(error) for error in done.errors] == [CaptchaUnsolved] * 10
    check_suspended(caplog, answers=5)


@ensureDeferred
async def test_a_rule_that_matches_nothing_is_told_of_once(
    register: Register, reader: ApiStub, caplog: pytest.LogCaptureFixture
) -> None:
    register.view = lambda path: register.form()
    done: Crawl = await crawl(
        register, reader, [f"/r/{i}" for i in range(25)], {"image": "#capcha"}
    )
    assert len(done.pages) == 25
    told = [r.getMessage() for r in caplog.records if "has matched none" in r.getMessage()]
    assert len(told) == 1
    assert "#capcha" in told[0]
    assert "#captcha" in told[0]  # what detection sees there


@ensureDeferred
async def test_a_rule_whose_host_nobody_asked_for_is_told_of(
    register: Register, reader: ApiStub, caplog: pytest.LogCaptureFixture
) -> None:
    register.view = register.record
    await crawl(register, reader, ["/r/1"], ACECAPTCHA_RULES={"www.example.org": RULE})
    told = [r.getMessage() for r in caplog.records if "was never used" in r.getMessage()]
    assert len(told) == 1
    assert "www.example.org" in told[0]
    assert register.url.partition("://")[2] in told[0]


@ensureDeferred
async def test_an_answer_that_did_not_reach_the_site_is_not_refused(
    register: Register, reader: ApiStub
) -> None:
    """Nothing listens where the form leads."""
    register.view = lambda path: register.form(action="http://127.0.0.1:9/x")
    done: Crawl = await crawl(register, reader, ["/r/1"], {"max_attempts": 1}, RETRY_TIMES=0)
    assert isinstance(done.error, CaptchaUnsolved)
    assert done.stats["api_requests"] == 1
    assert "rejected" not in done.stats
    assert done.stats["unsent"] == 1


@ensureDeferred
async def test_pages_that_refresh_to_captchas_are_paid_for_within_bounds(
    register: Register, reader: ApiStub
) -> None:
    """Each page behind a captcha leads, by a meta refresh, to the next captcha."""

    def view(path: str) -> Any:
        if request.method == "POST" and register.is_right():
            number = int(path.rpartition("/")[2]) + 1
            return f'<meta http-equiv=refresh content="0; url=/r/{number}"><p>One moment</p>'
        return register.form()

    register.view = view
    done: Crawl = await crawl(register, reader, ["/r/0"], {}, RETRY_TIMES=1)
    assert done.pages == []
    assert len(reader.calls) <= 3 * 2
