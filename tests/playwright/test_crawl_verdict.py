"""Pages of scrapy-playwright at sites that tell right and wrong answers in their own ways."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from flask import redirect, request, session
from pytest_twisted import ensureDeferred
from scrapy import Request

from scrapy_acecaptcha import CaptchaUnsolved
from tests.crawl_browser import crawl_settings
from tests.crawling import Crawl
from tests.register import FORM, WAYS, Register, check_suspended, crawl, wall
from tests.stub import ApiStub

pytestmark = pytest.mark.usefixtures("browser_crawls")


def page(register: Register, path: str, **more: Any) -> Request:
    meta = {"playwright": True, **more.pop("meta", {})}
    return Request(f"{register.url}/{path}", meta=meta, **more)


async def browse(
    register: Register, reader: ApiStub, start: list[Request], rule: Any = None, **more: Any
) -> Crawl:
    done: Crawl = await crawl(register, reader, start, rule, **{**crawl_settings(), **more})
    stats = done.all_stats
    assert stats["playwright/page_count/closed"] == stats["playwright/page_count"]
    return done


def bare(fields: str) -> str:
    return f"<form method=post>{fields}<button>Go</button></form>"


@ensureDeferred
async def test_walls_in_place_bring_what_was_asked_for(
    register: Register, reader: ApiStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way has a session of its own, whose first right answer is taken for a wrong one."""
    refused: set[str] = set()
    is_right = register.is_right

    def is_right_at_last() -> bool:
        way = request.path.split("/")[1]
        if not is_right():
            return False
        if way in refused:
            return True
        refused.add(way)
        return False

    monkeypatch.setattr(register, "is_right", is_right_at_last)

    def view(path: str) -> Any:
        way = path.partition("/")[0]
        return wall(register, WAYS[way])(path) if way in WAYS else register.record(path)

    register.view = view
    start = [
        page(
            register,
            f"{way}/{number}",
            # Another selector is another rule, of which nothing is known yet.
            meta={"playwright_context": way, "acecaptcha": {"image": f"#captcha, #n{number}"}},
        )
        for number, way in enumerate(WAYS)
    ]
    done = await browse(register, reader, start)
    assert done.errors == []
    assert done.records == [f"Record {number}" for number in range(len(WAYS))]
    assert len(reader.calls) == 2 * len(WAYS)
    assert (done.stats["solved"], done.stats["rejected"]) == (len(WAYS), len(WAYS))
    assert {one.status for one in done.pages} == {200}


@ensureDeferred
async def test_a_page_that_comes_only_once_is_kept(register: Register, reader: ApiStub) -> None:
    """The first answer is looked into, which must not lose it."""

    def view(path: str) -> Any:
        if request.method == "POST" and register.is_right():
            return register.record(path), 201
        return register.form(), 403

    register.view = view
    done = await browse(register, reader, [page(register, f"r/{i}") for i in range(3)])
    assert done.records == ["Record 0", "Record 1", "Record 2"]
    assert [one.status for one in done.pages] == [201] * 3
    assert len(reader.calls) == 3
    assert all(one.meta["acecaptcha_result"]["attempts"] == 1 for one in done.pages)


@ensureDeferred
async def test_a_post_that_meets_a_wall_brings_the_page_of_a_post(
    register: Register, reader: ApiStub
) -> None:
    def view(path: str) -> Any:
        if not session.get("free"):
            if "code" in request.form:
                session["free"] = register.is_right()
                return "Thank you"
            return register.form()
        return register.record(f"x/{request.form['page']}" if request.method == "POST" else "x/0")

    register.view = view
    post = page(
        register,
        "list",
        method="POST",
        body="page=2",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    done = await browse(register, reader, [post])
    assert done.records == ["Record 2"]
    assert done.stats["solved"] == 1


@ensureDeferred
async def test_sessions_let_through_meanwhile_still_get_their_queries(
    register: Register, reader: ApiStub
) -> None:
    """The form asks for no captcha any more, and its first answer is that it was too soon."""
    head = "<form action=/elsewhere><button>Search the site</button></form>"

    def view(path: str) -> Any:
        fields = "<input name=q>"
        if request.method == "GET":
            form = bare(fields) if session.get("free") else register.form(fields=fields)
            return head + form
        if not session.get("free"):
            if not register.is_right():
                return register.form(fields=fields)
            session["free"] = True
            return "<p>You searched a second ago</p>", 403
        return register.record(f"x/{request.form['q']}")

    register.view = view
    start = [
        page(register, f"search?{i}", meta={"acecaptcha": {"fields": {"q": str(i)}}})
        for i in range(4)
    ]
    done = await browse(register, reader, start)
    assert done.errors == []
    assert done.records == [f"Record {i}" for i in range(4)]
    assert len(reader.calls) == 1


@ensureDeferred
async def test_frames_and_what_their_forms_lead_to(register: Register, reader: ApiStub) -> None:
    refused: list[bool] = []

    def view(path: str) -> Any:
        if path == "inner":
            return "<iframe src=/form></iframe>"
        if path == "form":
            return register.form(action="/check")
        if path == "check":
            if not refused:
                refused.append(register.is_right())
                return register.form(action="/check", message="Wrong")
            session["free"] = register.is_right()
            return "<p>Thank you</p>"
        if session.get("free"):
            return register.record(path)
        return "<p>Please wait</p><iframe id=outer src=/inner></iframe>"

    register.view = view
    rule = {"frame": "iframe#outer >> iframe", "success": "h1.record"}
    done = await browse(register, reader, [page(register, f"r/{i}") for i in range(3)], rule)
    assert done.errors == []
    assert done.records == ["Record 0", "Record 1", "Record 2"]
    assert len(reader.calls) == 2
    assert (done.stats["solved"], done.stats["rejected"]) == (1, 1)


@ensureDeferred
async def test_a_rule_that_can_never_succeed_is_suspended(
    register: Register, reader: ApiStub, caplog: pytest.LogCaptureFixture
) -> None:
    def view(path: str) -> Any:
        if request.method == "POST":
            register.is_right()
        return register.form(fields="<input name=court>")

    register.view = view
    done = await browse(
        register,
        reader,
        [page(register, f"r/{i}") for i in range(4)],
        {"session": False},
        ACECAPTCHA_MAX_REFUSED=4,
    )
    assert len(reader.calls) == 4
    assert done.pages == []
    assert [type(error) for error in done.errors] == [CaptchaUnsolved] * 4
    check_suspended(caplog, answers=4)


@ensureDeferred
async def test_an_answer_that_is_never_sent_is_paid_for_once(
    register: Register, reader: ApiStub, tmp_path: Path
) -> None:
    form = FORM.format(action="", fields="").replace("<form", "<form onsubmit='return false'")
    register.view = lambda path: form
    journal = tmp_path / "journal.db"
    done = await browse(
        register,
        reader,
        [page(register, "r/0", meta={"playwright_page_init_callback": be_impatient})],
        ACECAPTCHA_JOURNAL=str(journal),
    )
    assert isinstance(done.error, CaptchaUnsolved)
    assert "never sent" in str(done.error)
    assert len(reader.calls) == 1
    assert (done.stats["unsent"], done.stats.get("rejected")) == (1, None)
    with sqlite3.connect(journal) as rows:
        assert rows.execute("SELECT outcome FROM calls").fetchall() == [("unsent",)]


async def be_impatient(page: Any, request: Request) -> None:
    page.set_default_timeout(1000)


@ensureDeferred
async def test_a_rule_that_matches_nothing_is_told_of(
    register: Register, reader: ApiStub, caplog: pytest.LogCaptureFixture
) -> None:
    register.view = lambda path: register.form()
    done = await browse(register, reader, [page(register, "r/0")], {"image": "#capcha"})
    assert len(done.pages) == 1
    told = [r.getMessage() for r in caplog.records if "has matched none" in r.getMessage()]
    assert len(told) == 1
    assert "'#captcha'" in told[0]  # what detection sees there


@ensureDeferred
async def test_pages_that_refresh_to_a_captcha_for_ever(
    register: Register, reader: ApiStub
) -> None:
    """Whatever a site does, a request pays for no more than its attempts and its retries.

    A browser follows a refresh at once, and leaves one that comes later to Scrapy.
    """

    def view(path: str) -> Any:
        if request.method == "POST" and register.is_right():
            session["free"] = True
            return redirect(f"/{path}")
        if not session.pop("free", False):
            return register.form()
        step, seconds = path.split("/")
        target = f"/{int(step) + 1}/{seconds}"
        return f"<meta http-equiv=refresh content='{seconds};url={target}'><p>Wait</p>"

    register.view = view
    done = await browse(
        register,
        reader,
        [page(register, f"0/{seconds}") for seconds in (0, 30)],
        ACECAPTCHA_MAX_ATTEMPTS=2,
        RETRY_TIMES=0,
    )
    assert len(reader.calls) <= 2 * 2
    assert len(register.posted) == len(reader.calls)
    assert len(done.pages) + len(done.errors) == 2
