"""What users' own tools make of the package: mypy and scrapy shell."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scrapy_acecaptcha import CaptchaRule
from scrapy_acecaptcha.playwright.rule_fields import RuleFields
from tests.crawling import TOKEN

USERS_CODE = """
import playwright.async_api
import playwright.sync_api
from scrapy_acecaptcha import AceCaptchaClient, CaptchaRule
from scrapy_acecaptcha.playwright import solve_captcha, watch_captchas

def in_sync(page: playwright.sync_api.Page) -> None:
    reveal_type(solve_captcha(page, image="img"))
    reveal_type(solve_captcha(page, CaptchaRule(image="img"), optional=True))

async def in_async(frame: playwright.async_api.Frame) -> None:
    reveal_type(await solve_captcha(frame, image="img"))
    reveal_type(await solve_captcha(frame, {"image": "img"}, optional=True))

def watching(page: playwright.sync_api.Page) -> None:
    field = page.get_by_label("Code")
    reveal_type(watch_captchas(page, image="img", input=field, frame=page.frame_locator("iframe")))

async def watching_all(context: playwright.async_api.BrowserContext) -> None:
    reveal_type(await watch_captchas(context, {"image": "img"}, max_attempts=2))

reveal_type(AceCaptchaClient("token").recognize(b""))
"""
# A misspelt field, and a value of a type that no field takes.
MISTAKES = """
import playwright.async_api
import playwright.sync_api
from scrapy_acecaptcha.playwright import solve_captcha, watch_captchas

def in_sync(page: playwright.sync_api.Page) -> None:
    solve_captcha(page, image="img", inptu="#code")
    watch_captchas(page, image="img", inptu="#code")
    solve_captcha(page, image="img", max_attempts="2")

async def in_async(page: playwright.async_api.Page) -> None:
    await solve_captcha(page, image="img", inptu="#code")
    await watch_captchas(page, image="img", after="home")
"""
RESULT = "scrapy_acecaptcha.flow.CaptchaResult"
WATCH = "scrapy_acecaptcha.playwright.watch.CaptchaWatch"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy tells users of their code."""
    folder = tmp_path_factory.mktemp("users")
    (folder / "users.py").write_text(USERS_CODE)
    (folder / "mistakes.py").write_text(MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file="]
    done = subprocess.run(
        [*command, "users.py", "mistakes.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


@pytest.mark.slow
def test_types_are_seen_by_users_mypy(told: list[str]) -> None:
    revealed = [line.partition("Revealed type is ")[2] for line in told]
    types = [RESULT, f"{RESULT} | None"] * 2 + [WATCH, WATCH, "str"]
    assert [name.strip('"').replace("builtins.", "") for name in revealed if name] == types
    assert not [line for line in told if "users.py" in line and ": error:" in line]


@pytest.mark.slow
def test_users_mistakes_are_seen_by_mypy(told: list[str]) -> None:
    wrong = {line.split(":")[1] for line in told if "mistakes.py" in line and ": error:" in line}
    calls = [i for i, line in enumerate(MISTAKES.splitlines(), 1) if '="img"' in line]
    assert wrong == {str(number) for number in calls}


def test_every_field_of_a_rule_is_a_keyword_argument() -> None:
    names = set(RuleFields.__annotations__)
    assert names == {field.name for field in dataclasses.fields(CaptchaRule)}


@pytest.mark.slow
def test_scrapy_shell_shows_the_page_behind_the_captcha(
    site: Any, api: Any, settings: Any, tmp_path: Path
) -> None:
    config = {
        **settings("inplace"),
        "ADDONS": {"scrapy_acecaptcha.Addon": 500},
        "ACECAPTCHA_TOKEN": TOKEN,
        "LOG_LEVEL": "INFO",
    }
    lines = [f"{name} = {value!r}" for name, value in config.items()]
    (tmp_path / "users_settings.py").write_text("\n".join(lines))
    code = "print(response.css('h1::text').get(), response.flags)"
    command = [sys.executable, "-m", "scrapy", "shell", f"{site.url}/inplace/record/7", "-c", code]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "SCRAPY_SETTINGS_MODULE": "users_settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Record 7 ['acecaptcha']" in done.stdout, done.stderr[-3000:]
    assert len(api.calls) == 1
