"""solve_captcha() on every scenario, and among tabs, dialogs, failures and other tasks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import zlib
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError

from scrapy_acecaptcha import (
    AceCaptchaClient,
    ApiAuthError,
    ApiServerError,
    CaptchaImageError,
    CaptchaNotFound,
    CaptchaUnsolved,
    SettingsError,
)
from scrapy_acecaptcha.errors import CaptchaError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright import solve_captcha
from tests.browsers import AsyncBrowser, Browser, both_apis, on_page
from tests.lab import IMAGE, REST, form
from tests.playwright.conftest import RULE
from tests.site import RULES
from tests.stub import ApiStub

WRONG = "XXXXX"


# Every scenario of the site

SCENARIOS = sorted(set(RULES) - {"hostile", "nocaptcha", "post"})
# A wrong answer looks like a right one there, but for what the page says.
SAYS = {"through_silent": {"success": "text=You are through"}}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario(browser: Browser, site, scenario):
    def body(page: Any) -> Steps[Any]:
        for i in range(1 if scenario == "pdf" else 2):
            url = f"{site.url}/{scenario}/record/{i}"
            yield page.goto(url)
            if not (yield page.locator("h1.record").count()):
                rule = {**RULES[scenario], **SAYS.get(scenario, {})}
                yield solve_captcha(page, rule, client=client)
            if scenario != "pdf":
                yield page.locator("h1.record", has_text=f"Record {i}").wait_for()

    seed = zlib.crc32(scenario.encode())
    with (
        ApiStub(site.answers, wrong=0.15, seed=seed) as api,
        AceCaptchaClient("token", api.url, retries=0) as client,
    ):
        on_page(browser, body)
    stats = site.stats[scenario]
    assert stats["solved"] >= 1
    assert (stats["spoiled"], stats["improper"]) == (0, 0)
    assert len(api.calls) == stats["solved"] + stats["wrong"]


# No captcha, or none that can be read


@both_apis
def test_no_captcha(browser, lab, client):
    lab.page = "<p>Nothing here"

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        none = yield solve_captcha(page, RULE, client=client, timeout=300, optional=True)
        assert none is None
        with pytest.raises(CaptchaNotFound) as caught:
            yield solve_captcha(page, RULE, client=client, timeout=300)
        return str(caught.value)

    message = on_page(browser, body)
    assert "#captcha" in message
    assert lab.url in message


def test_an_image_that_does_not_load(browser, lab, lab_api, client):
    lab.page = form("<img id=captcha src=/no-such.png width=9 height=9><input name=code>")

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        yield solve_captcha(page, RULE, client=client, timeout=300)

    with pytest.raises(CaptchaImageError, match="did not load"):
        on_page(browser, body)
    assert not lab_api.calls


def test_without_a_token(browser, lab):
    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        yield solve_captcha(page, RULE)

    with pytest.raises(SettingsError, match="no API token"):
        on_page(browser, body)


@both_apis
def test_the_client_of_the_environment(browser, lab, lab_api, monkeypatch):
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", "token")
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", lab_api.url)

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        return (yield solve_captcha(page, RULE))

    assert on_page(browser, body).attempts == 1


def test_what_is_not_a_page():
    with pytest.raises(TypeError, match="page, frame or frame locator"):
        solve_captcha("page", RULE)  # type: ignore[call-overload]


# Failures


@both_apis
def test_an_api_error_leaves_the_page_usable(browser, lab, lab_api, client):
    lab_api.script.append((500, {"error": {"code": "api_error"}}, {}))

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        with pytest.raises(ApiServerError):
            yield solve_captcha(page, RULE, client=client)
        # The listener for dialogs has gone: nobody accepts them any more.
        assert (yield page.evaluate("confirm('?')")) is False
        return (yield solve_captcha(page, RULE, client=client))

    assert on_page(browser, body).attempts == 1


@both_apis
def test_unsolved_tells_what_the_page_said(browser, lab, lab_api, client):
    lab.page = (
        "<img id=captcha src=/captcha.png><input name=code>"
        "<button onclick=\"alert('wrong code'); location.reload()\">Go</button>"
    )

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        yield solve_captcha(page, RULE, submit="button", client=client, max_attempts=2)

    with pytest.raises(CaptchaUnsolved, match="'wrong code'") as caught:
        on_page(browser, body)
    assert caught.value.attempts == 2


@both_apis
def test_the_users_own_dialog_handler_decides(browser, lab, client):
    lab.page = form().replace("<form", "<form onsubmit=\"return confirm('Sure?')\"")
    seen = []

    async def accept_late(dialog: Any) -> None:
        seen.append(dialog.message)
        await asyncio.sleep(0.02)
        await dialog.accept()

    def accept(dialog: Any) -> None:
        seen.append(dialog.message)
        dialog.accept()

    def body(page: Any) -> Steps[Any]:
        page.on("dialog", accept_late if browser.is_async else accept)
        yield page.goto(lab.url)
        return (yield solve_captcha(page, RULE, client=client))

    assert on_page(browser, body).attempts == 1
    assert seen == ["Sure?"]


def test_a_page_that_is_closed_meanwhile(async_browser: AsyncBrowser, lab, lab_api, client):
    lab_api.latency = 0.5

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(page.close()))
        yield solve_captcha(page, RULE, client=client)

    with pytest.raises(CaptchaNotFound, match="went away"):
        on_page(async_browser, body)


@pytest.mark.browser
def test_a_page_that_crashes_meanwhile(lab, lab_api, client):
    """In a browser of its own: some builds of Chromium go down with their page."""
    lab_api.latency = 0.5
    raised: list[CaptchaError] = []

    async def crash(page: Any) -> None:
        await asyncio.sleep(0.5)
        with contextlib.suppress(Exception):
            await page.goto("chrome://crash", timeout=1000)

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        crashing = asyncio.ensure_future(crash(page))
        try:
            yield solve_captcha(page, RULE, client=client)
        except CaptchaError as error:
            raised.append(error)
        finally:
            yield crashing

    browser = AsyncBrowser()
    with contextlib.suppress(PlaywrightError):  # closing what has gone down already
        on_page(browser, body)
    with contextlib.suppress(PlaywrightError):
        browser.close()
    assert len(raised) == 1


def test_a_page_that_goes_nowhere_when_loaded_again(async_browser, lab, lab_api, client):
    lab_api.script.append("not five")

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        yield page.route("**/*", lambda route: route.abort())
        yield solve_captcha(page, RULE, answer="[A-Z0-9]{5}", client=client)

    with pytest.raises(CaptchaNotFound, match="ERR_FAILED"):
        on_page(async_browser, body)


def test_cancelling_leaves_nothing_behind(async_browser: AsyncBrowser, lab, lab_api, client):
    lab_api.gate.clear()

    async def cancel() -> None:
        page = await async_browser.browser.new_page()
        await page.goto(lab.url)
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(solve_captcha(page, RULE, client=client))
        while not lab_api.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() <= before
        lab_api.gate.set()
        assert (await solve_captcha(page, RULE, client=client)).attempts == 1
        await page.context.close()

    async_browser.run_async(cancel)


@both_apis
def test_no_thread_is_left(browser, lab, lab_api, monkeypatch):
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", "token")
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", lab_api.url)
    lab_api.script.append((401, {"error": {"code": "invalid_token"}}, {}))

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        with pytest.raises(ApiAuthError):
            yield solve_captcha(page, RULE)

    on_page(browser, body)
    deadline = time.monotonic() + 5
    while any(thread.name == "acecaptcha" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Many at once


def test_tabs_of_one_context_share_one_solve(async_browser: AsyncBrowser, site, api):
    async def solve(page: Any, client: AceCaptchaClient) -> tuple[int, str]:
        result = await solve_captcha(page, RULES["inplace"], client=client)
        return result.attempts, await page.title()

    async def visit_all() -> list[tuple[int, str]]:
        context = await async_browser.browser.new_context()
        pages = [await context.new_page() for _ in range(3)]
        for i, page in enumerate(pages):
            await page.goto(f"{site.url}/inplace/record/{i}")
        try:
            with AceCaptchaClient("token", api.url, retries=0) as client:
                return await asyncio.gather(*(solve(page, client) for page in pages))
        finally:
            await context.close()

    results = async_browser.run_async(visit_all)
    assert sorted(attempts for attempts, _ in results) == [0, 0, 1]
    assert [title for _, title in results] == ["Record 0", "Record 1", "Record 2"]
    assert len(api.calls) == 1
    assert site.stats["inplace"]["wrong"] == site.stats["inplace"]["spoiled"] == 0


def test_tabs_that_are_opened_at_once_wait_for_each_other(async_browser, site, api):
    async def visit(context: Any, i: int, client: AceCaptchaClient) -> str:
        page = await context.new_page()
        await page.goto(f"{site.url}/inplace/record/{i}")
        await solve_captcha(page, RULES["inplace"], client=client)
        return str(await page.title())

    async def visit_all() -> list[str]:
        context = await async_browser.browser.new_context()
        try:
            with AceCaptchaClient("token", api.url, retries=0) as client:
                return await asyncio.gather(*(visit(context, i, client) for i in range(3)))
        finally:
            await context.close()

    assert async_browser.run_async(visit_all) == ["Record 0", "Record 1", "Record 2"]
    # Nobody can hold back a tab that takes more than two seconds to go where it is sent.
    assert len(api.calls) <= 2


@both_apis
def test_a_second_tab_finds_the_way_open(browser, site, api):
    def body(first: Any) -> Steps[Any]:
        second = yield first.context.new_page()
        yield first.goto(f"{site.url}/inplace/record/1")
        yield second.goto(f"{site.url}/inplace/record/2")
        results = []
        for page in (first, second):
            results.append((yield solve_captcha(page, RULES["inplace"], client=client)))
        titles = [(yield first.title()), (yield second.title())]
        return [result.attempts for result in results], titles

    with AceCaptchaClient("token", api.url, retries=0) as client:
        attempts, titles = on_page(browser, body)
    assert attempts == [1, 0]
    assert titles == ["Record 1", "Record 2"]
    assert len(api.calls) == 1


@pytest.mark.parametrize("opens", [0, 9], ids=["a captcha each time", "the way is open"])
def test_a_form_that_was_filled_in_is_loaded_again_and_filled_in_again(
    browser: Browser, lab: Any, lab_api: Any, client: Any, opens: int
) -> None:
    """The second tab's image is no longer the one that the site expects an answer to."""
    query = "<input name=q>"
    lab.page, lab.opens = form(query + IMAGE + REST), opens
    lab.open_page = form(query + "<button>Go</button>").replace("/send", "/record")

    def body(first: Any) -> Steps[Any]:
        second = yield first.context.new_page()
        yield second.goto(lab.url)
        yield second.locator("[name=q]").fill("mine")
        yield first.goto(lab.url)
        results = []
        for page in (first, second):
            results.append((yield solve_captcha(page, {**RULE, "after": "stay"}, client=client)))
        return [result.attempts for result in results], (yield second.title())

    assert on_page(browser, body) == ([1, 0 if opens else 1], "Record")
    assert len(lab_api.calls) == len(lab.sent)
    assert lab.queries[-1] == "mine"


def test_the_event_loop_goes_on(async_browser: AsyncBrowser, lab: Any, lab_api: Any) -> None:
    """While the API reads for one page, others get there, too. benchmarks/ has the figures."""
    lab_api.gate.clear()

    async def visit(client: AceCaptchaClient) -> int:
        context = await async_browser.browser.new_context()
        page = await context.new_page()
        await page.set_content(f"<base href={lab.url}>" + form())
        rule = {**RULE, "max_attempts": 1, "after": "stay"}
        try:
            return int((await solve_captcha(page, rule, client=client)).attempts)
        finally:
            await context.close()

    async def run() -> None:
        with AceCaptchaClient("token", lab_api.url, retries=0) as client:
            visits = [asyncio.ensure_future(visit(client)) for _ in range(3)]
            await asyncio.to_thread(lab_api.wait_for, 3, 60)
            lab_api.gate.set()
            await asyncio.gather(*visits, return_exceptions=True)

    async_browser.run_async(run)
    assert lab_api.max_parallel == 3
