"""The example: its two sites over HTTP, and the whole demo as `make demo` runs it."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from captcha.image import ImageCaptcha
from parsel import Selector

from example_project.data import CASES, COMPANIES
from example_project.registry.spiders.court import COMPANIES as SEARCHED
from example_project.site import RECORDS_PER_CAPTCHA, create_court, create_register
from scrapy_acecaptcha.recognition.sandbox import LocalServer

demo = importlib.import_module("example_project.__main__")

ROOT = Path(__file__).parent.parent
RECORD = f"/records/{COMPANIES[0].number}"


class HttpSession(requests.Session):
    """A browsing session at one of the sites, with an eye on what its captchas say."""

    def __init__(self, site: str, drawn: list[str]) -> None:
        super().__init__()
        self._site = site
        self._drawn = drawn

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        return super().request(method, self._site + url, *args, **options)

    def read_captcha(self) -> str:
        """Load the captcha's image and return its text."""
        image = self.get("/captcha.png")
        assert image.content.startswith(b"\x89PNG")
        return self._drawn[-1]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of the captchas that were drawn."""
    texts: list[str] = []
    generate = ImageCaptcha.generate

    def noted(self: ImageCaptcha, chars: str, *args: Any) -> Any:
        texts.append(chars)
        return generate(self, chars, *args)

    monkeypatch.setattr(ImageCaptcha, "generate", noted)
    return texts


@pytest.fixture
def register(drawn: list[str]) -> Iterator[HttpSession]:
    with LocalServer(create_register()) as server, HttpSession(server.url, drawn) as visitor:
        yield visitor


@pytest.fixture
def court(drawn: list[str]) -> Iterator[HttpSession]:
    with LocalServer(create_court()) as server, HttpSession(server.url, drawn) as visitor:
        yield visitor


def is_check(page: requests.Response) -> bool:
    return page.status_code == 403 and bool(Selector(page.text).css("form img#captcha"))


# The register


def test_the_lists_are_free(register: HttpSession) -> None:
    records, url = [], "/records/"
    while url:
        page = Selector(register.get(url).text)
        records += page.css("#companies a::attr(href)").getall()
        url = page.css("a[rel=next]::attr(href)").get("")
    assert records == [f"/records/{company.number}" for company in COMPANIES]
    assert len(set(records)) == 60


def test_a_record_is_behind_a_captcha(register: HttpSession) -> None:
    page = register.get(RECORD)
    assert is_check(page)
    assert COMPANIES[0].name not in page.text


def test_the_answer_leads_to_the_record_and_opens_as_many_as_it_says(register: HttpSession) -> None:
    register.get(RECORD)
    page = register.post(RECORD, data={"code": register.read_captcha()})
    assert page.status_code == 200
    assert Selector(page.text).css("h1::text").get() == COMPANIES[0].name
    pages = [register.get(f"/records/{company.number}") for company in COMPANIES[1:27]]
    assert [page.status_code for page in pages[:24]] == [200] * (RECORDS_PER_CAPTCHA - 1)
    assert all(is_check(page) for page in pages[24:])


def test_a_wrong_answer_gives_another_captcha(register: HttpSession) -> None:
    register.get(RECORD)
    right = register.read_captcha()
    page = register.post(RECORD, data={"code": right + "0"})
    assert is_check(page)
    assert "not right" in page.text
    assert is_check(register.post(RECORD, data={"code": right}))  # used up by the attempt


def test_an_answer_is_good_once(register: HttpSession) -> None:
    register.get(RECORD)
    answer = register.read_captcha()
    assert register.post(RECORD, data={"code": answer}).status_code == 200
    assert is_check(register.post(RECORD, data={"code": answer}))


def test_a_new_image_replaces_the_one_before(register: HttpSession) -> None:
    register.get(RECORD)
    first = register.read_captcha()
    while register.read_captcha() == first:
        pass
    assert is_check(register.post(RECORD, data={"code": first}))


def test_an_answer_is_good_for_its_visitor_only(register: HttpSession, drawn: list[str]) -> None:
    register.get(RECORD)
    answer = register.read_captcha()
    other = HttpSession(register._site, drawn)
    other.get(RECORD)
    assert is_check(other.post(RECORD, data={"code": answer}))
    assert is_check(other.post(RECORD, data={"code": ""}))
    assert register.post(RECORD, data={"code": answer}).status_code == 200
    assert is_check(other.get(RECORD))


def test_there_is_no_other_page(register: HttpSession) -> None:
    for url in ("/records/PV-1", "/records/?page=7", "/records/?page=0"):
        assert register.get(url).status_code == 404


# The court


@pytest.mark.parametrize(
    ("company", "found"),
    [(SEARCHED[3], "#cases tr td"), (SEARCHED[0], "#none"), ("Nobody Ltd", "#unknown")],
)
def test_the_court_answers_a_query_with_its_captcha(
    court: HttpSession, company: str, found: str
) -> None:
    form = Selector(court.get("/search").text)
    assert form.css("#search img")
    answer = court.read_captcha()
    result = court.post("/search", data={"company": company, "verification": answer})
    assert result.status_code == 200
    assert Selector(result.text).css(found)
    assert not Selector(result.text).css("img")
    again = court.post("/search", data={"company": company, "verification": answer})
    assert Selector(again.text).css("#search img")  # each query wants its own


def test_the_court_keeps_the_query_when_the_answer_is_wrong(court: HttpSession) -> None:
    court.get("/search")
    right = court.read_captcha()
    page = court.post("/search", data={"company": SEARCHED[3], "verification": right + "0"})
    form = Selector(page.text)
    assert form.css("p.wrong")
    assert form.css("input[name=company]::attr(value)").get() == SEARCHED[3]
    page = court.post("/search", data={"company": SEARCHED[3], "verification": right})
    assert Selector(page.text).css("p.wrong")  # used up by the attempt


def test_robots_are_welcome(register: HttpSession, court: HttpSession) -> None:
    for site in (register, court):
        assert "Allow: /" in site.get("/robots.txt").text


# The demo


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo writes, in this process or another: not over what a user's demo brought."""
    monkeypatch.setenv("EXAMPLE_OUTPUT", str(tmp_path))
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    for name, file in (("JOBDIR", "job"), ("JOURNAL", "captchas.db"), ("REPORT", "report.html")):
        monkeypatch.setattr(demo, name, tmp_path / file)
    return tmp_path


def items(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.browser
@pytest.mark.slow
def test_the_demo_brings_everything_home(output: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "example_project"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.count("60 of 60 records") == 2
    assert done.stdout.count("8 of 8 records") == 3
    assert "read here for nothing" in done.stdout
    assert "12 of 12 records" in done.stdout
    assert "and resumed" in done.stdout
    calls, ours = map(int, re.findall(r"API calls: (\d+), where .* made (\d+)", done.stdout)[0])
    assert ours < calls
    assert (output / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "ACEDATACLOUD_API_TOKEN=" in done.stdout
    records = items(output / "register.jl")
    assert sorted((record["number"], record["name"]) for record in records) == sorted(
        (company.number, company.name) for company in COMPANIES
    )
    assert {item["company"]: len(item["cases"]) for item in items(output / "court.jl")} == {
        company: len(CASES[company]) for company in SEARCHED
    }


@pytest.mark.browser
@pytest.mark.slow
def test_the_demo_fails_when_records_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "CRAWLS", (demo.Crawl("court", "court", "one too many", 9),))
    monkeypatch.setattr(demo, "compare", lambda *_: None)
    assert demo.main() == 1
    assert "Missing: 1." in capsys.readouterr().out


@pytest.mark.browser
def test_with_a_token_the_demo_uses_the_api_that_it_is_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def run(crawl: Any, environ: dict[str, str]) -> bool:
        seen.append(environ)
        return True

    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", "mine")
    monkeypatch.setattr(demo, "run", run)
    assert demo.main() == 0
    out = capsys.readouterr().out
    assert "https://api.acedata.cloud" in out
    assert "charged" in out
    assert all(environ["ACEDATACLOUD_API_TOKEN"] == "mine" for environ in seen)
    assert not any("ACEDATACLOUD_API_BASE_URL" in environ for environ in seen)


def test_a_crawl_does_not_outlive_the_demo() -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        demo.scrapy_crawl(demo.CRAWLS[0], os.environ) as process,
    ):
        raise KeyboardInterrupt
    assert process.poll() is not None


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_can_be_stopped(stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "example_project"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("register:"):
                process.send_signal(stop)
                break
        assert process.stdout.read().splitlines()[-1] == "Stopped."
        assert process.wait(60) == 130
