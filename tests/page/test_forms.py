"""Forms as they are filled in and sent, compared with what Chromium sends."""

from __future__ import annotations

import html
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, sync_playwright
from scrapy import Request
from scrapy.http import HtmlResponse
from scrapy.utils.response import get_base_url

from scrapy_acecaptcha.errors import CaptchaFormError, RuleError
from scrapy_acecaptcha.page.forms import Form, Posted, Submission
from scrapy_acecaptcha.rules import CaptchaRule
from scripts.browser import launch_options

ANSWER = "aB 3~é"
PAGE_PATH = "/dir/page?id=1&x=%20"


# What Chromium sends


@dataclass
class Sent:
    """A request as it stands on the wire; bodies in parts where they are multipart."""

    method: str
    path: str
    content_type: str | None
    body: bytes | list[bytes]

    @classmethod
    def of(cls, method: str, path: str, content_type: str | None, body: bytes) -> Sent:
        path = path.rstrip("?")  # an empty query is none to servers
        kind, _, boundary = (content_type or "").partition("; boundary=")
        if not boundary:
            return cls(method, path, content_type, body)
        start, *parts, end = (b"\r\n" + body).split(f"\r\n--{boundary}".encode())
        assert (start, end) == (b"", b"--\r\n")
        return cls(method, path, kind, parts)


class _Handler(BaseHTTPRequestHandler):
    """Serves the page in hand, and notes everything else."""

    server: EchoServer

    def do_GET(self) -> None:
        if self.path == PAGE_PATH and not self.server.page_is_served:
            self.server.page_is_served = True
            self.send_response(200)
            self.send_header("Content-Type", f"text/html; charset={self.server.charset}")
            self.send_header("Content-Length", str(len(self.server.page)))
            self.end_headers()
            self.wfile.write(self.server.page)
        elif self.path.endswith((".png", ".ico")):
            self.send_error(404)
        else:
            self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.put(
            Sent.of(self.command, self.path, self.headers.get("Content-Type"), body)
        )
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class EchoServer(ThreadingHTTPServer):
    """One page with a form, and what comes of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}{PAGE_PATH}"
        self.page, self.charset, self.page_is_served = b"", "", False
        self.seen: queue.Queue[Sent] = queue.Queue()

    def show(self, page: bytes, charset: str) -> None:
        self.page, self.charset, self.page_is_served = page, charset, False


InBrowser = Callable[[Callable[[Page], None]], None]


@pytest.fixture(scope="module")
def in_browser() -> Iterator[InBrowser]:
    """Runs a function on a page of Chromium, in a thread that has no event loop yet."""
    with ThreadPoolExecutor(1) as thread:
        playwright = thread.submit(sync_playwright().start).result()
        browser = thread.submit(lambda: playwright.chromium.launch(**launch_options())).result()
        page = thread.submit(browser.new_page).result()
        yield lambda work: thread.submit(work, page).result()
        thread.submit(browser.close).result()
        thread.submit(playwright.stop).result()


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def sent_by_browser(echo: EchoServer, in_browser: InBrowser, page: str, charset: str) -> Sent:
    """Fill in #answer, press #go, see what comes."""

    def submit(tab: Page) -> None:
        tab.goto(echo.url)
        with tab.expect_navigation():
            tab.evaluate(
                "answer => { document.querySelector('#answer').value = answer;"
                " document.querySelector('#go').click(); }",
                ANSWER,
            )

    echo.show(page.encode(charset, "xmlcharrefreplace"), charset)
    in_browser(submit)
    return echo.seen.get(timeout=10)


def sent_by_us(url: str, page: str, charset: str) -> Sent:
    """The same, as the Scrapy front end does it."""
    response = HtmlResponse(
        url,
        headers={"Content-Type": f"text/html; charset={charset}"},
        body=page.encode(charset, "xmlcharrefreplace"),
    )
    submission = Form(
        response.text,
        CaptchaRule(image="#pic", input="#answer", submit="#go"),
        url=url,
        base_url=get_base_url(response),
        encoding=response.encoding,
    ).submission(ANSWER)
    parts = urlsplit(Request(submission.url).url)
    return Sent.of(
        submission.method,
        parts.path + (f"?{parts.query}" if parts.query else ""),
        submission.headers.get("Content-Type"),
        submission.body,
    )


# Forms of every kind

NAMES = ["a", "b", "a[]", "имя", 'q"u', "x y&z", "n\nl", "_charset_"]
names = st.sampled_from(NAMES)
one_line = st.text("ab1 &=+~*%\"'<é日Ж", max_size=5)
lines = st.text('ab \n\r"é日', max_size=6)
flags = st.sampled_from(["", "", "", " disabled"])


def attribute(name: str, value: str | None) -> str:
    return "" if value is None else f' {name}="{html.escape(value)}"'


def written(value: str) -> str:
    """Text in a page, with line ends that the parser leaves alone."""
    return html.escape(value).replace("\r", "&#13;")


owners = st.sampled_from([None, None, None, "f", "other"])
typed_inputs = st.builds(
    lambda kind, name, value, flag: f"<input{kind}{attribute('name', name)}{value}{flag}>",
    st.sampled_from(
        ["", " type=text", " type=TEXT", " type=password", " type=search", " type=odd"]
    ),
    names | st.just(""),
    st.none().map(lambda _: "") | one_line.map(lambda text: attribute("value", text)),
    flags | st.just(" readonly"),
)
hidden_inputs = st.builds(
    lambda name, value: f'<input type=hidden name="{html.escape(name)}" value="{written(value)}">',
    names,
    lines,
)
file_inputs = st.builds(
    "<input type=file{}{}>".format, names.map(lambda n: attribute("name", n)), flags
)
textareas = st.builds(
    lambda name, flag, text: f"<textarea{attribute('name', name)}{flag}>{written(text)}</textarea>",
    names,
    flags,
    lines,
)
boxes = st.builds(
    lambda kind, name, value, checked, flag: (
        f"<input type={kind}{attribute('name', name)}{attribute('value', value)}{checked}{flag}>"
    ),
    st.sampled_from(["checkbox", "radio", "radio"]),
    st.sampled_from(["r1", "r2"]),
    st.none() | one_line,
    st.sampled_from(["", " checked"]),
    flags,
)
options = st.builds(
    lambda value, chosen, flag, text: (
        f"<option{attribute('value', value)}{chosen}{flag}>{written(text)}</option>"
    ),
    st.none() | one_line,
    st.sampled_from(["", " selected"]),
    flags,
    st.text("ab \n\u00a0日", max_size=5),
)
groups = st.builds(
    lambda flag, inside: f"<optgroup label=g{flag}>{''.join(inside)}</optgroup>",
    flags,
    st.lists(options, max_size=2),
)
selects = st.builds(
    lambda name, kind, flag, inside: (
        f"<select{attribute('name', name)}{kind}{flag}>{''.join(inside)}</select>"
    ),
    names,
    st.sampled_from(["", "", " multiple", " size=3", " size=1"]),
    flags,
    st.lists(options | groups, max_size=4),
)
controls = typed_inputs | hidden_inputs | file_inputs | textareas | boxes | selects
fieldsets = st.builds(
    lambda flag, first, rest: (
        f"<fieldset{flag}><legend>{first}</legend><legend>{rest}</legend>{rest}</fieldset>"
    ),
    flags,
    controls,
    controls,
)
ACTIONS = [
    None,
    "",
    " ",
    "#",
    "?",
    "/echo",
    "echo?x=1#f",
    " ../up ",
    "?я=é&z",
    "/путь/a b",
    "x;y?<",
]
CHARSETS = ["utf-8", "gbk", "gb2312", "windows-1251", "iso-8859-1", "shift_jis", "euc-kr"]
methods = st.sampled_from([None, "post", "POST", "post", "get", "", "put"])
enctypes = st.sampled_from([None, "multipart/form-data", "Multipart/Form-Data", "odd", ""])


@st.composite
def buttons(draw: st.DrawFn, chosen: bool) -> str:
    attributes = attribute("id", "go" if chosen else None)
    attributes += attribute("name", draw(st.none() | names))
    attributes += attribute("value", draw(st.none() | one_line))
    if draw(st.integers(0, 3)) == 0:
        attributes += attribute("formaction", draw(st.sampled_from(ACTIONS)))
        attributes += attribute("formmethod", draw(methods))
        attributes += attribute("formenctype", draw(enctypes))
    kind = draw(st.sampled_from(["input submit", "input image", "button submit", "button odd"]))
    tag, _, type_ = kind.partition(" ")
    return f"<{tag} type={type_}{attributes}>" + ("go</button>" if tag == "button" else "")


@st.composite
def pages(draw: st.DrawFn) -> str:
    """A page with #answer and #go in a form; some controls before and behind it."""
    answer = '<img id=pic src="/c.png"><input id=answer name=captcha>'
    some = st.lists(controls | fieldsets | buttons(False), max_size=3)
    inside = [*draw(some), answer, *draw(some), draw(buttons(True)), *draw(some)]
    outside = [
        control.replace(" ", attribute("form", draw(owners)) + " ", 1)
        for control in draw(st.lists(controls, max_size=2))
    ]
    form = "".join(
        [
            attribute("action", draw(st.sampled_from(ACTIONS))),
            attribute("method", draw(methods)),
            attribute("enctype", draw(enctypes)),
            attribute("accept-charset", draw(st.sampled_from([None] * 4 + ["utf-8", "odd gbk"]))),
        ]
    )
    base = draw(st.sampled_from(["", "", "<base href='/base/dir/'>"]))
    return (
        f"<!DOCTYPE html><html><head>{base}<title>t</title></head><body>{''.join(outside[:1])}"
        f"<form id=f{form}>{''.join(inside)}</form>{''.join(outside[1:])}"
        "<form id=other></form></body></html>"
    )


@settings(
    max_examples=40,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(page=pages(), charset=st.sampled_from(CHARSETS))
def test_forms_are_sent_as_chromium_sends_them(
    echo: EchoServer, in_browser: InBrowser, page: str, charset: str
) -> None:
    assert sent_by_us(echo.url, page, charset) == sent_by_browser(echo, in_browser, page, charset)


CAPTCHA = '<img id=pic src="/c.png"><input id=answer name=captcha>'


@pytest.mark.parametrize(
    "body",
    [
        f"<form method=post enctype=text/plain>{CAPTCHA}<input name=x value='a=b&c'>"
        "<textarea name=t>\n1\n2</textarea><button id=go name=q value=1>Go</button></form>",
        # Forms that begin and end in different parts of the page, as old sites have them.
        f"<table><form method=post><tr><td>{CAPTCHA}</td></tr>"
        "<tr><td><button id=go name=q>Go</button></td></tr></form></table>",
        f"<table><tr><form method=post><td>{CAPTCHA}</td>"
        "<td><button id=go name=q>Go</button></td></form></tr></table>",
        f"<table><tr><td><form method=post>{CAPTCHA}</td>"
        "<td><button id=go name=q>Go</button></form></td><td><input name=out></td></tr></table>",
        f"<div><form method=post><input name=in></div><p>{CAPTCHA}"
        "<button id=go name=q>Go</button></form ><input name=out>",
        f"<form><input name=out></form><form method=post>{CAPTCHA}<button id=go name=q>Go</button>",
        # What is called </form> and is not.
        f"<form method=post><!-- </form> --><script>'</form>'</script>{CAPTCHA}"
        "<textarea name=t></form></textarea><input type=hidden name=h value='</form>'>"
        "<template><input name=out></template><button id=go>Go</button></form>",
        # Addresses as people write them.
        f"<form method=post action='/a b/%7e/é|\\x?q=a b<>'>{CAPTCHA}<button id=go>Go</button>",
        f"<form method=post action='/a\n\tb'>{CAPTCHA}<button id=go>Go</button></form>",
        f"<form method=post>{CAPTCHA}<input name=captcha value=2><button id=go>Go</button></form>",
    ],
)
def test_odd_pages_are_sent_as_chromium_sends_them(
    echo: EchoServer, in_browser: InBrowser, body: str
) -> None:
    page = f"<!DOCTYPE html><html><head><title>t</title></head><body>{body}</body></html>"
    assert sent_by_us(echo.url, page, "utf-8") == sent_by_browser(echo, in_browser, page, "utf-8")


# Which form, which field, which button

URL = "https://example.org/check?id=1"


def form(body: str, url: str = URL, **fields: Any) -> Form:
    rule = CaptchaRule(**{"image": "#pic", **fields})
    return Form(f"<body>{body}</body>", rule, url=url, base_url=url, encoding="utf-8")


def test_a_page_with_too_much_to_look_at_is_refused() -> None:
    with pytest.raises(CaptchaFormError, match="more than 20,000 ends of forms"):
        form(f"<form>{PIC}<input name=code></form>" + "</form>" * 20_000)
    with pytest.raises(CaptchaFormError, match="more than 2,000 controls"):
        form(f"<form>{PIC}" + "<input name=code>" * 2_001)


def posted(body: str, **fields: Any) -> str:
    """The urlencoded body that the form sends with the answer A."""
    return form(body, **fields).submission("A").body.decode()


def problem(body: str, url: str = URL, **fields: Any) -> tuple[type[Exception], str]:
    """The error that a form ends in."""
    with pytest.raises((RuleError, CaptchaFormError)) as caught:
        form(body, url, **fields).submission("A")
    return type(caught.value), str(caught.value)


PIC = "<img id=pic>"
NO_FORM = "there is no form around the captcha; name it, or use Playwright if scripts send it"


@pytest.mark.parametrize(
    ("body", "fields", "field", "message"),
    [
        (PIC, {}, "form", NO_FORM),
        (PIC + "<input name=captcha>", {}, "form", NO_FORM),
        (f"{PIC}<form><input name=a></form><form><input name=b></form>", {}, "form", NO_FORM),
        (
            f"{PIC}<form><input name=captcha></form><form><input name=captcha></form>",
            {},
            "form",
            NO_FORM,
        ),
        (f"<form>{PIC}</form>", {"form": "#f"}, "form", "no element matches '#f'"),
        (f"<div>{PIC}</div>", {"form": "div"}, "form", "'div' matches no <form>"),
        (
            f"<form>{PIC}</form>",
            {"input": "#i"},
            "input",
            "no element matches '#i'; the page has no text field",
        ),
        (
            f"<form>{PIC}<input name=q></form>",
            {"input": "#i"},
            "input",
            "no element matches '#i'; candidates are <input type=text name='q' id=None>",
        ),
        (
            f"<form>{PIC}<input id=i></form>",
            {"input": "#i"},
            "input",
            "'#i' matches nothing that the form sends; if scripts send it, use Playwright",
        ),
        (
            f"<form id=f>{PIC}</form><form><input id=i name=i></form>",
            {"form": "#f", "input": "#i"},
            "input",
            "'#i' matches nothing that the form sends; if scripts send it, use Playwright",
        ),
        (
            f"<form>{PIC}<input type=hidden name=captcha><input name=captcha disabled></form>",
            {},
            "input",
            "is not given and cannot be told: the form has no text field",
        ),
        (
            f"<form>{PIC}<input name=q><input type=tel id=t name=phone></form>",
            {},
            "input",
            "is not given and cannot be told: candidates are <input type=text name='q' id=None>, "
            "<input type=tel name='phone' id='t'>",
        ),
        (
            f"<form>{PIC}<input name=captcha1><input name=q><input name=captcha2></form>",
            {},
            "input",
            "is not given and cannot be told: candidates are <input type=text name='captcha1' "
            "id=None>, <input type=text name='captcha2' id=None>",
        ),
        (
            f"<form>{PIC}<input name=captcha><button>Go</button></form>",
            {"submit": "#go"},
            "submit",
            "no button matches '#go'",
        ),
        (
            f"<form>{PIC}<input name=captcha><button>Go</button></form>",
            {"submit": "text=Search"},
            "submit",
            "no button matches 'text=Search'",
        ),
        (
            f"<form>{PIC}<input name=captcha><select name=s><option>x<option value=1>y</select>",
            {"fields": {"s": "z"}},
            "fields",
            "'s' has no option 'z'; it has 'x', '1'",
        ),
        (
            f"<form>{PIC}<input name=captcha><input type=radio name=r value=1><input type=radio "
            "name=r value=2></form>",
            {"fields": {"r": 3}},
            "fields",
            "'r' has no option '3'; it has '1', '2'",
        ),
    ],
)
def test_a_rule_that_does_not_fit_the_page_is_told(
    body: str, fields: dict[str, Any], field: str, message: str
) -> None:
    expected = f"rule for {URL}, field {field!r}: {message}"
    assert problem(body, **fields) == (RuleError, expected)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("javascript:send()", "The form is sent to 'javascript:send()', which is not an http(s)"),
        ("mailto:me@example.org", "The form is sent to 'mailto:me@example.org', which is not an"),
        ("file:///etc/passwd", "The form is sent to 'file:///etc/passwd', which is not an http(s)"),
        ("data:text/html,x", "The form is sent to 'data:text/html,x', which is not an http(s)"),
        ("ftp://example.org/x", "The form is sent to 'ftp://example.org/x', which is not an"),
        (
            "http://example.org/x",
            "The form leads from https to 'http://example.org/x' in clear text",
        ),
        ("http://[", "The form cannot be submitted: "),
    ],
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_answers_are_not_sent_where_they_must_not_go(
    action: str, message: str, method: str
) -> None:
    body = f"<form action='{action}' method={method}>{PIC}<input name=captcha></form>"
    kind, told = problem(body)
    assert kind is CaptchaFormError
    assert told.startswith(message)
    assert told.endswith(f"(page {URL}, selector '#pic')")


def test_a_dialog_is_not_sent() -> None:
    kind, told = problem(f"<form method=dialog>{PIC}<input name=captcha></form>")
    assert (kind, told.partition(":")[0]) == (CaptchaFormError, "The form cannot be submitted")


@pytest.mark.parametrize(
    ("page", "action", "hosts"),
    [
        ("http://www.example.org/", "https://example.org/x", []),
        ("http://www.example.co.uk/", "http://form.example.co.uk:8080/x", []),
        ("http://localhost:8000/", "http://localhost:9000/x", []),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:9000/x", []),
        ("http://example.org/", "https://a.other.example/x", ["other.example"]),
        ("http://example.org/", "https://other.example:44/x", ["x.example", "other.example:44"]),
    ],
)
def test_a_form_stays_on_its_site_or_goes_to_the_rules_hosts(
    page: str, action: str, hosts: list[str]
) -> None:
    body = f"<form action='{action}'>{PIC}<input name=captcha></form>"
    sent = form(body, page, hosts=hosts).submission("A")
    assert sent == Submission(f"{action}?captcha=A", "GET", {}, b"")


@pytest.mark.parametrize(
    ("page", "action", "hosts"),
    [
        ("http://example.org/", "http://other.example/x", []),
        ("http://a.github.io/", "http://b.github.io/x", []),
        ("http://a.co.uk/", "http://b.co.uk/x", []),
        ("http://127.0.0.1/", "http://localhost/x", []),
        ("http://127.0.0.1/", "http://127.0.0.2/x", []),
        ("http://intranet/", "http://other/x", []),
        ("http://example.org/", "http://other.example/x", ["an.other.example", "rexample"]),
        ("http://example.org/", "http://other.example/x", ["other.example:44"]),
        ("http://example.org/", "http://user@other.example/x", ["example.org"]),
    ],
)
def test_a_form_that_leaves_its_site_is_refused_and_told_how_to_allow_it(
    page: str, action: str, hosts: list[str]
) -> None:
    body = f"<form action='{action}'>{PIC}<input name=captcha></form>"
    kind, told = problem(body, page, hosts=hosts)
    assert kind is CaptchaFormError
    assert told.startswith("The form is to be sent to another site")
    assert 'in the rule: "hosts": [' in told


LOGIN = (
    f"<form method=post>{PIC}<input name=user><input name=password type=password>"
    "<input type=hidden name=token value=new><input type=checkbox name=keep checked value=1>"
    "<input type=checkbox name=news value=1><select name=lang><option>en<option>de</select>"
    "<input name=captcha></form>"
)


def test_what_the_spider_posted_is_filled_in() -> None:
    sent = Form(
        LOGIN,
        CaptchaRule(image="#pic", fields={"user": "rule"}),
        url=URL,
        base_url=URL,
        encoding="utf-8",
        posted=Posted(
            URL,
            {
                "user": ["me"],
                "password": ["secret"],
                "token": ["old"],
                "news": ["1"],
                "lang": ["de"],
                "captcha": [""],
                "other": ["x"],
            },
        ),
    ).submission("A")
    assert sent.body.decode() == (
        "user=rule&password=secret&token=new&keep=1&news=1&lang=de&captcha=A"
    )


@pytest.mark.parametrize(
    ("body", "fields", "sent"),
    [
        # The image is in no form.
        (f"{PIC}<form method=post><input name=captcha></form>", {}, "captcha=A"),
        (
            f"{PIC}<form><input name=q></form><form method=post><input name=captcha></form>",
            {},
            "captcha=A",
        ),
        (
            f"{PIC}<form><input name=q></form><form method=post><input name=x id=x></form>",
            {"input": "#x"},
            "x=A",
        ),
        # The form is named, or something in it or around it.
        *(
            (
                f"<form><input name=code></form><p><form id=f method=post>{PIC}<b>x</b>"
                "<input name=code></form></p>",
                {"form": selector, "input": "[name=code]"},
                "code=A",
            )
            for selector in ("#f", "#f b", "//b")
        ),
        # Fields that are disabled until scripts enable them.
        (f"<form method=post>{PIC}<input id=i name=x disabled></form>", {"input": "#i"}, "x=A"),
        # Buttons.
        (
            f"<form method=post>{PIC}<input name=captcha><button name=b value=1>Reset <b>it</b>"
            "</button><button name=b value=2>Log in</button></form>",
            {"submit": "text=log IN"},
            "captcha=A&b=2",
        ),
        (
            f"<form method=post>{PIC}<input name=captcha><input type=submit name=b value=Search>",
            {"submit": "text=Search"},
            "captcha=A&b=Search",
        ),
        (
            f"<form method=post>{PIC}<input name=captcha><input type=image name=b alt=Search>",
            {"submit": "text=Search"},
            "captcha=A&b.x=0&b.y=0",
        ),
        (
            f"<form method=post>{PIC}<input name=captcha><button name=b disabled>1</button>"
            "<button name=b value=2>2</button></form>",
            {},
            "captcha=A&b=2",
        ),
        (
            f"<form method=post>{PIC}<input name=captcha><a id=go name=a>Go</a><button name=b>1",
            {"submit": "#go"},
            "captcha=A",
        ),
        (
            "<form method=post><input type=image id=pic name=c><input name=captcha>"
            "<button name=b value=1>Go</button></form>",
            {},
            "captcha=A&b=1",
        ),
        (
            "<form method=post><input type=image id=pic name=c><input name=captcha></form>",
            {},
            "c.x=0&c.y=0&captcha=A",
        ),
    ],
)
def test_the_form_is_found_and_its_button_pressed(
    body: str, fields: dict[str, Any], sent: str
) -> None:
    assert posted(body, **fields) == sent


FILLED = f"""<form method=post>{PIC}<input name=captcha>
    <input name=t value=old><input name=two value=1><input name=two value=2>
    <input type=hidden name=h value=old><textarea name=a>old</textarea>
    <input type=checkbox name=c value=1 checked><input type=checkbox name=c value=2>
    <input type=checkbox name=on>
    <input type=radio name=r value=1 checked><input type=radio name=r value=2>
    <select name=s><option selected>x<option value=2>two  words</select>
    <select name=m multiple><option selected>x<option selected>y<option>z</select>
    <input name=off value=old disabled><input type=file name=f>
    <button name=b value=1>Go</button></form>"""
UNTOUCHED = "captcha=A&t=old&two=1&two=2&h=old&a=old&c=1&r=1&s=x&m=x&m=y&f=&b=1"


@pytest.mark.parametrize(
    ("fields", "old", "new"),
    [
        ({}, "", ""),
        ({"t": "new"}, "&t=old", "&t=new"),
        ({"t": ""}, "&t=old", "&t="),
        ({"t": 5, "h": 1.5}, "&t=old&two=1&two=2&h=old", "&t=5&two=1&two=2&h=1.5"),
        ({"two": "new"}, "&two=1", "&two=new"),
        ({"two": ["a", "b"]}, "&two=1&two=2", "&two=a&two=b"),
        ({"h": "new"}, "&h=old", "&h=new"),
        ({"a": "new\nline"}, "&a=old", "&a=new%0D%0Aline"),
        ({"c": "2"}, "&c=1", "&c=2"),
        ({"c": 2}, "&c=1", "&c=2"),
        ({"c": ["1", "2"]}, "&c=1", "&c=1&c=2"),
        ({"c": True}, "&c=1", "&c=1&c=2"),
        ({"c": False}, "&c=1", ""),
        ({"on": True}, "&r=1", "&on=on&r=1"),
        ({"r": 2}, "&r=1", "&r=2"),
        ({"s": "2"}, "&s=x", "&s=2"),
        ({"s": "two words"}, "&s=x", "&s=2"),
        ({"m": ["y", "z"]}, "&m=x&m=y", "&m=y&m=z"),
        ({"m": "z"}, "&m=x&m=y", "&m=z"),
        ({"m": []}, "&m=x&m=y", ""),
        ({"captcha": "no"}, "", ""),
    ],
)
def test_fields_are_filled_in_whatever_their_kind(
    fields: dict[str, Any], old: str, new: str
) -> None:
    assert posted(FILLED, input="[name=captcha]", fields=fields) == UNTOUCHED.replace(old, new)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"js": "1"}, "captcha=A&b=1&js=1"),
        ({"off": "new"}, "captcha=A&b=1&off=new"),
        ({"b": "2"}, "captcha=A&b=2"),
    ],
)
def test_fields_that_scripts_would_add_are_added(fields: dict[str, Any], sent: str) -> None:
    body = (
        f"<form method=post>{PIC}<input name=captcha><input name=off disabled>"
        "<button name=b value=1>Go</button></form>"
    )
    assert posted(body, fields=fields) == sent


@pytest.mark.parametrize(
    "field",
    [
        "<input name=captcha>",
        "<input name=x id=kaptcha>",
        "<input name=yzm>",
        "<input name=vcode>",
        "<input name=verifyCode>",
        "<input name=txtCode>",
        "<input name=security_code>",
        "<input name=imgcode>",
        "<label>Verification Code: <input name=x></label>",
        "<label for=x>Security code</label><input name=x id=x>",
        "<input name=x placeholder='Enter the characters you see'>",
        "<input name=x placeholder='请输入验证码'>",
        "<input name=x placeholder='驗證碼'>",
        "<label>Код на картинке<input name=x></label>",
        "<label>КАПЧА<input name=x></label>",
        "<label>Código de segurança<input name=x></label>",
        "<label>Codigo<input name=x></label>",
        "<label>Sicherheitscode<input name=x></label>",
        "<label>Codice di controllo<input name=x></label>",
        "<label>Doğrulama kodu<input name=x></label>",
        "<label>Güvenlik Kodu<input name=x></label>",
        "<label>画像認証<input name=x></label>",
        "<label>सुरक्षा कोड<input name=x></label>",
        "<input name=x title='Captcha'>",
        "<input name=x aria-label='Captcha'>",
    ],
)
def test_the_field_for_the_answer_is_told_by_what_it_says(field: str) -> None:
    others = "<input name=q><input name=postcode><input name=country_code><input name=phone>"
    found = form(f"<form>{PIC}{others}{field}</form>")
    assert found.input is found._document.selector.xpath("(//input)[last()]")[0].root


def test_a_form_can_be_sent_again_with_another_answer() -> None:
    found = form("<form><img id=c><input name=code></form>", fields={"added": ["1", "2"]})
    found.submission("A")
    assert found.submission("B").url.endswith("?code=B&added=1&added=2")
