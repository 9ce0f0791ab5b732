"""What cannot work costs nothing: field, button and image are checked before the API is asked."""

from __future__ import annotations

from typing import Any

import pytest

from scrapy_acecaptcha import CaptchaImageError, RuleError
from scrapy_acecaptcha.errors import CaptchaFormError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright import solve_captcha
from tests.browsers import on_page
from tests.lab import IMAGE, REST, form
from tests.playwright.conftest import RULE

HEADER = (
    "<div style='position: fixed; inset: 0 0 auto; height: 30px; background: #fff' class=bar>Hi"
)
BLANK = "<canvas id=captcha width=140 height=50></canvas>"

MISFITS: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "no field": (form(), {"input": "#cod"}, RuleError, "no element matches '#cod'"),
    "hidden field": (
        form(IMAGE + "<input name=code hidden><button>Go"),
        {},
        RuleError,
        "cannot be seen",
    ),
    "two fields": (form(IMAGE + "<input name=code>" + REST), {}, RuleError, "matches 2 visible"),
    "two images": (form(IMAGE + IMAGE + REST), {}, RuleError, "strict mode violation"),
    "no button": (form(), {"submit": "#go"}, RuleError, "no element matches '#go'"),
    "two buttons": (
        form(IMAGE + REST + "<button>Go on</button>"),
        {"submit": "text=G"},
        RuleError,
        "strict mode",
    ),
    "readonly": (
        form(IMAGE + "<input name=code readonly><button>Go"),
        {},
        CaptchaFormError,
        "cannot be written to: <input",
    ),
    "unknown field": (form(), {"fields": {"curt": "1"}}, RuleError, "'code'"),
    "blank": (form(BLANK + REST), {}, CaptchaImageError, "did not load|one colour"),
    "one colour": (
        form(f"<img id=captcha width=99 height=40 src='data:image/svg+xml,{'<svg/>'}'>" + REST),
        {},
        CaptchaImageError,
        "did not load|one colour",
    ),
    "covered image": (HEADER + "</div>" + form(), {}, CaptchaImageError, 'class="bar".*lies over'),
    "covered button": (
        form() + "<div style='position: fixed; inset: 0' class=veil></div>",
        {},
        CaptchaFormError,
        'class="veil".*lies over',
    ),
}


@pytest.mark.parametrize("what", MISFITS)
def test_nothing_is_paid_for(visit: Any, lab: Any, lab_api: Any, what: str) -> None:
    lab.page, rule, error, message = MISFITS[what]
    with pytest.raises(error, match=message):
        visit(timeout=300, **rule)
    assert not lab_api.calls


LATER = "<script>setTimeout(() => { SCRIPT }, 300)</script>"


def later(script: str) -> str:
    return LATER.replace("SCRIPT", script)


ADD = "document.querySelector('form').insertAdjacentHTML('beforeend', '%s')"
WORKING: dict[str, tuple[str, dict[str, Any]]] = {
    "a late field": (form(IMAGE) + later(ADD % "<input name=code>"), {}),
    "a late button": (
        form(IMAGE + "<input name=code>") + later(ADD % "<button id=go>Go</button>"),
        {"submit": "#go"},
    ),
    "readonly until it has the focus": (
        form(IMAGE + "<input name=code readonly onfocus='this.readOnly = false'><button>Go"),
        {},
    ),
    "below a header that stays": (
        "<div style='position: sticky; top: 0; height: 200px; background: #fff'>Header</div>"
        f"<div style='height: 2000px'></div>{form()}<div style='height: 2000px'></div>",
        {},
    ),
    "a bar that goes away": (
        HEADER + "</div>" + form() + later("document.querySelector('.bar').remove()"),
        {},
    ),
    "loaded when scrolled to": (
        "<div style='height: 9000px'></div>"
        + form(IMAGE.replace("<img", "<img loading=lazy") + REST),
        {},
    ),
    "a placeholder first": (
        form(
            "<img id=captcha width=140 height=50 src='data:image/gif;base64,"
            "R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=='>" + REST
        )
        + later("document.querySelector('#captcha').src = '/captcha.png'"),
        {},
    ),
    "drawn in strokes": (
        form("<canvas id=captcha width=140 height=50></canvas>" + REST)
        + """<script>
        const pen = document.querySelector("#captcha").getContext("2d");
        pen.fillRect(0, 0, 70, 9);
        const image = new Image();
        image.onload = () => setTimeout(() => pen.drawImage(image, 0, 0), 150);
        image.src = "/captcha.png";</script>""",
        {},
    ),
    "a quoted text": (
        form(
            IMAGE + "<input name=code><button type=button onclick='help()'>Go on</button>"
            "<button>Go</button>"
        ),
        {"submit": 'text="Go"'},
    ),
    "a box for each letter": (
        form(
            IMAGE
            + "<input type=hidden name=code>"
            + "<input class=box maxlength=1 oninput='next(this)'>" * 5
            + "<button>Go</button>"
        )
        + """<script>
        const boxes = [...document.querySelectorAll(".box")];
        const next = box => {
            document.querySelector("[name=code]").value = boxes.map(one => one.value).join("");
            const after = boxes[boxes.indexOf(box) + 1];
            if (after && box.value) after.focus();
        }</script>""",
        {"input": ".box"},
    ),
}


@pytest.mark.parametrize("what", WORKING)
def test_what_comes_late_is_waited_for(visit: Any, lab: Any, lab_api: Any, what: str) -> None:
    lab.page, rule = WORKING[what]
    result, text = visit(**rule)
    assert (text, result.attempts, len(lab_api.calls)) == ("Record 1", 1, 1)


def test_boxes_are_emptied_before_the_next_answer(visit: Any, lab: Any, lab_api: Any) -> None:
    """A page that a script sends and that does not move from box to box by itself."""
    lab.page = (
        IMAGE
        + "<input class=box maxlength=1>" * 5
        + """<button>Go</button><script>
        document.querySelector("button").onclick = async () => {
            const code = [...document.querySelectorAll(".box")].map(box => box.value).join("");
            const answer = await (await fetch("/check?code=" + code)).json();
            if (answer.ok) document.body.innerHTML = "Record 1";
            else document.querySelector("#captcha").src = "/captcha.png?2";
        }</script>"""
    )
    lab_api.script.append("XXXXX")
    result, text = visit(input=".box", submit="button")
    assert (text, result.attempts) == ("Record 1", 2)
    assert [sent["code"] for sent in lab.sent] == [["XXXXX"], [result.answer]]


def test_locators_of_the_user(browser: Any, lab: Any, client: Any) -> None:
    lab.page = "<iframe src=/frame></iframe>"
    lab.frame = form(f"{IMAGE}<label>Letters <input name=code></label><button>Go</button>")

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        inner = page.frame_locator("iframe")
        return (
            yield solve_captcha(
                page,
                image=inner.locator("img"),
                input=inner.get_by_label("Letters"),
                submit=inner.get_by_role("button", name="Go"),
                client=client,
            )
        )

    assert on_page(browser, body).attempts == 1


@pytest.mark.parametrize("how", ["rule", "frame locator"])
def test_frames_in_frames(browser: Any, lab: Any, client: Any, how: str) -> None:
    lab.page = "<iframe class=outer src=/frame></iframe>"
    inner = form().replace('"', "&quot;")
    lab.frame = f"<iframe class=inner srcdoc=\"<base href='{lab.url}'>{inner}\"></iframe>"

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        if how == "rule":
            return (yield solve_captcha(page, RULE, frame=".outer >> iframe.inner", client=client))
        scope = page.frame_locator(".outer").frame_locator("iframe")
        return (yield solve_captcha(scope, RULE, client=client))

    assert on_page(browser, body).attempts == 1


def test_the_timeout_is_the_pages_own(browser: Any, lab: Any, client: Any) -> None:
    lab.page = "<p>Nothing"

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        page.set_default_timeout(250)
        yield solve_captcha(page, RULE, client=client)

    with pytest.raises(Exception, match=r"within 0\.25 s"):
        on_page(browser, body)


def test_a_page_that_never_stops_computing(browser: Any, lab: Any, client: Any) -> None:

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        yield page.evaluate("setTimeout(() => { while (true); })")
        yield solve_captcha(page, RULE, client=client, timeout=400)

    with pytest.raises(CaptchaFormError, match="without end"):
        on_page(browser, body)
