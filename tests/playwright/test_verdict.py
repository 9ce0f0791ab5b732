"""What a browser makes of an answer: no yes that is none, and no call that is for nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest

from scrapy_acecaptcha import CaptchaNotFound, CaptchaUnsolved
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright import solve_captcha
from tests.browsers import both_apis, on_page
from tests.lab import IMAGE, REST, Lab, form
from tests.playwright.conftest import RULE

WRONG = "XXXXX"
DRAWN_LATE = """<div id=here></div>REST<script>setTimeout(() => document.querySelector("#here")
    .innerHTML = "<img id=captcha src=/captcha.png>", 700)</script>""".replace("REST", REST)
HIDES_ITSELF = f"""<form onsubmit="event.preventDefault(); this.style.display = 'none';
    setTimeout(async () => {{
        const answer = await (await fetch('/check?code=' + this.code.value)).json();
        if (answer.ok) document.body.innerHTML = 'Record 1';
        else {{ this.style.display = ''; this.code.value = '';
            document.querySelector('#captcha').src = '/captcha.png?' + Math.random(); }}
    }}, 500)">{IMAGE}{REST}</form>"""


@pytest.mark.parametrize("page", [form(DRAWN_LATE), HIDES_ITSELF], ids=["late", "hidden"])
def test_an_image_that_has_gone_for_a_while_is_no_yes(
    visit: Any, lab: Any, lab_api: Any, page: str
) -> None:
    lab.page = page
    lab_api.script.append(WRONG)
    result, text = visit()
    assert (result.attempts, text) == (2, "Record 1")


def test_what_is_never_sent_is_paid_for_once(visit: Any, lab: Any, lab_api: Any) -> None:
    lab.page = IMAGE + "<input name=code><button type=button>Help</button>"
    with pytest.raises(CaptchaUnsolved, match="never sent"):
        visit(submit="text=Help", timeout=1000)
    assert len(lab_api.calls) == 1


def test_what_the_user_typed_is_there_again(
    browser: Any, lab: Any, lab_api: Any, client: Any
) -> None:
    lab.page = form("<input name=q><input type=checkbox name=all>" + IMAGE + REST)
    lab_api.script.append(WRONG)

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        yield page.locator("[name=q]").fill("mine")
        yield page.locator("[name=all]").check()
        yield solve_captcha(page, RULE, client=client)

    on_page(browser, body)
    assert [(sent["q"], sent.get("all")) for sent in lab.sent] == [(["mine"], ["on"])] * 2


# A test tells the page what to do, for instance while the API is asked.
FOLLOWS = """<script>
    new EventSource("/events").onmessage = told => eval(told.data)
</script>"""


def replace_image(lab: Lab, image: bytes) -> str:
    """What the API reads, once the page shows another image."""
    drawn = len(lab.images)
    lab.events.put("document.querySelector('#captcha').src = '/captcha.png?' + Date.now()")
    give_up = time.monotonic() + 10
    while len(lab.images) == drawn and time.monotonic() < give_up:
        time.sleep(0.01)
    return lab.gallery.answer(image) or ""


def test_an_image_that_changes_while_it_is_read_is_read_again(
    visit: Any, lab: Lab, lab_api: Any
) -> None:
    lab.page = form() + FOLLOWS
    lab_api.script += [lambda image: replace_image(lab, image)]
    result, text = visit(max_attempts=1)
    assert (text, len(lab.sent), len(lab_api.calls), result.attempts) == ("Record 1", 1, 2, 1)
    assert result.answer == lab.sent[0]["code"][0]


def test_images_that_change_whenever_they_are_read_are_paid_for_within_bounds(
    visit: Any, lab: Lab, lab_api: Any
) -> None:
    lab.page = form() + FOLLOWS
    lab_api.script += [lambda image: replace_image(lab, image)] * 9
    with pytest.raises(CaptchaUnsolved, match="3 images replaced by the page"):
        visit(max_attempts=2)
    assert (len(lab.sent), len(lab_api.calls)) == (0, 3)


def test_a_page_that_goes_elsewhere_meanwhile_is_no_yes(visit: Any, lab: Any, lab_api: Any) -> None:
    lab.page = form() + FOLLOWS

    def lead_on(image: bytes) -> str:
        lab.events.put("location.href = '/record'")
        assert lab.shows_record.wait(10)
        return lab.gallery.answer(image) or ""

    lab_api.script += [lead_on]
    with pytest.raises(CaptchaNotFound):
        visit(timeout=1000)
    assert not lab.sent


def test_a_tab_that_the_form_opens(browser: Any, lab: Any, lab_api: Any, client: Any) -> None:
    lab.page = form().replace("<form", "<form target=_blank")
    lab_api.script.append(WRONG)

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        result = yield solve_captcha(page, RULE, client=client, timeout=3000)
        return result.attempts, (yield result.page.title()), result.page is page

    assert on_page(browser, body) == (2, "Record", False)


# Where the user is afterwards

HTML = {"Content-Type": "text/html"}
THANKS = ("<!DOCTYPE html>Thank you", HTML)


def test_a_thank_you_page_is_left_for_what_was_asked_for(
    browser: Any, lab: Lab, lab_api: Any, client: Any
) -> None:
    """The first answer is looked into, in a tab of its own; from then on it is known."""
    lab.record, lab.opens = THANKS, 2

    def body(page: Any) -> Steps[Any]:
        tabs: list[Any] = []
        texts = []
        page.on("popup", lambda tab: tabs.append(tab))  # noqa: PLW0108 - Playwright marks it
        for _ in range(2):
            yield page.context.clear_cookies()
            lab.opened = 0
            yield page.goto(lab.url)
            yield solve_captcha(page, RULE, client=client)
            texts.append((yield page.locator("body").inner_text()))
        return texts, len(tabs), len(page.context.pages)

    assert on_page(browser, body) == (["The register"] * 2, 1, 1)
    assert len(lab_api.calls) == len(lab.sent) == 2


@both_apis
def test_where_each_page_asks_for_a_captcha_the_answer_is_what_was_asked_for(
    browser: Any, lab: Lab, client: Any
) -> None:
    def body(page: Any) -> Steps[Any]:
        tabs: list[Any] = []
        page.on("popup", lambda tab: tabs.append(tab))  # noqa: PLW0108 - Playwright marks it
        for _ in range(2):
            yield page.goto(lab.url)
            yield solve_captcha(page, RULE, client=client)
        return (yield page.title()), len(tabs), lab.loads, len(lab.images)

    assert on_page(browser, body) == ("Record", 1, 3, 2)


def test_a_way_that_is_open_for_one_page_is_found_all_the_same(
    browser: Any, lab: Lab, lab_api: Any, client: Any
) -> None:
    lab.record, lab.opens = THANKS, 1

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        yield solve_captcha(page, RULE, client=client)
        return (yield page.locator("body").inner_text())

    assert on_page(browser, body) == "The register"
    assert len(lab_api.calls) == 2


@pytest.mark.parametrize(
    "said",
    [
        ('{"ok": false}', {"Content-Type": "application/json"}),
        ("error", {"Content-Type": "text/plain"}),
        ("failed captcha", HTML),
        ("<script>history.back()</script>", HTML),
    ],
    ids=["json", "text", "untagged", "script"],
)
def test_a_refusal_without_a_page_is_none_the_less_one(
    browser: Any, lab: Lab, lab_api: Any, client: Any, said: Any
) -> None:
    lab.wrong = "/wrong"
    lab.refusal = said
    lab_api.script.append(WRONG)

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        result = yield solve_captcha(page, RULE, client=client)
        return result.attempts, (yield page.title())

    assert on_page(browser, body) == (2, "Record")
    assert len(lab_api.calls) == len(lab.sent) == 2


STAYS: dict[str, dict[str, Any]] = {
    "the user typed a query": {},
    "the rule has a query": {"fields": {"q": "x"}},
    "the rule says so": {"after": "stay"},
    "the rule knows a right answer": {"success": "text=Thank you"},
}


@pytest.mark.parametrize("why", STAYS)
def test_where_the_form_led_is_what_was_asked_for(
    visit: Any, lab: Lab, lab_api: Any, why: str
) -> None:
    lab.page, lab.record, lab.opens = form("<input name=q>" + IMAGE + REST), THANKS, 9
    fill = (lambda page: page.fill("[name=q]", "x")) if why == "the user typed a query" else None
    _, text = visit(fill, **{"after": "auto", **STAYS[why]})
    assert (text, lab.loads) == ("Thank you", 1)


def test_a_page_that_was_posted_for_cannot_be_asked_for_again(
    browser: Any, lab: Lab, client: Any
) -> None:
    lab.record, lab.opens = THANKS, 9

    def body(page: Any) -> Steps[Any]:
        yield page.set_content(f"<form method=post action={lab.url}><button>Find</button></form>")
        yield page.click("button")
        yield solve_captcha(page, RULE, client=client)
        return (yield page.locator("body").inner_text())

    assert on_page(browser, body) == "Thank you"
    assert lab.loads == 1
