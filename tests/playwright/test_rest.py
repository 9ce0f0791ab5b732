"""When a page is called clear: not before its scripts have built it, and no later."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from scrapy_acecaptcha.playwright.rest import AT_REST_SECONDS
from tests.lab import IMAGE, REST, form

# Longer than a page without a field has to be unchanged, and nothing to be seen of it meanwhile.
LATER = f"""<script>setTimeout(() => document.querySelector("#here").innerHTML = "{IMAGE}",
    {AT_REST_SECONDS * 1000 + 300})</script>"""
LAZY = IMAGE.replace("<img", "<img loading=lazy") + REST
FAR_DOWN = "<div style='height: 9000px'></div>"

NOT_CLEAR: dict[str, tuple[str, dict[str, Any]]] = {
    "the field of the rule is there": (form(f"<p id=here></p>{REST}{LATER}"), {}),
    "a field speaks of a captcha": (
        form(f"<p id=here></p>{REST}{LATER}").replace("name=code", "name=code title=Captcha"),
        {"input": None},
    ),
    "a spinner turns": (
        f"<div id=here class=spinner>Wait</div>{LATER}".replace(IMAGE, form()),
        {},
    ),
    "an image waits to be scrolled to": (FAR_DOWN + form(LAZY), {}),
    "a script has moved it down": (
        form(LAZY)
        + f"<script>document.body.insertAdjacentHTML('afterbegin', `{FAR_DOWN}`)</script>",
        {},
    ),
}


@pytest.mark.parametrize("why", NOT_CLEAR)
def test_a_captcha_is_to_be_expected(visit: Any, lab: Any, lab_api: Any, why: str) -> None:
    lab.page, rule = NOT_CLEAR[why]
    result, text = visit(optional=True, **rule)
    assert result is not None
    assert (text, result.attempts, len(lab_api.calls)) == ("Record 1", 1, 1)


CLEAR = {
    "without scripts": "<p>Record 1",
    "with scripts": "<p>Record 1<script>setInterval(() => document.title = 'a', 90)</script>",
    "a field that asks for something else": "<p>Record 1<input name=zip_code><script></script>",
    "a captcha in a closed box": f"<p>Record 1<div hidden>{form()}</div>",
    "a text that never stands still": "<p>Record 1<p hidden id=x><script>setInterval(() => "
    "document.querySelector('#x').textContent = Math.random().toString(36), 20)</script>",
    "polling": "<p>Record 1<script>setInterval(() => fetch('/record'), 100)</script>",
    "a request that never ends": "<p>Record 1<script>fetch('/slow')</script>",
}


@pytest.mark.parametrize("what", CLEAR)
def test_what_never_ends_is_not_waited_for(visit: Any, lab: Any, lab_api: Any, what: str) -> None:
    lab.page = CLEAR[what]
    lab.hold = threading.Event()
    result, text = visit(
        optional=True, timeout=10_000, **({"input": None} if "zip" in lab.page else {})
    )
    lab.hold.set()
    assert (result, text) == (None, "Record 1")


def test_a_page_that_shows_success_is_no_captcha_page(visit: Any, lab: Any, lab_api: Any) -> None:
    """Result pages may show the captcha again, for the next query."""
    lab.page = f"<p id=result>Record 1</p>{form()}"
    result, _ = visit(optional=True, success="#result")
    assert result is None
    assert not lab_api.calls
