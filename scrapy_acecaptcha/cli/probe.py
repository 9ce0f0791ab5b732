"""The ``acecaptcha probe`` command: finds the captcha of a live page, or tries a rule on it.

Each step is a line on stdout: ok, failed or skipped, what, and why.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from parsel import Selector
from scrapy import Request
from scrapy.exceptions import IgnoreRequest
from scrapy.http import HtmlResponse, Response
from scrapy.settings import Settings
from scrapy.spidermiddlewares.referer import RefererMiddleware
from scrapy.utils.response import get_base_url

from scrapy_acecaptcha.cli.http_session import HttpSession
from scrapy_acecaptcha.crawl.challenge import ScrapyChallenge
from scrapy_acecaptcha.crawl.inner_requests import InnerRequests
from scrapy_acecaptcha.crawl.rule_health import AnswerWatch, RuleHealth
from scrapy_acecaptcha.crawl.waiting import Waits
from scrapy_acecaptcha.detect.find import AUTO_CONFIDENCE, Candidate, find_captchas, find_widgets
from scrapy_acecaptcha.errors import AceCaptchaError, RuleError, TokenMissing
from scrapy_acecaptcha.page.forms import Form, Submission
from scrapy_acecaptcha.page.images import DEFAULT_MAX_BYTES, image_format
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import select

DONE, FAILED = 0, 1
SHOWN_CANDIDATES = 5
LOADING_SECONDS = 10.0  # until a captcha has to stand on a page in a browser
SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

# Options of the rule, by field. The rest of a rule shows in crawls only.
_SELECTORS = {
    "image": "the captcha's element; without it, it is looked for",
    "input": "the field for the answer",
    "form": "the form",
    "button": "the button to press: the rule's `submit`",
    "success": "what shows that the answer was right; text=... for a piece of text",
    "failure": "what shows that it was wrong",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the arguments of the probe."""
    parser.add_argument("url", type=_web_address, metavar="URL", help="a page that shows a captcha")
    for name, meaning in _SELECTORS.items():
        parser.add_argument(f"--{name}", metavar="SELECTOR", help=meaning)
    parser.add_argument(
        "--field",
        type=_field,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value to fill in, as often as needed: the rule's `fields`",
    )
    parser.add_argument("--answer", metavar="REGEX", help="what the whole answer must match")
    parser.add_argument("--case", choices=("upper", "lower"), help="convert the answer")
    parser.add_argument("--arithmetic", action="store_true", help="the image is a sum: 3+5=")
    parser.add_argument("--browser", action="store_true", help="look in Chromium, scripts and all")
    parser.add_argument("--submit", action="store_true", help="send the form and judge the answer")
    parser.add_argument(
        "--yes", action="store_true", help="read the image without asking; it costs an API call"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the image's file (default: captcha.png, ...)"
    )
    parser.add_argument("--user-agent", metavar="TEXT", help="by default Scrapy's own")


def run(options: argparse.Namespace) -> int:
    """Probe a page, and return the exit code: 0 done, 1 a step failed.

    :raises SettingsError: the options make a rule that cannot work
    """
    fields = _rule_fields(options)
    if "image" in fields:
        rule = CaptchaRule.parse(fields)
        if not options.browser:
            rule.check_selectors()
    report = _Report()
    with report.failures():
        if options.browser:
            _probe_in_browser(options, fields, report)
        else:
            asyncio.run(_probe(options, fields, report))
    return FAILED if report.has_failed else DONE


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http(s) address")
    return text


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _rule_fields(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of the rule, as users write rules."""
    given = {
        **{name: getattr(options, name) for name in _SELECTORS},
        "fields": dict(options.field),
        "answer": options.answer,
        "case": options.case,
        "arithmetic": options.arithmetic,
    }
    given["submit"] = given.pop("button")
    if given["image"] == "auto":
        del given["image"]
    return {name: value for name, value in given.items() if value}


# What is told


class _Report:
    """The lines on stdout."""

    has_failed = False

    def ok(self, step: str, detail: str) -> None:
        self._line("ok", step, detail)

    def skip(self, step: str, detail: str) -> None:
        self._line("skipped", step, detail)

    def fail(self, step: str, detail: object) -> None:
        self.has_failed = True
        self._line("failed", step, " ".join(str(detail).split()))

    def more(self, text: str, indent: int = 18) -> None:
        margin = " " * indent
        print(textwrap.fill(text, 100, initial_indent=margin, subsequent_indent=margin))

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Tell of an error as the failure of the step that it names."""
        try:
            yield
        except _StepFailed as failure:
            self.fail(failure.step, failure.reason)

    def _line(self, verdict: str, step: str, detail: str) -> None:
        print(f"{verdict:<9}{step:<9}{detail}", flush=True)


class _StepFailed(Exception):
    """No step after this one makes sense."""

    def __init__(self, step: str, reason: object) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except (AceCaptchaError, IgnoreRequest, requests.RequestException, OSError) as error:
        raise _StepFailed(name, error) from error


# Over plain HTTP, as Scrapy sees the page


async def _probe(options: argparse.Namespace, fields: dict[str, Any], report: _Report) -> None:
    with closing(_welcome(options, report)) as visitor:
        request = Request(options.url)
        with _step("page"):
            page = await visitor.download(request)
        html = _checked_page(page, report)
        rule = _found(html.selector, get_base_url(html), fields, report)
        challenge = ScrapyChallenge(
            request,
            page,
            rule,
            requests=InnerRequests(visitor.download, lambda: _REFERER),
            watch=AnswerWatch(
                RuleHealth(urlsplit(options.url).netloc, rule, max_refused=0), Waits()
            ),
            max_image_bytes=DEFAULT_MAX_BYTES,
        )
        with _step("form"):
            challenge.form().submission("")  # a crawl looks at it before it pays, too
        with _step("image"):
            image = await challenge.image()
        _keep(image, options, report)
        _tell_rule(rule, page.url)
        answer = _read(image, rule, options, report)
        with _step("form"):
            form = challenge.form()
            _tell_form(form, form.submission(answer or "ANSWER"), report)
        if options.submit:
            await _submit(challenge, answer, report)


_REFERER = RefererMiddleware(Settings())  # as in a crawl with Scrapy's own settings


def _welcome(options: argparse.Namespace, report: _Report) -> HttpSession:
    visitor = HttpSession(options.user_agent)
    with _step("robots"):
        visitor.check_robots(options.url)
    report.ok("robots", f"robots.txt does not forbid it to {visitor.user_agent}")
    return visitor


def _checked_page(page: Response, report: _Report) -> HtmlResponse:
    about = f"{page.url}: HTTP {page.status}, {len(page.body):,} bytes"
    if not isinstance(page, HtmlResponse):
        kind = (page.headers.get("Content-Type") or b"of no type").decode("latin-1")
        raise _StepFailed("page", f"{about}, not HTML but {kind}")
    report.ok("page", f"{about} of HTML, {page.encoding}")
    return page


async def _submit(challenge: ScrapyChallenge, answer: str | None, report: _Report) -> None:
    if answer is None:
        raise _StepFailed("submit", "there is no answer to send")
    sent_from = challenge.page
    with _step("submit"):
        await challenge.submit(answer)
        is_solved = await challenge.solved()
    page = challenge.page
    if is_solved:
        report.ok("submit", f"the answer was taken; the spider gets {_described(page)}")
    else:
        report.fail("submit", f"the answer {answer!r} was not taken at {sent_from.url}")


def _described(page: Response) -> str:
    title = page.xpath("normalize-space(//title)").get() if isinstance(page, HtmlResponse) else ""
    about = repr(title) if title else f"{len(page.body):,} bytes"
    return f"{page.url}: HTTP {page.status}, {about}"


# Finding


def _found(
    page: Selector, base_url: str, fields: dict[str, Any], report: _Report, *, browser: bool = False
) -> CaptchaRule:
    """The rule for the page: as given, or with what detection finds."""
    if "image" in fields:
        rule = CaptchaRule.parse(fields)
        if not browser:
            _check_image(page, rule, report)
        return rule
    for name, evidence in find_widgets(page):
        report.skip("widget", f"{name} is out of bounds ({evidence})")
    try:
        found = find_captchas(page, base_url, input=fields.get("input"), form=fields.get("form"))
    except ValueError as error:
        raise RuleError(str(error)) from None
    if not found:
        raise _StepFailed("found", "no captcha on this page; name it with --image, if there is one")
    best = found[0]
    how_sure = (
        '"image": "auto" would trust it'
        if best.confidence >= AUTO_CONFIDENCE
        else f'not sure: "image": "auto" trusts it from {AUTO_CONFIDENCE:g} on'
    )
    report.ok("found", f"{best.image} with a confidence of {best.confidence:g}; {how_sure}")
    for place, candidate in enumerate(found[:SHOWN_CANDIDATES], 1):
        _tell_candidate(place, candidate, report)
    if best.needs_playwright and not browser:
        raise _StepFailed(
            "image", "a script draws or loads it, so that only Playwright has it: try --browser"
        )
    return CaptchaRule.parse({"image": best.image, "input": best.input, **fields})


def _check_image(page: Selector, rule: CaptchaRule, report: _Report) -> None:
    matches = select(page, rule.image)
    if not matches:
        raise _StepFailed("found", f"no element matches {rule.image!r}")
    element = matches[0].root
    names = "".join(
        f' {name}="{element.get(name)[:60]}"'
        for name in ("id", "class", "src")
        if element.get(name)
    )
    others = "" if len(matches) == 1 else f", and {len(matches) - 1} more; the first is taken"
    report.ok("found", f"<{element.tag}{names}>{others}")


def _tell_candidate(place: int, candidate: Candidate, report: _Report) -> None:
    field = f"field {candidate.input}" if candidate.input else "no field"
    form = f"in {candidate.form}" if candidate.form else "in no form"
    report.more(f"{place}. {candidate.confidence:.2f}  {candidate.image}, {field} {form}")
    report.more("; ".join(candidate.reasons), 21)


def _tell_rule(rule: CaptchaRule, url: str) -> None:
    """Print the rule ready to paste."""
    default = CaptchaRule(image="-")
    lines = [
        f"        {json.dumps(f.name)}: {_as_python(getattr(rule, f.name))},"
        for f in dataclasses.fields(rule)
        if getattr(rule, f.name) != getattr(default, f.name)
    ]
    host = urlsplit(url).netloc.rpartition("@")[2]
    print("\nACECAPTCHA_RULES = {", f"    {json.dumps(host)}: {{", sep="\n")
    print(*lines, "    },", "}", "", sep="\n", flush=True)


def _as_python(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_as_python(k)}: {_as_python(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str) and '"' not in value:
        return json.dumps(value, ensure_ascii=False)  # in the quotes that most people write
    return repr(value)


# The image and its answer


def _keep(image: bytes, options: argparse.Namespace, report: _Report) -> None:
    kind = image_format(image) or "bin"
    file: Path = options.output or Path(f"captcha.{'jpg' if kind == 'jpeg' else kind}")
    with _step("image"):
        file.write_bytes(image)
    report.ok("image", f"{kind.upper()}, {len(image):,} bytes, written to {file}")


def _may_read(options: argparse.Namespace, report: _Report) -> bool:
    if options.yes:
        return True
    if not sys.stdin.isatty():
        report.skip("read", "it costs an API call: say --yes")
        return False
    with suppress(EOFError):
        if input("Read it once? That costs an API call. [y/N] ").strip().lower() in ("y", "yes"):
            return True
    report.skip("read", "as you wish")
    return False


def _client(report: _Report) -> AceCaptchaClient | None:
    try:
        return AceCaptchaClient()
    except TokenMissing as error:
        report.skip("read", " ".join(str(error).split()))
        return None


def _read(
    image: bytes, rule: CaptchaRule, options: argparse.Namespace, report: _Report
) -> str | None:
    """The answer; None if nothing was read or it does not fit the rule."""
    client = _client(report)
    if client is None or not _may_read(options, report):
        return None
    with client, _step("read"):
        text = client.recognize(image)
    answer = rule.clean(text)
    if answer is None:
        report.fail("read", f"{text!r} does not fit the rule, a crawl would get another image")
    else:
        report.ok("read", f"{answer!r}" + (f", made of {text!r}" if answer != text else ""))
    return answer


def _tell_form(form: Form, sent: Submission, report: _Report) -> None:
    report.ok(
        "form", f"{sent.method} {sent.url.partition('?')[0]}, the answer as {form.answer_name!r}"
    )
    body = urlsplit(sent.url).query if sent.method == "GET" else sent.body.decode("latin-1")
    if sent.method == "POST" and "urlencoded" not in sent.headers.get("Content-Type", ""):
        report.more(f"{sent.headers.get('Content-Type')}, {len(sent.body):,} bytes")
        return
    for key, value in parse_qsl(body, keep_blank_values=True, encoding=form.encoding):
        report.more(f"{key} = {value if len(value) <= 60 else value[:57] + '...'}")


# In a browser


def _probe_in_browser(options: argparse.Namespace, fields: dict[str, Any], report: _Report) -> None:
    try:
        from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415 - an extra
    except ImportError:
        raise _StepFailed(
            "browser", "Playwright is missing: pip install 'scrapy-acecaptcha[playwright]'"
        ) from None
    visitor = _welcome(options, report)
    try:
        with sync_playwright() as playwright:
            browser = _launch(playwright)
            page = browser.new_page(user_agent=options.user_agent)
            reply = page.goto(options.url)
            with _step("robots"):
                visitor.check_robots(page.url)
            status = f"HTTP {reply.status}" if reply else "no reply"
            report.ok("page", f"{page.url}: {status}, {page.title()!r}")
            _probe_page(page, options, fields, report)
            browser.close()
    except Error as error:
        raise _StepFailed("browser", _first_line(error)) from None


def _launch(playwright: Any) -> Any:
    """Chromium: Playwright's own, else the system's."""
    paths = [None, *filter(None, map(shutil.which, SYSTEM_BROWSERS))]
    for place, path in enumerate(paths, 1):
        try:
            return playwright.chromium.launch(executable_path=path)
        except Exception as error:
            if place == len(paths):
                reason = _first_line(error)
                raise _StepFailed(
                    "browser",
                    f"no Chromium could be started ({reason}): playwright install chromium",
                ) from None
    raise AssertionError("unreachable")


def _probe_page(
    page: Any, options: argparse.Namespace, fields: dict[str, Any], report: _Report
) -> None:
    from scrapy_acecaptcha.playwright.scope import first_shown  # noqa: PLC0415 - an extra

    source = _loaded_source(page, fields)
    rule = _found(source, page.url, fields, report, browser=True)
    try:
        image = first_shown(page, rule.image).screenshot(timeout=LOADING_SECONDS * 1000)
    except Exception as error:
        raise _StepFailed("image", f"{rule.image}: {_first_line(error)}") from None
    _keep(image, options, report)
    _tell_rule(rule, page.url)
    if options.submit:
        _solve_in_browser(page, rule, options, report)
        return
    answer = _read(image, rule, options, report)
    with _step("form"):
        html = page.content()
        form = Form(html, rule, url=page.url, base_url=page.url, encoding="utf-8")
        _tell_form(form, form.submission(answer or "ANSWER"), report)


def _loaded_source(page: Any, fields: dict[str, Any]) -> Selector:
    """The page's source, once a captcha stands on it or time is up."""
    end = time.monotonic() + LOADING_SECONDS
    while True:
        source = Selector(text=page.content(), type="html")
        if "image" in fields or time.monotonic() > end:
            return source
        found = find_captchas(source, page.url, input=fields.get("input"), form=fields.get("form"))
        if found and found[0].confidence >= AUTO_CONFIDENCE:
            return source
        page.wait_for_timeout(250)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _solve_in_browser(
    page: Any, rule: CaptchaRule, options: argparse.Namespace, report: _Report
) -> None:
    from scrapy_acecaptcha.playwright import solve_captcha  # noqa: PLC0415 - an extra

    client = _client(report)
    if client is None or not _may_read(options, report):
        raise _StepFailed("submit", "there is no answer to send")
    with client, _step("submit"):
        result = solve_captcha(page, dataclasses.replace(rule, max_attempts=1), client=client)
    report.ok("read", repr(result.answer))
    report.ok("submit", f"the answer was taken; the page is {page.url}: {page.title()!r}")
