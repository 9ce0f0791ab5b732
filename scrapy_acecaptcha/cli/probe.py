"""The ``acecaptcha probe`` command: finds the captcha of a live page, or tries a rule on it.

Each step is a line on stdout: ok, failed or skipped, what, and why.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scrapy import Request
from scrapy.http import HtmlResponse, Response
from scrapy.settings import Settings
from scrapy.spidermiddlewares.referer import RefererMiddleware

from scrapy_acecaptcha.cli.probe_browser import probe_in_browser
from scrapy_acecaptcha.cli.probe_frames import find_in_page_or_frames
from scrapy_acecaptcha.cli.probe_report import Report, StepFailed, step, tell_form, tell_rule
from scrapy_acecaptcha.cli.probe_steps import keep, read, welcome
from scrapy_acecaptcha.cli.probe_verdict import rule_that_tells
from scrapy_acecaptcha.crawl.challenge import ScrapyChallenge
from scrapy_acecaptcha.crawl.inner_requests import InnerRequests
from scrapy_acecaptcha.crawl.pages import page_of
from scrapy_acecaptcha.crawl.rule_health import AnswerWatch, RuleHealth
from scrapy_acecaptcha.crawl.waiting import Waits
from scrapy_acecaptcha.page.images import DEFAULT_MAX_BYTES
from scrapy_acecaptcha.rules import CaptchaRule

DONE, FAILED = 0, 1

# Options of the rule, by field. The rest of a rule shows in crawls only.
_SELECTORS = {
    "image": "the captcha's element; without it, it is looked for",
    "input": "the field for the answer",
    "form": "the form",
    "frame": "the frame in which image and form stand",
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
    report = Report()
    with report.failures():
        if options.browser:
            probe_in_browser(options, fields, report)
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


# Over plain HTTP, as Scrapy sees the page


async def _probe(options: argparse.Namespace, fields: dict[str, Any], report: Report) -> None:
    with closing(welcome(options, report)) as visitor:
        request = Request(options.url)
        requests = InnerRequests(visitor.download, lambda: _REFERER)
        with step("page"):
            page = await visitor.download(request)
        _tell_page(page, report)
        page.request = page.request or request
        document, rule = await find_in_page_or_frames(requests, page, fields, report)
        health = RuleHealth(urlsplit(options.url).netloc, rule, max_refused=0)
        challenge = ScrapyChallenge(
            request,
            document,
            rule,
            requests=requests,
            watch=AnswerWatch(health, Waits()),
            max_image_bytes=DEFAULT_MAX_BYTES,
        )
        with step("form"):
            challenge.form().submission("")  # a crawl looks at it before it pays, too
        with step("image"):
            image = await challenge.image()
        keep(image, options, report)
        tell_rule(rule, page.url)
        answer = read(image, rule, page.url, options, report)
        with step("form"):
            form = challenge.form()
            tell_form(form, form.submission(answer or "ANSWER"), report)
        if options.submit:
            await _submit(challenge, health, answer, report)


_REFERER = RefererMiddleware(Settings())  # as in a crawl with Scrapy's own settings


def _tell_page(page: Response, report: Report) -> None:
    about = f"{page.url}: HTTP {page.status}, {len(page.body):,} bytes"
    html = page_of(page)
    if html is None:
        kind = (page.headers.get("Content-Type") or b"of no type").decode("latin-1")
        raise StepFailed("page", f"{about}, not HTML but {kind}")
    report.ok("page", f"{about} of HTML, {html.encoding}")


async def _submit(
    challenge: ScrapyChallenge, health: RuleHealth, answer: str | None, report: Report
) -> None:
    if answer is None:
        raise StepFailed("submit", "there is no answer to send")
    sent_from = challenge.page
    with step("submit"):
        await challenge.submit(answer)
        is_solved = await challenge.solved()
    if is_solved is None:
        why = challenge.why_unsent or "no reply"
        raise StepFailed("submit", f"the answer was not sent: {why}")
    if is_solved:
        report.ok("submit", f"the answer was taken; the spider gets {_described(challenge.page)}")
    else:
        report.fail("submit", f"the answer {answer!r} was not taken at {sent_from.url}")
    better = rule_that_tells(
        challenge, health.rule, sent_from, health.habit(challenge.request.method)
    )
    if better is not None:
        field = "failure" if better.failure else "success"
        report.more(f"The image alone cannot tell whether an answer is right; `{field}` can:", 0)
        tell_rule(better, challenge.request.url)


def _described(page: Response) -> str:
    title = page.xpath("normalize-space(//title)").get() if isinstance(page, HtmlResponse) else ""
    about = repr(title) if title else f"{len(page.body):,} bytes"
    return f"{page.url}: HTTP {page.status}, {about}"
