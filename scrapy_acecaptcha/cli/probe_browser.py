"""The probe in a browser, scripts and all."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from typing import Any

from parsel import Selector

from scrapy_acecaptcha.cli.probe_report import (
    Report,
    StepFailed,
    first_line,
    step,
    tell_form,
    tell_rule,
)
from scrapy_acecaptcha.cli.probe_steps import found_rule, keep, may_read, read, solver_of, welcome
from scrapy_acecaptcha.detect.find import AUTO_CONFIDENCE, find_captchas
from scrapy_acecaptcha.page.forms import Form
from scrapy_acecaptcha.rules import CaptchaRule

LOADING_SECONDS = 10.0  # until a captcha has to stand on a page in a browser
SYSTEM_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
)


def probe_in_browser(options: argparse.Namespace, fields: dict[str, Any], report: Report) -> None:
    try:
        from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415 - an extra
    except ImportError:
        raise StepFailed(
            "browser", "Playwright is missing: pip install 'scrapy-acecaptcha[playwright]'"
        ) from None
    visitor = welcome(options, report)
    try:
        with sync_playwright() as playwright:
            browser = _launch(playwright)
            page = browser.new_page(user_agent=options.user_agent)
            reply = page.goto(options.url)
            with step("robots"):
                visitor.check_robots(page.url)
            status = f"HTTP {reply.status}" if reply else "no reply"
            report.ok("page", f"{page.url}: {status}, {page.title()!r}")
            _probe_page(page, options, fields, report)
            browser.close()
    except Error as error:
        raise StepFailed("browser", first_line(error)) from None


def _launch(playwright: Any) -> Any:
    """Chromium: Playwright's own, else the system's."""
    paths = [None, *filter(None, map(shutil.which, SYSTEM_BROWSERS))]
    for place, path in enumerate(paths, 1):
        try:
            return playwright.chromium.launch(executable_path=path)
        except Exception as error:
            if place == len(paths):
                reason = first_line(error)
                raise StepFailed(
                    "browser",
                    f"no Chromium could be started ({reason}): playwright install chromium",
                ) from None
    raise AssertionError("unreachable")


def _probe_page(
    page: Any, options: argparse.Namespace, fields: dict[str, Any], report: Report
) -> None:
    from scrapy_acecaptcha.playwright.scope import first_shown  # noqa: PLC0415 - an extra

    source = _loaded_source(page, fields)
    rule = found_rule(source, page.url, fields, report, browser=True)
    try:
        image = first_shown(page, rule.image).screenshot(timeout=LOADING_SECONDS * 1000)
    except Exception as error:
        raise StepFailed("image", f"{rule.image}: {first_line(error)}") from None
    keep(image, options, report)
    tell_rule(rule, page.url)
    if options.submit:
        _solve_in_browser(page, rule, options, report)
        return
    answer = read(image, rule, page.url, options, report)
    with step("form"):
        html = page.content()
        form = Form(html, rule, url=page.url, base_url=page.url, encoding="utf-8")
        tell_form(form, form.submission(answer or "ANSWER"), report)


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


def _solve_in_browser(
    page: Any, rule: CaptchaRule, options: argparse.Namespace, report: Report
) -> None:
    from scrapy_acecaptcha.playwright import solve_captcha  # noqa: PLC0415 - an extra

    solver = solver_of(report)
    if solver is None or not may_read(options, report):
        raise StepFailed("submit", "there is no answer to send")
    with solver, step("submit"):
        result = solve_captcha(page, dataclasses.replace(rule, max_attempts=1), solver=solver)
    report.ok("read", repr(result.answer))
    report.ok("submit", f"the answer was taken; the page is {page.url}: {page.title()!r}")
