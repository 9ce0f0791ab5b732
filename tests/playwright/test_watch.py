"""watch_captchas(): the captcha that comes up in front of an action is solved first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError

from scrapy_acecaptcha import ApiServerError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright import watch_captchas
from tests.browsers import Browser, both_apis, on_page
from tests.lab import IMAGE, REST, Lab
from tests.playwright.conftest import RULE

NEXT = """<button id=next onclick="document.title = 'Next'">Next</button>"""
POPPED_UP = f"""<div style="position: fixed; inset: 0; background: #fff"><form onsubmit="
    event.preventDefault(); fetch('/check?code=' + this.code.value).then(reply => reply.json())
        .then(answer => answer.ok && this.parentNode.remove())">{IMAGE}{REST}</form></div>"""


def watching(
    browser: Browser, watched: Any, client: Any, rule: dict[str, Any] = RULE
) -> Steps[Any]:
    watch = watch_captchas(watched, rule, client=client)
    return (yield watch) if browser.is_async else watch


def press_next(page: Any, timeout: float = 9000) -> Steps[str]:
    yield page.locator("#next").click(timeout=timeout)
    return str((yield page.title()))


WATCHED: dict[str, Callable[[Any], Any]] = {
    "page": lambda page: page,
    "context": lambda page: page.context,
}


@both_apis
@pytest.mark.parametrize("what", WATCHED)
def test_it_is_solved_before_the_action(browser: Browser, lab: Lab, client: Any, what: str) -> None:
    lab.page = NEXT + POPPED_UP

    def body(page: Any) -> Steps[Any]:
        watch = yield watching(browser, WATCHED[what](page), client)
        if what == "context":
            page = yield page.context.new_page()
        yield page.goto(lab.url)
        title = yield press_next(page)
        yield watch.stop()
        return title, [result.attempts for result in watch.results], watch.error

    assert on_page(browser, body) == ("Next", [1], None)


def test_it_is_solved_in_its_frame(browser: Browser, lab: Lab, client: Any) -> None:
    lab.page = (
        """<iframe src=/frame style="position: fixed; inset: 0; width: 100%; height: 100%">
        </iframe>"""
        + NEXT
    )
    lab.frame = POPPED_UP.replace(
        "this.parentNode.remove()", "parent.frames[0].frameElement.remove()"
    )

    def body(page: Any) -> Steps[Any]:
        watch = yield watching(browser, page, client, {**RULE, "frame": "iframe"})
        yield page.goto(lab.url)
        return (yield press_next(page)), len(watch.results)

    assert on_page(browser, body) == ("Next", 1)


def test_what_fails_stands_in_the_watch(
    browser: Browser, lab: Lab, lab_api: Any, client: Any
) -> None:
    lab.page = NEXT + POPPED_UP
    lab_api.script += [(500, {"error": {"code": "api_error"}}, {})] * 9

    def body(page: Any) -> Steps[Any]:
        watch = yield watching(browser, page, client)
        yield page.goto(lab.url)
        with pytest.raises(PlaywrightError, match="Timeout"):
            yield press_next(page, timeout=1500)
        return watch.error, watch.results

    error, results = on_page(browser, body)
    assert isinstance(error, ApiServerError)
    assert results == []


def test_it_can_be_stopped(browser: Browser, lab: Lab, lab_api: Any, client: Any) -> None:
    lab.page = NEXT + POPPED_UP

    def body(page: Any) -> Steps[Any]:
        watch = yield watching(browser, page.context, client)
        yield watch.stop()
        yield page.goto(lab.url)
        with pytest.raises(PlaywrightError, match="intercepts pointer events"):
            yield press_next(page, timeout=300)

    on_page(browser, body)
    assert not lab_api.calls
