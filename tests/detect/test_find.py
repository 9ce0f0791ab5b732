"""Finding captchas without a rule, on pages as real sites write them.

tests/pages has them: captcha/ with one each, none/ with other images, and expected.json, which
says for each page where its captcha stands (XPath) and which field takes the answer (its name, or
XPath). Files called later-* were written after the weights had been set.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from parsel import Selector
from pytest_twisted import ensureDeferred
from scrapy.http import HtmlResponse

from scrapy_acecaptcha.detect.find import (
    AUTO_CONFIDENCE,
    Candidate,
    find_captchas,
    find_widgets,
    may_show_captcha,
    resolve,
)
from scrapy_acecaptcha.detect.unique_selector import UniqueSelectors
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import select
from tests.crawling import run_crawl
from tests.site import RULES, CaptchaSite
from tests.stub import ApiStub

PAGES = Path(__file__).parent / "pages"
EXPECTED: dict[str, dict[str, Any]] = json.loads((PAGES / "expected.json").read_text("utf-8"))
CAPTCHAS = [name for name in EXPECTED if name.startswith("captcha/")]
OTHERS = [name for name in EXPECTED if name.startswith("none/")]
TOO_WEAK = ["captcha/later-jail-roster-table.html"]  # `Enter number:` and an image called sessimg

AUTO = CaptchaRule(image="auto")
# canvas: for browsers; pdf: its records are files; nocaptcha: none; hostile: no records.
WALLS = sorted(set(RULES) - {"canvas", "pdf", "nocaptcha", "hostile"})


def load(name: str) -> HtmlResponse:
    return HtmlResponse("https://www.example.org/a/page", body=(PAGES / name).read_bytes())


def best(page: HtmlResponse) -> Candidate | None:
    found = find_captchas(page.selector, page.url)
    return found[0] if found and found[0].confidence >= AUTO_CONFIDENCE else None


def is_right(page: HtmlResponse, found: Candidate | None, expected: dict[str, Any]) -> bool:
    (captcha,) = page.xpath(expected["image"])
    return found is not None and [m.root for m in page.css(found.image)] == [captcha.root]


# The test set


@pytest.mark.parametrize("name", [name for name in CAPTCHAS if name not in TOO_WEAK])
def test_finds_the_captcha_and_its_field(name: str) -> None:
    page, expected = load(name), EXPECTED[name]
    found = best(page)
    assert is_right(page, found, expected), find_captchas(page.selector)
    assert found is not None
    assert found.input is not None
    field = expected["input"]
    if not field.startswith("/"):
        field = f'//input[@name="{field}"]'
    assert [m.root for m in page.css(found.input)] == [m.root for m in page.xpath(field)]
    assert found.needs_playwright is bool(expected.get("playwright"))
    if found.form is not None:
        (form,) = page.css(found.form)
        assert form.root.tag == "form"
    assert found.reasons


@pytest.mark.parametrize("name", OTHERS)
def test_finds_nothing_where_no_captcha_stands(name: str) -> None:
    page = load(name)
    assert best(page) is None
    widgets = [widget.name for widget in find_widgets(page.selector)]
    assert ",".join(widgets) == EXPECTED[name].get("widgets", "")


def test_the_figures_in_the_docs() -> None:
    """docs/detection.md says how well this works; it must be what the test set gives."""
    right = wrong = 0
    for name, expected in EXPECTED.items():
        page = load(name)
        found = best(page)
        if found is not None:
            is_hit = name in CAPTCHAS and is_right(page, found, expected)
            right, wrong = right + is_hit, wrong + (not is_hit)
    precision, recall = right / (right + wrong), right / len(CAPTCHAS)
    docs = " ".join((PAGES.parents[2] / "docs" / "detection.md").read_text("utf-8").split())
    assert f"{len(CAPTCHAS)} pages with a captcha and {len(OTHERS)} without" in docs
    assert f"precision {precision:.1%}, recall {recall:.1%}" in docs
    assert f"confidence of {AUTO_CONFIDENCE:g}" in docs
    assert precision >= 0.99
    assert recall >= 0.98


def test_there_is_room_below_the_threshold() -> None:
    found = [c.confidence for name in OTHERS for c in find_captchas(load(name).selector)]
    assert max(found) <= 0.7  # as docs/detection.md says


def test_the_test_set_is_large_enough() -> None:
    assert len(CAPTCHAS) >= 36
    assert len(OTHERS) >= 25
    on_disk = {str(file.relative_to(PAGES).as_posix()) for file in PAGES.rglob("*.html")}
    assert set(EXPECTED) == on_disk


# Selectors


@pytest.mark.parametrize("name", CAPTCHAS)
def test_selectors_hold_when_the_page_is_served_again(name: str) -> None:
    """Session ids, counters and timestamps change, and are in no selector."""
    found = best(load(name))
    for selector in (found.image, found.input, found.form) if found else ():
        assert not re.search(r"\d{5}|[0-9a-f]{8}", selector or ""), selector
        assert len(selector or "") <= 80


@pytest.mark.parametrize(
    ("html", "selector"),
    [
        ('<img id="captcha">', "#captcha"),
        ('<img id="a:b">', 'img[id="a:b"]'),
        ('<img id="img-8831205" name="pic">', "img[name=pic]"),
        ('<img src="/c.php?r=1"><img src="/d.php?r=1">', 'img[src*="c.php"]'),
        ('<img src="/x/captcha/8d1f0f6f6a2f/"><img src="/y/">', 'img[src*="captcha/"]'),
        ('<img src="/i?a=captcha&r=5"><img src="/i?a=logo">', 'img[src*="a=captcha"]'),
        ('<img class="w-3 captcha"><img class="w-3">', "img.captcha"),
        ('<img alt="Type this"><img alt="">', 'img[alt="Type this"]'),
        ("<img alt='a \"quoted\" one'><img>", 'img[alt="a \\"quoted\\" one"]'),
        ('<img id="cap_77123456789"><img>', "img[id^=cap_]"),
        ('<form><img src="data:image/gif;base64,R0"></form><img>', "form img"),
        ("<div><p><img></p></div><img>", "html > body > div > p > img"),
        ("<p></p><p><img></p><p><img></p>", "html > body > p:nth-of-type(2) > img"),
        ('<b id="x"><i></i><i><img></i><i><img></i></b>', "#x > i:nth-of-type(2) > img"),
        ('<img id="same"><i id="same"></i>', "img[id=same]"),
    ],
)
def test_selectors_are_short_and_match_one_element(html: str, selector: str) -> None:
    page = Selector(text=html)
    first = page.css("img")[0].root
    if selector == "img[id=same]":
        selector = UniqueSelectors(page).of(first)
    assert UniqueSelectors(page).of(first) == selector
    assert [m.root for m in page.css(selector)] == [first]


# What a rule gives


def test_a_given_field_makes_sure() -> None:
    page = Selector(text='<form><input name=who><input name=sum><img src="/shot?1"></form>')
    assert resolve(AUTO, page) is None
    rule = resolve(CaptchaRule(image="auto", input="[name=sum]"), page)
    assert rule is not None
    assert (rule.image, rule.input) == ('img[src*="shot"]', "[name=sum]")


@pytest.mark.parametrize("given", [{"input": "#other"}, {"form": "#other"}])
def test_pages_without_the_given_field_or_form_are_others(given: Any) -> None:
    page = load("captcha/smf2.html").selector
    assert resolve(AUTO, page) is not None
    assert resolve(CaptchaRule(image="auto", **given), page) is None


def test_a_given_form_leaves_out_the_others() -> None:
    form = "<form id={}><img src=captcha.php id=i{}><input name=captcha id=c{}></form>"
    page = Selector(text=form.format(1, 1, 1) + form.format(2, 2, 2))
    rule = resolve(CaptchaRule(image="auto", form="form[id='2']"), page)
    assert rule is not None
    assert (rule.image, rule.input, rule.form) == ("#i2", "#c2", "form[id='2']")


def test_resolving_keeps_the_rest_of_the_rule() -> None:
    page = load("captcha/smf2.html").selector
    rule = resolve(CaptchaRule(image="auto", case="upper", max_attempts=7), page)
    assert rule is not None
    assert (rule.case, rule.max_attempts) == ("upper", 7)
    other = CaptchaRule(image="img.x")
    assert resolve(other, page) is other


def test_what_a_script_draws_is_for_browsers_only() -> None:
    page = load("captcha/canvas.html").selector
    assert resolve(AUTO, page) is None
    rule = resolve(AUTO, page, browser=True)
    assert rule is not None
    assert rule.image == "#canvas"


def test_addresses_are_absolute() -> None:
    page = load("captcha/smf2.html")
    (found, *_) = find_captchas(load("captcha/tax-pe.html").selector, page.url)
    assert found.address == "https://www.example.org/a/captcha?accion=image"


@pytest.mark.parametrize(
    "image",
    ["<image src=captcha.php>", "<noscript><img src=captcha.php></noscript>"]
    + [f"<img {name}=captcha.php>" for name in ("data-original", "data-lazy-src", "data-src")],
)
def test_images_are_found_however_they_are_written(image: str) -> None:
    page = HtmlResponse("https://a.example/b", body=f"<form>{image}<input name=code>".encode())
    found = best(page)
    assert found is not None
    assert found.address == "https://a.example/captcha.php"
    assert not found.needs_playwright


def test_a_search_page_with_a_captcha_as_forums_have_them() -> None:
    page = Selector(
        "<form action=?action=search2 method=post><input name=search maxlength=100>"
        "<button type=button>Clear</button><div id=verification_control_search>"
        "<img src='/index.php?action=verificationcode;vid=search;rand=6f3a9c1b2d7e4f50'"
        " alt='Visual verification' id=verification_image_search>"
        "<a href='?rand=1' id=visual_verification_search_refresh>Request another image</a>"
        "Type the letters shown in the picture: <input name='search_vv[code]' size=30></div>"
        "<input type=submit name=b_search value=Search></form>"
    )
    rule = resolve(AUTO, page)
    assert rule is not None
    assert rule.image == "#verification_image_search"
    assert rule.input == 'input[name="search_vv[code]"]'
    assert rule.submit is None


def test_spinners_inside_a_captchas_box_are_waited_for() -> None:
    box = "<form><input placeholder=验证码><div class='captcha{}'>{}</div></form>"
    spinner = (
        "<div class=el-loading-mask><div class=el-loading-spinner>"
        "<svg viewBox='25 25 50 50' class=circular></svg></div></div>"
    )
    image = "<img src='data:image/png;base64,iVBORw0KGgo='>"
    for inside in (spinner, image + spinner):
        page = Selector(box.format(" el-loading-parent--relative", inside))
        assert resolve(AUTO, page, browser=True) is None
    rule = resolve(AUTO, Selector(box.format("", image)), browser=True)
    assert rule is not None
    assert rule.image == "div.captcha img"


def test_noscript_is_not_for_browsers() -> None:
    page = Selector("<form><noscript><img src=captcha.php></noscript><input name=captcha></form>")
    assert resolve(AUTO, page) is not None
    assert resolve(AUTO, page, browser=True) is None


def test_file_extensions_and_folders_are_no_words() -> None:
    for image in ("check.png", "checked.gif", "secure.png", "random.jpg", "brand-image.php"):
        page = Selector(f"<form><input name=name><img src=/i/{image}></form>")
        assert resolve(AUTO, page) is None, image
    for image in ("/demo/captcha.php", "/help/examples/captcha.php?theme=icons&r=5qr8"):
        page = Selector(f"<form><input name=code><img src='{image}'></form>")
        assert resolve(AUTO, page) is not None, image


@pytest.mark.parametrize(
    "hidden",
    ["style='display: none'", "hidden", "class='form honeypot'", "style='left:-9999px'"],
)
def test_fields_that_nobody_sees_are_not_the_field(hidden: str) -> None:
    box = f"<div {hidden}><p><input name=captcha></p></div>"
    rule = resolve(AUTO, Selector(f"<form>{box}<img src=captcha.php><input name=code></form>"))
    assert rule is not None
    assert rule.input == "input[name=code]"
    # Where it is the only one, a script shows it together with the picture.
    rule = resolve(AUTO, Selector(f"<form>{box}<img src=captcha.php></form>"))
    assert rule is not None
    assert rule.input == "input[name=captcha]"


def test_traps_for_robots_are_not_the_field() -> None:
    page = Selector(
        "<form><img src=captcha.php><label>Please leave this box empty<input name=captcha></label>"
        "<input name=empty_field><input name=code></form>"
    )
    rule = resolve(AUTO, page)
    assert rule is not None
    assert rule.input == "input[name=code]"


CAPTCHA = "<img src=captcha.php><input name=captcha>"


@pytest.mark.parametrize(
    ("form", "submit"),
    [
        (f"<form>{CAPTCHA}<button>Go</button></form>", None),
        (f"<form>{CAPTCHA}</form>", None),
        (
            f"<form><button class=close>&times;</button>{CAPTCHA}<button id=go>Go</button></form>",
            "#go",
        ),
        (f"<form>{CAPTCHA}<button>Forgot password?</button><input type=submit></form>", "[type="),
        (f"<form><button>Search</button>{CAPTCHA}<button id=in>Log in</button></form>", "#in"),
        (f"<form><button>忘记密码</button>{CAPTCHA}<input type=image id=a src=b.gif></form>", "#a"),
        (f"<form>{CAPTCHA}<input type=image src=refresh.png><button id=go>x</button></form>", None),
        (f"<form>{CAPTCHA}<button type=button id=go>Log in</button></form>", "#go"),
        (f"<form>{CAPTCHA}<a href=# onclick=login() id=go>登录</a></form>", "#go"),
        (f"{CAPTCHA}<button type=button id=go onclick=check()>OK</button>", "#go"),
    ],
)
def test_the_button_that_sends_the_answer(form: str, submit: str | None) -> None:
    (found, *_) = find_captchas(Selector(form))
    assert (submit is None) == (found.submit is None), found.submit
    assert submit is None or (found.submit and submit in found.submit)


def test_without_scripts_no_button_is_pressed_that_needs_them() -> None:
    page = Selector(f"<form>{CAPTCHA}<button type=button id=go>Log in</button></form>")
    rule, in_browser = resolve(AUTO, page), resolve(AUTO, page, browser=True)
    assert rule is not None
    assert in_browser is not None
    assert (rule.submit, in_browser.submit) == (None, "#go")
    page = Selector(
        f"<form><button class=close>&times;</button>{CAPTCHA}<button>Go</button></form>"
    )
    rule = resolve(CaptchaRule(image="auto", submit="text=Go"), page)
    assert rule is not None
    assert rule.submit == "text=Go"


@pytest.mark.parametrize(
    "image", ["<img src=/show?a>", "<img src='' onclick=\"this.src+=''\">", "<img id=pic>"]
)
@pytest.mark.parametrize("asks", ["Captcha:", "验证码:", "Text in the image:"])
def test_a_picture_that_a_script_makes_beside_a_field_for_a_captcha(image: str, asks: str) -> None:
    page = Selector(f"<form><input name=user><p>{asks} <input name=x>{image}</form>")
    assert resolve(AUTO, page, browser=True) is not None
    other = Selector(f"<form><input name=user><p>{asks} <input name=x><img src=a.png></form>")
    assert resolve(AUTO, other, browser=True) is None


def test_a_password_field_may_take_an_answer_only_if_it_says_so() -> None:
    login = "<form><input type=password name={}>" + CAPTCHA.replace("name=captcha", "type=hidden")
    for name, expected in (("pass", None), ("captcha", "input[name=captcha]")):
        found = find_captchas(Selector(login.format(name)))
        assert (found[0].input if found else None) == expected


def test_what_a_field_is_called_outweighs_what_stands_before_another() -> None:
    page = Selector(
        "<p>Captcha is invalid, please try again</p><input name=who><input name=subject>"
        "<img src=/captcha.php><input name=security_code><button>Send</button>"
    )
    rule = resolve(AUTO, page)
    assert rule is not None
    assert rule.input == "input[name=security_code]"


def test_a_captcha_that_is_called_after_its_reloading_is_found() -> None:
    page = "<form><input name=captcha><img id=refreshCaptcha src=/image></form>"
    assert resolve(AUTO, Selector(page)) is not None


def test_a_captcha_behind_many_fields_is_found() -> None:
    html = "<input name=x>" * 1900 + "<form><img src=captcha.php><input name=captcha></form>"
    assert resolve(AUTO, Selector(html)) is not None


# What pages must not do to us


@pytest.mark.parametrize(
    "html",
    [
        "",
        "<input>",
        "<img><input>",
        "<img src='http://[bad'><input name=captcha>",
        "<img src='data:image/png;base64,iVBORw0KGgo='><input name=captcha>",
        "<img src='data:,'><input name=captcha>",
        "<img id='\"]'><input name='a\"]' placeholder=captcha>",
        "<img id='\\'><input name='\\' placeholder=captcha>",
        "<svg><script>1</script></svg><input name=captcha>",
        "<!-- <img> --><?pi?><input name=captcha><img src=c.php width=9e9 style='width:10px'>",
        "<form><input name=captcha form=nowhere><img src=captcha.php></form>",
        "<frameset><frame src=a></frameset>",
        "<div " + "class=captcha " * 20 + "style='background:url(x.php?1)'></div><input>",
        "<div>" * 240 + "<img src=captcha.php><input name=code>",
        "<o:p id='x'><o:p><img src='captcha.php'></o:p></o:p><o:p><input name=captcha></o:p>",
        "<a:b id=f><svg:svg><img></svg:svg></a:b><img><input name=captcha>" * 2,
        "<img id='a b\nc 1' src=captcha.php><img src=captcha.php><input id='captcha\n2'>",
        "<form id='a b' name='c\td'><img><input id='captcha\t1'></form><img><input name=captcha>",
        "<img id='captcha image 77123'><img id='captcha image 8'><input name=captcha>",
        "<img class='" + "captcha " * 3000 + "'><input name=captcha>" * 2,
        "<form>" + "<p>" * 100 + "<b><i><img></i></b><input placeholder=captcha>" * 2,
    ],
)
def test_odd_pages_are_survived(html: str) -> None:
    page = HtmlResponse("https://example.org", body=html.encode(), encoding="utf-8")
    for found in find_captchas(page.selector, page.url):
        for selector in filter(None, (found.image, found.input, found.form)):
            assert len(select(page.selector, selector)) == 1, selector


def test_the_look_at_the_bytes() -> None:
    for name in CAPTCHAS:
        assert may_show_captcha((PAGES / name).read_bytes()), name
    assert not may_show_captcha((PAGES / "none/plain-list.html").read_bytes())
    assert not may_show_captcha(b"<img src=a.png>")


def test_a_large_page_takes_no_time() -> None:
    item = (
        '<div class="item" id="item-{0}"><a href="/p/{0}"><img src="/img/p{0}.jpg" alt="P {0}">'
        "</a><p>Some text about the product, which is good.</p><span>12</span></div>"
    )
    html = "<form><input name=q></form>" + "".join(item.format(i) for i in range(1500))
    page = Selector(text=html + "<form><input name=email><img src=1.png></form>")
    started = time.perf_counter()
    assert find_captchas(page) == []
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "html",
    [
        "<img src=captcha.php>" * 20_000 + "<input name=captcha>" * 20_000,
        "<input name=captcha id=a><img src=c.php?1>" * 10_000,
        "<div class=captcha-box id=captcha>" * 5_000 + "<img src=c.php><input name=captcha>",
        "<i class=captcha></i>" * 20_000 + "<style>" + "p{background:url(x)}" * 500 + "</style>",
        f"<img src=x.php alt='{'code image ' * 50_000}'><input name=a title='{'短信' * 99_999}'>",
        f"<img src='{'a' * 400_000}'><input name='{'a' * 400_000}'>",
        f"<img src=c.php><input name=a>{'characters ' * 100_000}",
        "<a>refresh<img src=captcha.php></a>" * 20_000 + "<input name=captcha>",
        "<button>refresh" * 5_000 + "<img src=captcha.php><input name=captcha>",
    ],
)
def test_pages_that_mean_harm_take_little_time(html: str) -> None:
    page = Selector(text=html)
    started = time.process_time()
    find_captchas(page)
    find_widgets(page)
    assert time.process_time() - started < 5


# In a crawl


@pytest.mark.parametrize("wall", WALLS)
@ensureDeferred
async def test_auto_in_a_crawl(site: CaptchaSite, settings: Any, wall: str) -> None:
    found = ("image", "input", "form")
    rule = {name: value for name, value in RULES[wall].items() if name not in found}
    with ApiStub(site.answers, wrong=0.15, seed=3) as api:
        crawl = await run_crawl(
            [f"{site.url}/{wall}/?n=12"],
            settings(rule={**rule, "image": "auto"}, ACECAPTCHA_API_BASE_URL=api.url),
        )
    assert crawl.errors == []
    assert crawl.records == [f"Record {i}" for i in range(12)]
    counted = site.stats[wall]
    assert crawl.stats["solved"] == counted["solved"] > 0
    assert (counted["spoiled"], counted["improper"]) == (0, 0)


@ensureDeferred
async def test_auto_leaves_pages_without_captchas_alone(site: CaptchaSite, settings: Any) -> None:
    crawl = await run_crawl([f"{site.url}/nocaptcha/record/1"], settings(rule={"image": "auto"}))
    assert crawl.stats.get("challenges") == 0
