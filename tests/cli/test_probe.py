"""The probe, against the site with captchas and a stub of the API over real HTTP."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, redirect, request

from scrapy_acecaptcha import RuleError
from scrapy_acecaptcha.cli.probe import add_arguments, run
from scrapy_acecaptcha.page.images import image_format
from scrapy_acecaptcha.rule_book import RuleBook
from tests.crawling import TOKEN
from tests.site import RULES, CaptchaSite
from tests.site.drawing import Gallery
from tests.site.server import Server
from tests.stub import ApiStub

Probe = Callable[..., int]


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: ApiStub) -> Iterator[Probe]:
    """Run the command in a folder of its own, and return its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", TOKEN)
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", api.url)
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    # In a thread: the tests' own has an event loop already.
    with ThreadPoolExecutor(1) as thread:
        yield lambda *argv: thread.submit(lambda: run(parser.parse_args(argv))).result(60)


def verdicts(out: str) -> dict[str, str]:
    """What became of each step."""
    lines = re.findall(r"^(ok|failed|skipped) +(\w+) +\S", out, flags=re.MULTILINE)
    return {step: verdict for verdict, step in lines}


def printed_rules(out: str) -> dict[str, Any]:
    """The rule as somebody would paste it."""
    (block,) = re.findall(r"^ACECAPTCHA_RULES = .*?^}", out, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    RuleBook(names["ACECAPTCHA_RULES"])
    rules: dict[str, Any] = names["ACECAPTCHA_RULES"]
    return rules


# Without selectors


def test_finds_the_captcha_and_prints_a_rule(
    site: CaptchaSite, api: ApiStub, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/inplace/record/7") == 0
    out = capsys.readouterr().out
    assert list(verdicts(out).items()) == [
        ("robots", "ok"),
        ("page", "ok"),
        ("found", "ok"),
        ("image", "ok"),
        ("read", "skipped"),
        ("form", "ok"),
    ]
    host = site.url.partition("://")[2]
    assert printed_rules(out) == {host: {"image": "#captcha", "input": "#code"}}
    assert "1. 0.9" in out
    assert "it is called 'captcha'" in out
    assert re.search(r"^ +code = ANSWER$", out, flags=re.MULTILINE)
    assert site.answers(Path("captcha.png").read_bytes())
    assert site.stats["inplace"]["images"] == 1
    assert api.calls == []


@pytest.mark.parametrize(
    "path",
    ["inplace", "redirect", "metarefresh", "login", "gbk", "pdf", "background", "svg", "forbidden"],
)
def test_the_printed_rule_solves(
    site: CaptchaSite,
    api: ApiStub,
    probe: Probe,
    capsys: pytest.CaptureFixture[str],
    path: str,
) -> None:
    values = RULES[path].get("fields", {})
    filled = [part for name, value in values.items() for part in ("--field", f"{name}={value}")]
    url = f"{site.url}/{path}/record/7"
    probe(url, *filled)
    (rule,) = printed_rules(capsys.readouterr().out).values()
    given = ["--image", rule["image"], "--input", rule["input"], *filled]
    assert probe(url, *given, "--submit", "--yes") == 0
    out = capsys.readouterr().out
    assert set(verdicts(out).values()) == {"ok"}
    assert "record/7: HTTP 200" in out
    assert site.stats[path]["solved"] == 1
    assert len(api.calls) == 1


def test_detects_and_solves_at_once(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/redirect/record/3", "--submit", "--yes") == 0
    assert "'Record 3'" in capsys.readouterr().out


def test_svg_is_drawn(site: CaptchaSite, probe: Probe) -> None:
    assert probe(f"{site.url}/svg/record/1") == 0
    assert image_format(Path("captcha.png").read_bytes()) == "png"


def test_the_image_goes_where_it_is_told_to(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/inplace/record/1", "--output", "here.png") == 0
    assert [file.name for file in Path().iterdir()] == ["here.png"]
    assert probe(f"{site.url}/inplace/record/1", "--output", "no/such/folder.png") == 1
    Path("link.png").symlink_to("victim.png")
    capsys.readouterr()
    assert probe(f"{site.url}/inplace/record/1", "--output", "link.png") == 1
    assert "link, which is not followed" in capsys.readouterr().out
    assert not Path("victim.png").exists()


def test_a_page_without_captcha(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/nocaptcha/record/1") == 1
    assert verdicts(capsys.readouterr().out)["found"] == "failed"
    assert list(Path().iterdir()) == []


def test_what_only_a_browser_can_have(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/canvas/record/1") == 1
    assert "try --browser" in capsys.readouterr().out


# Reading costs


@pytest.mark.parametrize(("said", "calls"), [("y\n", 1), ("yes\n", 1), ("\n", 0), ("", 0)])
def test_asks_before_it_reads(
    site: CaptchaSite,
    api: ApiStub,
    probe: Probe,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    calls: int,
) -> None:
    terminal = io.StringIO(said)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert probe(f"{site.url}/inplace/record/1") == 0
    assert len(api.calls) == calls


def test_does_not_read_without_a_token(
    site: CaptchaSite,
    api: ApiStub,
    probe: Probe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("ACEDATACLOUD_API_TOKEN")
    assert probe(f"{site.url}/inplace/record/1", "--yes") == 0
    assert "ACEDATACLOUD_API_TOKEN" in capsys.readouterr().out
    assert api.calls == []


def test_an_error_of_the_api(
    site: CaptchaSite, api: ApiStub, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    api.script.append((403, {"error": {"code": "used_up", "message": "no balance"}}, {}))
    assert probe(f"{site.url}/inplace/record/1", "--yes") == 1
    assert "used_up" in capsys.readouterr().out


def test_an_answer_that_does_not_fit(
    site: CaptchaSite, api: ApiStub, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--image", "#captcha", "--answer", "[0-9]{9}"]
    assert probe(f"{site.url}/inplace/record/1", *given, "--submit", "--yes") == 1
    steps = verdicts(capsys.readouterr().out)
    assert (steps["read"], steps["submit"]) == ("failed", "failed")
    assert site.stats["inplace"]["wrong"] == 0


# With selectors


def test_a_refused_answer(
    site: CaptchaSite, api: ApiStub, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    api.script.append("WRONG")
    assert probe(f"{site.url}/inplace/record/1", "--image", "#captcha", "--submit", "--yes") == 1
    out = capsys.readouterr().out
    assert verdicts(out)["submit"] == "failed"
    assert "'WRONG' was not taken" in out
    assert len(api.calls) == 1


def test_nothing_is_sent_without_an_answer(site: CaptchaSite, probe: Probe) -> None:
    assert probe(f"{site.url}/inplace/record/1", "--image", "#captcha", "--submit") == 1
    assert (site.stats["inplace"]["solved"], site.stats["inplace"]["wrong"]) == (0, 0)


def test_a_selector_that_matches_nothing(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/inplace/record/1", "--image", "img#nix") == 1
    assert "failed   found    no element matches 'img#nix'" in capsys.readouterr().out


def test_a_field_that_cannot_be_told(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/inplace/record/1", "--image", "#captcha", "--input", "#nix") == 1
    assert verdicts(capsys.readouterr().out)["form"] == "failed"


def test_every_field_of_the_rule_counts(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--image", "//img[@id='captcha']", "--input", "[name=code]", "--form", "form"]
    more = ["--button", "text=Continue", "--field", "extra=a=b", "--case", "lower"]
    assert probe(f"{site.url}/inplace/record/1", *given, *more, "--success", "h1.record") == 0
    out = capsys.readouterr().out
    (rule,) = printed_rules(out).values()
    assert rule == {
        "image": "//img[@id='captcha']",
        "input": "[name=code]",
        "form": "form",
        "submit": "text=Continue",
        "fields": {"extra": "a=b"},
        "success": "h1.record",
        "case": "lower",
    }
    assert "extra = a=b" in out


@pytest.mark.parametrize(
    "argv",
    [
        ["ftp://example.org/"],
        ["example.org"],
        ["http:///path"],
        ["http://example.org/", "--field", "novalue"],
        ["http://example.org/", "--case", "middle"],
        ["http://example.org/", "--ignore-robots"],
    ],
)
def test_bad_usage(probe: Probe, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        probe(*argv)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    "argv", [["--image", "#["], ["--input", "#["], ["--image", "img", "--answer", "("]]
)
def test_a_bad_rule(site: CaptchaSite, probe: Probe, argv: list[str]) -> None:
    with pytest.raises(RuleError):
        probe(f"{site.url}/inplace/record/1", *argv)


# Other sites

FORM = """<!DOCTYPE html><title>Check</title><form action="{action}" method="post" {more}>
<img src="/captcha.png"><input name="captcha"><button>Go</button></form>"""


GOOD_FORM = """<!DOCTYPE html><title>Check</title><form action="{}" method="post">
<img src="/good.png?captcha"><input name="captcha"><button class=close>&times;</button>
<button id=go>Go</button></form>"""
PNG = Gallery().png("AB12")


class SmallSite:
    """A site of a few pages, with a robots.txt."""

    def check(self) -> str:
        """What the form says to an answer: words, and no captcha."""
        self.is_solved = request.values["captcha"] == "RIGHT"
        return "<p>Thank you</p>" if self.is_solved else "<p>Wrong code</p><a href=/quiet>Back</a>"

    def quiet(self) -> str:
        """A form until it was solved."""
        return "<h1>Record 1</h1>" if self.is_solved else GOOD_FORM.format("/check")

    def __init__(self) -> None:
        self.is_solved = False
        self.seen: list[str] = []
        self.robots = "User-agent: *\nDisallow: /closed\n"
        self.image = b"<html>"
        app = Flask("small-site")
        app.before_request(lambda: self.seen.append(request.path))
        pages: dict[str, Callable[[], Any]] = {
            "/robots.txt": lambda: self.robots,
            "/closed/page": lambda: FORM.format(action="/", more=""),
            "/open": lambda: FORM.format(action="/closed/check", more=""),
            "/upload": lambda: FORM.format(action="/", more="enctype=multipart/form-data"),
            "/lost": lambda: redirect("/closed/page"),
            "/round": lambda: redirect("/round"),
            "/file": lambda: (b"%PDF-1.4", {"Content-Type": "application/pdf"}),
            "/widget": lambda: "<div class=g-recaptcha data-sitekey=x></div><input name=n>",
            "/abroad": lambda: FORM.format(action="/go", more=""),
            "/go": lambda: redirect(f"http://localhost:{self.server.port}/elsewhere", 307),
            "/elsewhere": lambda: "Thank you",
            "/captcha.png": lambda: (self.image, {"Content-Type": "text/html"}),
            "/good.png": lambda: (PNG, {"content-type": "image/png"}),
            "/framed": lambda: "<p>A page</p><iframe src=/ad></iframe><iframe id=in src=/inside>",
            "/ad": lambda: "<p>Buy</p>",
            "/inside": lambda: GOOD_FORM.format("/check"),
            "/shell": lambda: "<div id=app></div><script src=app.js></script>",
            "/quiet": self.quiet,
            "/check": self.check,
            "/nowhere": lambda: GOOD_FORM.format("http://127.0.0.1:9/check"),
        }
        for path, view in pages.items():
            app.add_url_rule(path, path, view, methods=["GET", "POST"])
        self.server = Server(app)
        self.url = self.server.url


@pytest.fixture
def small_site() -> Iterator[SmallSite]:
    site = SmallSite()
    site.server.start()
    yield site
    site.server.stop()


@pytest.mark.parametrize("more", [[], ["--browser"]])
def test_robots_txt_is_respected(
    small_site: SmallSite, probe: Probe, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert probe(f"{small_site.url}/closed/page", *more) == 1
    assert "robots.txt forbids" in capsys.readouterr().out
    assert small_site.seen == ["/robots.txt"]


def test_robots_txt_is_asked_about_redirects_too(small_site: SmallSite, probe: Probe) -> None:
    assert probe(f"{small_site.url}/lost") == 1
    assert small_site.seen == ["/robots.txt", "/lost"]


def test_a_form_is_not_redirected_to_another_site(
    site: CaptchaSite, small_site: SmallSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    small_site.image = site.gallery.png("abcde")
    assert probe(f"{small_site.url}/abroad", "--submit", "--yes") == 1
    assert "/go" in small_site.seen
    assert "/elsewhere" not in small_site.seen
    assert "another site, localhost" in capsys.readouterr().out


def test_robots_txt_may_speak_to_one_agent(small_site: SmallSite, probe: Probe) -> None:
    small_site.robots = "User-agent: mybot\nDisallow: /\n"
    assert probe(f"{small_site.url}/upload", "--user-agent", "mybot/1.0") == 1
    assert small_site.seen == ["/robots.txt"]


@pytest.mark.parametrize(
    ("path", "step", "reason"),
    [
        ("/round", "page", "redirects without end"),
        ("/file", "page", "not HTML but application/pdf"),
        ("/open", "image", "not an image"),
        ("/widget", "found", "no captcha"),
    ],
)
def test_pages_that_lead_nowhere(
    small_site: SmallSite,
    probe: Probe,
    capsys: pytest.CaptureFixture[str],
    path: str,
    step: str,
    reason: str,
) -> None:
    assert probe(small_site.url + path) == 1
    out = capsys.readouterr().out
    assert verdicts(out)[step] == "failed"
    assert reason in out
    assert ("reCAPTCHA is out of bounds" in out) is (path == "/widget")


def test_looks_into_frames(
    small_site: SmallSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{small_site.url}/framed") == 0
    out = capsys.readouterr().out
    assert verdicts(out)["frames"] == "ok"
    (rule,) = printed_rules(out).values()
    assert rule["frame"] == 'iframe[id="in"]'
    assert rule["submit"] == "#go"
    given = ["--frame", "#in", "--image", "img", "--input", "[name=captcha]"]
    assert probe(f"{small_site.url}/framed", *given) == 0
    assert probe(f"{small_site.url}/framed", "--frame", "#nix") == 1
    assert "#nix" in capsys.readouterr().out


def test_says_when_a_page_is_empty_without_its_scripts(
    small_site: SmallSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{small_site.url}/shell") == 1
    assert "empty until its scripts have run: try --browser" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    # An answer that leads to a page without a captcha, which stands there again afterwards, may be
    # one to a form that asks for a captcha each time: the probe cannot tell, but what to look at.
    [("RIGHT", 0, {"success": "text=thank you"}), ("NO", 0, {"failure": "text=wrong code"})],
)
def test_prints_what_tells_right_from_wrong_where_the_image_cannot(
    small_site: SmallSite,
    api: ApiStub,
    probe: Probe,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
    told: dict[str, str],
) -> None:
    api.script.append(answer)
    assert probe(f"{small_site.url}/quiet", "--submit", "--yes") == code
    _, _, last = capsys.readouterr().out.rpartition("cannot tell")
    (rule,) = printed_rules(last).values()
    assert told.items() <= rule.items()


def test_an_answer_that_reached_nobody_is_not_refused(
    small_site: SmallSite, api: ApiStub, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    api.script.append("AB12")
    assert probe(f"{small_site.url}/nowhere", "--submit", "--yes") == 1
    out = capsys.readouterr().out
    assert "was not sent" in out
    assert "was not taken" not in out


def test_nobody_listens(probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe("http://127.0.0.1:9/") == 1
    assert verdicts(capsys.readouterr().out)["page"] == "failed"


def test_multipart_is_told(
    site: CaptchaSite, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(f"{site.url}/multipart/record/1", "--yes", "--submit") == 0
    assert "multipart/form-data; boundary=" in capsys.readouterr().out


# In a browser


@pytest.mark.browser
@pytest.mark.parametrize("path", ["inplace", "canvas", "redirect"])
def test_in_a_browser(
    site: CaptchaSite, api: ApiStub, probe: Probe, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    assert probe(f"{site.url}/{path}/record/5", "--browser", "--yes") == 0
    out = capsys.readouterr().out
    assert set(verdicts(out).values()) == {"ok"}
    assert printed_rules(out)
    assert image_format(Path("captcha.png").read_bytes()) == "png"
    assert probe(f"{site.url}/{path}/record/5", "--browser", "--yes", "--submit") == 0
    assert "'Record 5'" in capsys.readouterr().out
    assert len(api.calls) == 2


@pytest.mark.browser
def test_a_selector_that_matches_nothing_in_a_browser(
    site: CaptchaSite,
    probe: Probe,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scrapy_acecaptcha.cli.probe_browser.LOADING_SECONDS", 0.5)
    assert probe(f"{site.url}/inplace/record/5", "--browser", "--image", "#nix") == 1
    assert "#nix" in capsys.readouterr().out
