"""What users' own tools make of the package: mypy and scrapy shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crawling import TOKEN

USERS_CODE = """
import playwright.async_api
import playwright.sync_api
from scrapy_acecaptcha import AceCaptchaClient, CaptchaRule
from scrapy_acecaptcha.playwright import solve_captcha

def in_sync(page: playwright.sync_api.Page) -> None:
    reveal_type(solve_captcha(page, image="img"))
    reveal_type(solve_captcha(page, CaptchaRule(image="img"), optional=True))

async def in_async(frame: playwright.async_api.Frame) -> None:
    reveal_type(await solve_captcha(frame, image="img"))
    reveal_type(await solve_captcha(frame, {"image": "img"}, optional=True))

reveal_type(AceCaptchaClient("token").recognize(b""))
"""
RESULT = "scrapy_acecaptcha.flow.CaptchaResult"


@pytest.mark.slow
def test_types_are_seen_by_users_mypy(tmp_path: Path) -> None:
    (tmp_path / "users.py").write_text(USERS_CODE)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "users.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line.partition("Revealed type is ")[2] for line in done.stdout.splitlines()]
    types = [RESULT, f"{RESULT} | None"] * 2 + ["str"]
    assert [name.strip('"').replace("builtins.", "") for name in told if name] == types
    assert done.returncode == 0, done.stdout


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
