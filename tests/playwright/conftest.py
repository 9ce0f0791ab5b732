"""What the tests in browsers share: the lab's page, opened, and its captcha, solved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scrapy_acecaptcha import AceCaptchaClient
from scrapy_acecaptcha.flow import CaptchaResult, Steps
from scrapy_acecaptcha.playwright import solve_captcha
from tests.browsers import Browser, on_page
from tests.lab import Lab
from tests.stub import ApiStub

RULE = {"image": "#captcha", "input": "[name=code]"}


@pytest.fixture
def lab_api(lab: Lab) -> Iterator[ApiStub]:
    with ApiStub(lab.gallery.answer) as api:
        yield api


@pytest.fixture
def client(lab_api: ApiStub) -> Iterator[AceCaptchaClient]:
    with AceCaptchaClient("token", lab_api.url, retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def visit(browser: Browser, lab: Lab, client: AceCaptchaClient) -> Callable[..., Any]:
    """Open the lab's page, solve its captcha, and return the result and what the page says."""

    def visit(
        before: Callable[[Any], Steps[Any]] | None = None,
        context: dict[str, Any] | None = None,
        timeout: float = 3000,
        optional: bool = False,
        **rule: Any,
    ) -> tuple[CaptchaResult, str]:
        def body(page: Any) -> Steps[Any]:
            yield page.goto(lab.url)
            scope = page
            if before is not None:
                scope = (yield before(page)) or page
            result = yield solve_captcha(
                scope,
                {**RULE, "after": "stay", **rule},
                client=client,
                timeout=timeout,
                optional=optional,
            )
            text = yield page.locator("body").inner_text()
            return result, text.strip()

        return on_page(browser, body, **(context or {}))

    return visit
