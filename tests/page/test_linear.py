"""The work on a page grows as the page does: calls are counted, not seconds."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from benchmarks.hostile import AUTO, NAMED, PAGES, look_at, make
from scrapy_acecaptcha.rules import CaptchaRule

FIXED = 2_000  # calls that pages of some size cost more, however large they are
SMALL = 20  # units; ten times as many stay below all limits


def calls(name: str, units: int, rule: CaptchaRule) -> int:
    """Functions, Python's and C's, that are called to look at a page of *units*."""
    response = make(name, units)
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()
    sys.setprofile(note)
    try:
        look_at(response, rule)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("rule", [NAMED, AUTO], ids=["named", "auto"])
@pytest.mark.parametrize("name", PAGES)
def test_ten_times_the_page_takes_ten_times_the_calls_at_most(name: str, rule: CaptchaRule) -> None:
    calls(name, SMALL, rule)  # imports and caches
    one, ten, hundred = (calls(name, n * SMALL, rule) for n in (1, 10, 90))
    assert ten <= 11 * one + FIXED
    assert hundred <= 10 * ten + FIXED
