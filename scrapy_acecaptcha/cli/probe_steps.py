"""Steps of the probe that are the same over HTTP and in a browser."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from parsel import Selector

from scrapy_acecaptcha.cli.http_session import HttpSession
from scrapy_acecaptcha.cli.probe_report import Report, StepFailed, step, tell_candidate
from scrapy_acecaptcha.detect.find import (
    AUTO_CONFIDENCE,
    Candidate,
    button_for,
    find_captchas,
    find_widgets,
)
from scrapy_acecaptcha.errors import RuleError, TokenMissing
from scrapy_acecaptcha.page.images import image_format
from scrapy_acecaptcha.page.page_text import PageText
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import select
from scrapy_acecaptcha.solver import Solver

SHOWN_CANDIDATES = 5
SHELL_TEXT = 200  # characters; a page that shows fewer, and no field, waits for its scripts


def welcome(options: argparse.Namespace, report: Report) -> HttpSession:
    visitor = HttpSession(options.user_agent)
    with step("robots"):
        visitor.check_robots(options.url)
    report.ok("robots", f"robots.txt does not forbid it to {visitor.user_agent}")
    return visitor


def found_rule(
    page: Selector, base_url: str, fields: dict[str, Any], report: Report, *, browser: bool = False
) -> CaptchaRule:
    """The rule for the page: as given, or with what detection finds.

    :raises StepFailed: there is no captcha
    """
    if "image" in fields:
        rule = CaptchaRule.parse(fields)
        if not browser:
            _check_image(page, rule, report)
        return rule
    for name, evidence in find_widgets(page):
        report.skip("widget", f"{name} is out of bounds ({evidence})")
    found = candidates(page, base_url, fields)
    if not found:
        what = "no captcha on this page; name it with --image, if there is one"
        if not browser and is_shell(page):
            what = "this page is empty until its scripts have run: try --browser"
        raise StepFailed("found", what)
    best = found[0]
    how_sure = (
        '"image": "auto" would trust it'
        if best.confidence >= AUTO_CONFIDENCE
        else f'not sure: "image": "auto" trusts it from {AUTO_CONFIDENCE:g} on'
    )
    report.ok("found", f"{best.image} with a confidence of {best.confidence:g}; {how_sure}")
    for place, candidate in enumerate(found[:SHOWN_CANDIDATES], 1):
        tell_candidate(place, candidate, report)
    if best.needs_playwright and not browser:
        raise StepFailed(
            "image", "a script draws or loads it, so that only Playwright has it: try --browser"
        )
    submit = button_for(best, browser=browser)
    return CaptchaRule.parse({"image": best.image, "input": best.input, "submit": submit, **fields})


def candidates(page: Selector, base_url: str, fields: dict[str, Any]) -> list[Candidate]:
    """What detection finds on a page.

    :raises RuleError: one of the selectors that were given is bad
    """
    try:
        return find_captchas(page, base_url, input=fields.get("input"), form=fields.get("form"))
    except ValueError as error:
        raise RuleError(str(error)) from None


def is_shell(page: Selector) -> bool:
    """Whether a page shows next to nothing before its scripts have run."""
    has_scripts = bool(page.css("script"))
    return has_scripts and not page.css("input") and len(PageText(page.root).visible) < SHELL_TEXT


def _check_image(page: Selector, rule: CaptchaRule, report: Report) -> None:
    matches = select(page, rule.image)
    if not matches:
        raise StepFailed("found", f"no element matches {rule.image!r}")
    element = matches[0].root
    names = "".join(
        f' {name}="{element.get(name)[:60]}"'
        for name in ("id", "class", "src")
        if element.get(name)
    )
    others = "" if len(matches) == 1 else f", and {len(matches) - 1} more; the first is taken"
    report.ok("found", f"<{element.tag}{names}>{others}")


# The image and its answer


def keep(image: bytes, options: argparse.Namespace, report: Report) -> None:
    kind = image_format(image) or "bin"
    file: Path = options.output or Path(f"captcha.{'jpg' if kind == 'jpeg' else kind}")
    with step("image"):
        _write(file, image)
    report.ok("image", f"{kind.upper()}, {len(image):,} bytes, written to {file}")


def _write(file: Path, image: bytes) -> None:
    """Write *image*; through a link, as others may have laid it in a folder like /tmp, never."""
    follow_no_link = getattr(os, "O_NOFOLLOW", 0)  # not on Windows
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | follow_no_link, 0o666)
    except OSError as error:
        if file.is_symlink():
            raise OSError(error.errno, "it is a link, which is not followed", str(file)) from None
        raise
    with open(number, "wb") as output:
        output.write(image)


def may_read(options: argparse.Namespace, report: Report) -> bool:
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


def solver_of(report: Report) -> Solver | None:
    """What reads the image; None where there is no token."""
    try:
        return Solver(name="probe", max_attempts=1)
    except TokenMissing as error:
        report.skip("read", " ".join(str(error).split()))
        return None


def read(
    image: bytes, rule: CaptchaRule, url: str, options: argparse.Namespace, report: Report
) -> str | None:
    """The answer; None if nothing was read or it does not fit the rule."""
    solver = solver_of(report)
    if solver is None or not may_read(options, report):
        return None
    with solver, step("read"):
        text = solver.read(image, url=url)
    answer = rule.clean(text)
    if answer is None:
        report.fail("read", f"{str(text)!r} does not fit the rule, a crawl would get another image")
    else:
        made_of = f", made of {str(text)!r}" if answer != text else ""
        report.ok("read", f"{answer!r}{made_of}")
    return answer
