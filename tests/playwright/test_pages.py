"""solve_captcha() in real Chromium: images, forms and verdicts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from scrapy_acecaptcha import CaptchaUnsolved, RuleError
from scrapy_acecaptcha.errors import CaptchaFormError
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright import solve_captcha
from tests.browsers import both_apis, on_page
from tests.lab import IMAGE, REST, Lab, form
from tests.playwright.conftest import RULE

WRONG = "XXXXX"


WALL = f"""<main>{form()}</main><script>
  if (document.cookie.includes("through")) document.querySelector("main").innerHTML = "The register"
</script>"""


def test_a_page_that_was_asked_for_is_loaded_again_if_the_rule_says_return(
    visit: Callable[..., Any], lab: Lab
) -> None:
    lab.page = WALL
    thanks = {"Content-Type": "text/html", "Set-Cookie": "through=1; Path=/"}
    lab.record = ("<!DOCTYPE html>Thank you", thanks)
    result, text = visit(after="return")
    assert (text, result.attempts) == ("The register", 1)
    assert len(lab.sent) == 1


def test_a_captcha_at_the_page_that_was_asked_for_is_a_refusal_if_the_rule_says_return(
    visit: Callable[..., Any], lab: Lab
) -> None:
    lab.record = ("<!DOCTYPE html>Thank you", {"Content-Type": "text/html"})
    with pytest.raises(CaptchaUnsolved, match="2 answers refused"):
        visit(after="return", max_attempts=2)


# The image

LATE = """<img id=captcha>REST<script>
    setTimeout(() => document.querySelector("#captcha").src = "/captcha.png", 400)</script>"""
INSERTED = """<p id=here></p>REST<script>
    const image = "<img id=captcha src=/captcha.png>";
    setTimeout(() => document.querySelector("#here").innerHTML = image, 400)</script>"""
CANVAS = """<canvas id=captcha width=140 height=50></canvas>REST<script>
    const canvas = document.querySelector("#captcha").getContext("2d");
    canvas.fillStyle = "#fff"; canvas.fillRect(0, 0, 140, 50);
    const image = new Image();
    image.onload = () => setTimeout(() => canvas.drawImage(image, 0, 0), 300);
    image.src = "/captcha.png";</script>"""
BLOB = """<img id=captcha>REST<script>fetch("/captcha.png").then(r => r.blob()).then(
    b => document.querySelector("#captcha").src = URL.createObjectURL(b))</script>"""
BACKGROUND = """<style>#captcha { width: 140px; height: 50px;
    background: url(/captcha.png) no-repeat }</style><div id=captcha></div>REST"""
SHADOW = """<div id=host></div><script>
    document.querySelector("#host").attachShadow({mode: "open"}).innerHTML =
        '<form method=post action=/send><img id=captcha src=/captcha.png>REST</form>'</script>"""
BELOW = f"<div style='height: 3000px'></div>{IMAGE}REST"
FADING = """<style>@keyframes in { from { opacity: 0 } } #captcha { animation: in 1s }</style>
    <img id=captcha src=/captcha.png>REST"""

IMAGES = {
    "img": IMAGE + "REST",
    "late": LATE,
    "inserted": INSERTED,
    "canvas": CANVAS,
    "inline svg": "{svg}REST",
    "svg file": "<img id=captcha src=/captcha.svg>REST",
    "background": BACKGROUND,
    "blob": BLOB,
    "data": "<img id=captcha src='data:image/png;base64,{data}'>REST",
    "box": f"<div id=captcha><span>{IMAGE.replace('captcha ', 'inner ')}</span></div>REST",
    "input": "<input type=image id=captcha src=/captcha.png onclick='return false'>REST",
    "shadow root": SHADOW,
    "below the fold": BELOW,
    "fading in": FADING,
}


@pytest.mark.parametrize("kind", IMAGES)
def test_reads_images_of_every_kind(visit, lab, lab_api, kind):
    inside = IMAGES[kind].replace("REST", REST)
    lab.page = inside if kind == "shadow root" else form(inside)
    result, text = visit()
    assert text == "Record 1"
    assert (result.attempts, result.answer) == (1, lab.sent[0]["code"][0])
    assert result.image == lab_api.calls[0].image
    assert result.image.startswith(b"\x89PNG")
    assert result.elapsed > 0
    assert len(lab.images) == len(lab_api.calls) == 1


@pytest.mark.parametrize("scale", [1, 2])
def test_takes_the_screenshot_at_the_scale_of_the_screen(visit, scale):
    result, text = visit(context={"device_scale_factor": scale})
    assert text == "Record 1"
    width = int.from_bytes(result.image[16:20], "big")
    assert width == 140 * scale


@both_apis
def test_solves_in_a_frame(visit, lab):
    lab.page = "<h2>Outside</h2><iframe name=inner src=/frame></iframe>"
    lab.frame = form()

    def inner(page: Any) -> Steps[Any]:
        yield page.locator("iframe").wait_for()
        return page.frame("inner")

    _, text = visit(inner)
    assert text == "Outside"
    assert len(lab.sent) == 1


def test_a_frame_may_lead_the_whole_page_away(visit, lab):
    lab.page = "<iframe name=inner src=/frame></iframe>"
    lab.frame = form().replace("<form", "<form target=_top")

    def inner(page: Any) -> Steps[Any]:
        yield page.locator("iframe").wait_for()
        return page.frame("inner")

    _, text = visit(inner)
    assert text == "Record 1"


def test_solves_what_a_click_brought_to_light(visit, lab):
    lab.page = "<button id=show onclick='this.nextSibling.hidden = false'>Show</button><div hidden>"
    lab.page += form() + "</div>"
    _, text = visit(lambda page: page.locator("#show").click())
    assert text == "Record 1"


def test_finds_the_captcha_by_itself(visit, lab):
    lab.page = form("<img src=/captcha.png alt=captcha> Captcha: <input name=code><button>Go")
    _, text = visit(image="auto", input=None)
    assert text == "Record 1"


@pytest.mark.parametrize("kind", ["img", "late", "background", "blob", "data", "box", "input"])
def test_source_gives_the_bytes_that_the_page_received(visit, lab, lab_api, kind):
    lab.page = form(IMAGES[kind].replace("REST", REST))
    _, text = visit(capture="source")
    assert text == "Record 1"
    assert lab_api.calls[0].image == lab.images[0]
    assert len(lab.images) == 1


REVOKED = BLOB.replace(
    ")</script>",
    ").then(() => setTimeout(() => URL.revokeObjectURL(document.images[0].src), 50))</script>",
)


@pytest.mark.parametrize("page", [CANVAS, REVOKED], ids=["canvas", "revoked blob"])
def test_source_falls_back_to_the_screenshot(visit, lab, caplog, page):
    lab.page = form(page.replace("REST", REST))
    with caplog.at_level(logging.DEBUG, "scrapy_acecaptcha"):
        result, text = visit(capture="source")
    assert text == "Record 1"
    assert result.image != lab.images[0]
    assert "screenshot" in caplog.text


# The form


def test_fills_in_fields_of_every_kind(visit, lab):
    lab.page = form(
        """<input name=text value=old><input name=born type=date><input name=seen type=hidden>
        <select name=court><option value=1>First<option value=2>Second</select>
        <select name=many multiple><option>a<option>b<option>c</select>
        <input type=checkbox name=yes><input type=checkbox name=no checked>
        <input type=checkbox name=days value=mo checked><input type=checkbox name=days value=tu>
        <input type=checkbox name=styled value=1 style="display: none">
        <input type=radio name=kind value=x checked><input type=radio name=kind value=y>
        <textarea name=note></textarea>"""
        + IMAGE
        + REST
    )
    fields = {
        "text": "new",
        "born": "2001-02-03",
        "seen": "1",
        "court": "Second",
        "many": ["a", "c"],
        "yes": True,
        "no": False,
        "days": ["tu"],
        "styled": True,
        "kind": "y",
        "note": "two\nlines",
    }
    visit(fields=fields)
    sent = lab.sent[0]
    del sent["code"]
    assert sent == {
        "text": ["new"],
        "born": ["2001-02-03"],
        "seen": ["1"],
        "court": ["2"],
        "many": ["a", "c"],
        "yes": ["on"],
        "days": ["tu"],
        "styled": ["1"],
        "kind": ["y"],
        "note": ["two\r\nlines"],
    }


def test_waits_for_options_that_come_late_and_for_pages_that_redraw(visit, lab):
    lab.page = form(
        """<select name=city><option>-</select><script>
        const cities = document.querySelector("select");
        setTimeout(() => cities.innerHTML += "<option>Lima</option>", 500);
        cities.onchange = () =>
            document.querySelector("#captcha").src = "/captcha.png?2";</script>"""
        + IMAGE
        + REST
    )
    result, text = visit(fields={"city": "Lima"})
    assert (text, result.attempts) == ("Record 1", 1)


def test_keys_are_heard(visit, lab):
    lab.page = form(
        IMAGE
        + """<input id=visible><input type=hidden name=code><button>Go</button><script>
        document.querySelector("#visible").onkeydown = event => {
            if (event.key.length === 1) document.querySelector("[name=code]").value += event.key;
        }</script>"""
    )
    _, text = visit(input="#visible")
    assert text == "Record 1"


SUBMITS = {
    "own button": (IMAGE + REST, None),
    "enter": (IMAGE + "<input name=code>", None),
    "selector": (
        IMAGE + "<input name=code><a id=go onclick='document.forms[0].submit()'>Send</a>",
        "#go",
    ),
    "xpath": (IMAGE + REST, "//button[. = 'Go']"),
    "text": ("<h3>Go</h3>" + IMAGE + REST, "text=Go"),
    "text of an input": (IMAGE + "<input name=code><input type=submit value=Find>", "text=find"),
    "not the captcha": (
        "<input type=image id=captcha src=/captcha.png name=bad><input name=code><button>Go",
        None,
    ),
    "when enabled": (
        IMAGE + "<input name=code oninput='setTimeout(() => b.disabled = false, 300)'>"
        "<button id=b disabled>Go</button>",
        None,
    ),
}


@pytest.mark.parametrize("how", SUBMITS)
def test_sends_the_form(visit, lab, how):
    inside, submit = SUBMITS[how]
    lab.page = form(inside)
    result, text = visit(submit=submit)
    assert (text, result.attempts) == ("Record 1", 1)
    assert len(lab.sent) == 1
    assert "bad.x" not in lab.sent[0]


def test_a_form_that_sends_itself(visit, lab):
    lab.page = form(
        IMAGE + "<input name=code oninput='this.value.length == 5 && this.form.submit()'>"
        "<button>Go</button>"
    )
    result, text = visit()
    assert (text, result.attempts, len(lab.sent)) == ("Record 1", 1, 1)


# Forms that scripts send

FETCH = """<div id=app><img id=captcha src=/captcha.png><input name=code>
<button type=button>Go</button></div><p id=message></p><script>
const button = document.querySelector("button");
button.onclick = async () => {
    const code = document.querySelector("[name=code]").value;
    const message = document.querySelector("#message");
    CLEAR
    const answer = await fetch("/check?code=" + code).then(reply => reply.json());
    if (answer.ok) { RIGHT } else { WRONG }
};</script>"""
SHOW = "document.querySelector('#app').outerHTML = '<h1>Record 1</h1>'; message.textContent = '';"
GO = "location.href = '/record';"
NEW_IMAGE = "document.querySelector('#captcha').src = '/captcha.png?' + Math.random();"
SAME_ADDRESS = """const old = document.querySelector('#captcha'), fresh = new Image();
    fresh.id = 'captcha'; fresh.src = '/captcha.png'; old.replaceWith(fresh);"""


def fetch_page(right: str, wrong: str, clear: str = "") -> str:
    return FETCH.replace("CLEAR", clear).replace("RIGHT", right).replace("WRONG", wrong)


SCRIPTS = {
    "image gone": (SHOW, NEW_IMAGE, {}),
    "goes elsewhere": (GO, NEW_IMAGE, {}),
    "goes elsewhere late": (f"setTimeout(() => {{ {GO} }}, 500)", NEW_IMAGE, {}),
    "same address": (SHOW, SAME_ADDRESS, {}),
    "reloads": (SHOW, "location.reload()", {}),
    "alert, then reload": (SHOW, "alert('wrong code'); location.reload()", {}),
    "alert only": (SHOW, "alert('wrong code')", {}),
    "says nothing": (SHOW, "", {}),
    "failure": (SHOW, "message.textContent = 'Wrong';" + NEW_IMAGE, {"failure": "text=Wrong"}),
    "failure, image later": (
        SHOW,
        f"message.textContent = 'Wrong'; setTimeout(() => {{ {NEW_IMAGE} }}, 600)",
        {"failure": "#message:not(:empty)"},
    ),
    "success": (
        "message.textContent = 'Welcome';",
        NEW_IMAGE,
        {"success": "text=Welcome"},
    ),
    "both": (
        "message.textContent = 'Welcome'; message.className = 'ok';" + NEW_IMAGE,
        "message.textContent = 'Sorry'; message.className = 'bad';" + NEW_IMAGE,
        {"success": ".ok", "failure": ".bad"},
    ),
}


@pytest.mark.parametrize("how", SCRIPTS)
def test_forms_that_scripts_send(visit, lab, lab_api, how):
    right, wrong, rule = SCRIPTS[how]
    lab.page = fetch_page(right, wrong)
    silent = how in ("alert only", "says nothing", "same address")
    answers = [WRONG] if silent else [WRONG, WRONG]
    lab_api.script += answers
    result, text = visit(submit="button", timeout=1000, **rule)
    assert result.attempts == len(lab_api.calls) == len(answers) + 1
    assert [sent["code"][0] for sent in lab.sent] == [*answers, result.answer]
    assert ("Welcome" if how in ("success", "both") else "Record 1") in text


# Verdicts of full pages


@both_apis
def test_a_full_page_with_another_image_means_wrong(visit, lab, lab_api):
    lab_api.script.append(WRONG)
    result, text = visit()
    assert (result.attempts, text, len(lab.images)) == (2, "Record 1", 2)


def test_an_error_page_without_an_image_means_wrong(visit, lab, lab_api):
    lab.wrong = "/no-such-page"
    lab_api.script.append(WRONG)
    result, text = visit()
    assert (result.attempts, text) == (2, "Record 1")
    assert lab.loads == 2


def test_refresh_is_clicked(visit, lab, lab_api):
    lab.page = form(IMAGE + f'<a id=new onclick="{NEW_IMAGE}">New</a>' + REST)
    lab_api.script += ["not five letters"]
    result, text = visit(refresh="#new", answer="[A-Z0-9]{5}")
    assert (result.attempts, text) == (1, "Record 1")
    assert (lab.loads, len(lab.images)) == (1, 2)


def test_without_refresh_the_page_is_loaded_again(visit, lab, lab_api):
    lab_api.script += ["not five letters"]
    result, text = visit(answer="[A-Z0-9]{5}")
    assert (result.attempts, text) == (1, "Record 1")
    assert (lab.loads, len(lab.images)) == (2, 2)


def test_a_page_that_a_fragment_names_is_loaded_again_too(browser, lab, lab_api, client):
    lab_api.script += [WRONG]
    lab.wrong = "/no-such-page"

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url + "#part")
        return (yield solve_captcha(page, RULE, client=client, timeout=2000))

    assert on_page(browser, body).attempts == 2


# Rules that do not fit

MISFITS = [
    ({"image": "div["}, "image"),
    ({"submit": "xpath=//a["}, "submit"),
    ({"success": "nonsense=x"}, "success"),
    ({"input": "#none"}, "input"),
    ({"submit": "#none"}, "submit"),
    ({"form": "#none"}, "form"),
    ({"input": None}, "input"),
    ({"fields": {"court": "Third"}}, "fields"),
    ({"fields": {"curt": "First"}}, "fields"),
]


@pytest.mark.parametrize(("rule", "field"), MISFITS)
def test_a_rule_that_does_not_fit_names_its_field(visit, lab, rule, field):
    lab.page = form(
        "<select name=court><option>First</select><input name=a title='code'>"
        + IMAGE
        + "<input name=code>"
    )
    with pytest.raises(RuleError) as caught:
        visit(timeout=500, **rule)
    assert caught.value.field == field
    assert lab.url in str(caught.value)
    assert not lab.sent
    if field == "input" and rule["input"] is None:
        assert "name='a'" in str(caught.value)
        assert "name='code'" in str(caught.value)
    if rule.get("fields") == {"court": "Third"}:
        assert "'First'" in str(caught.value)


def test_a_button_that_cannot_be_pressed(visit, lab):
    lab.page = form(IMAGE + "<input name=code><button disabled>Go</button>")
    with pytest.raises(CaptchaFormError, match="in time"):
        visit(timeout=500)
