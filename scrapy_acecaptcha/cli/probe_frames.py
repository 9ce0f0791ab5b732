"""The probe looks into a page's frames where the page itself has no captcha."""

from __future__ import annotations

import dataclasses
from typing import Any

from scrapy.http import Response
from scrapy.utils.response import get_base_url

from scrapy_acecaptcha.cli.probe_report import Report, StepFailed
from scrapy_acecaptcha.cli.probe_steps import candidates, found_rule
from scrapy_acecaptcha.crawl.frames import frame_document
from scrapy_acecaptcha.crawl.inner_requests import InnerRequests
from scrapy_acecaptcha.crawl.pages import frames_of, page_of
from scrapy_acecaptcha.errors import AceCaptchaError
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import select

MAX_FRAMES = 5


async def find_in_page_or_frames(
    requests: InnerRequests, page: Response, fields: dict[str, Any], report: Report
) -> tuple[Response, CaptchaRule]:
    """The document with the captcha, and the rule for it.

    :param page: a page that has its request
    :param fields: what is given of the rule; with ``frame`` only that one is looked into
    :raises StepFailed: there is no captcha
    """
    frames = [fields["frame"]] if "frame" in fields else frames_of(page)[:MAX_FRAMES]
    if "frame" not in fields and (not frames or _has_captcha(page, fields)):
        return page, _rule_for(page, fields, report)
    report.ok("frames", f"looked into: {', '.join(frames)}")
    for frame in frames:
        rule = CaptchaRule(image="auto", frame=frame)
        try:
            document = await frame_document(requests, page, rule)
        except AceCaptchaError as error:
            report.more(f"{frame}: {' '.join(str(error).split())}")
            continue
        if document is not None and ("frame" in fields or _has_captcha(document, fields)):
            report.more(f"{frame}: {document.url}")
            inside = _rule_for(document, fields, report)
            return document, dataclasses.replace(inside, frame=frame)
    if "frame" in fields:
        raise StepFailed("frames", f"nothing could be had of {fields['frame']!r}")
    return page, _rule_for(page, fields, report)


def _has_captcha(response: Response, fields: dict[str, Any]) -> bool:
    page = page_of(response)
    if page is None:
        return False
    if "image" in fields:
        return bool(select(page.selector, fields["image"], limit=1))
    return bool(candidates(page.selector, get_base_url(page), fields))


def _rule_for(response: Response, fields: dict[str, Any], report: Report) -> CaptchaRule:
    page = page_of(response)
    if page is None:
        raise StepFailed("found", f"{response.url} is no HTML page")
    return found_rule(page.selector, get_base_url(page), fields, report)
