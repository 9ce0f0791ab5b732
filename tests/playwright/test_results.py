"""What the user has in the end: the result, a file, what dialogs said, the journal, a trace."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scrapy_acecaptcha import Solver
from scrapy_acecaptcha.flow import Steps
from scrapy_acecaptcha.playwright import solve_captcha
from scrapy_acecaptcha.recognition.journal_file import Snapshot
from tests.browsers import AsyncBrowser, Browser, both_apis, on_page
from tests.lab import IMAGE, Lab, form
from tests.playwright.conftest import RULE

WRONG = "XXXXX"

# The image stands there whatever was answered; only a dialog tells.
TELLS = """<script>const send = async () => {
    const reply = await fetch("/check?code=" + document.querySelector("[name=code]").value);
    alert((await reply.json()).ok ? "Welcome, Smith" : "The  code was Wrong");
    document.querySelector("#captcha").src = "/captcha.png?" + Math.random();
};</script>"""


@pytest.mark.parametrize(
    "rule", [{"success": "text=welcome"}, {"success": "#none", "failure": "text=code was wrong"}]
)
def test_what_a_dialog_says_is_a_verdict(
    visit: Any, lab: Lab, lab_api: Any, rule: dict[str, str]
) -> None:
    lab.page = IMAGE + "<input name=code><button onclick=send()>Go</button>" + TELLS
    if "failure" in rule:
        lab.page = lab.page.replace("alert(", "document.body.id = 'none', alert(")
    lab_api.script.append(WRONG)
    result, _ = visit(submit="button", **rule)
    assert (result.attempts, len(lab.sent), len(lab_api.calls)) == (2, 2, 2)


@both_apis
@pytest.mark.parametrize("target", ["_self", "_blank"])
def test_a_file_that_the_form_leads_to(
    browser: Browser, lab: Lab, lab_api: Any, client: Any, target: str
) -> None:
    lab.page = form().replace("<form", f"<form target={target}")
    lab.record = (
        b"%PDF-1.7",
        {"Content-Type": "application/pdf", "Content-Disposition": "attachment; filename=a.pdf"},
    )
    lab_api.script.append(WRONG)

    def body(page: Any) -> Steps[Any]:
        yield page.goto(lab.url)
        result = yield solve_captcha(page, RULE, client=client)
        path = yield result.download.path()
        return result.attempts, result.download.suggested_filename, path.read_bytes()

    assert on_page(browser, body) == (2, "a.pdf", b"%PDF-1.7")


@both_apis
def test_a_trace_shows_one_group(browser: Browser, lab: Lab, client: Any, tmp_path: Path) -> None:
    def body(page: Any) -> Steps[None]:
        yield page.context.tracing.start()
        yield page.goto(lab.url)
        yield solve_captcha(page, RULE, client=client)
        yield page.title()
        yield page.context.tracing.stop(path=tmp_path / "trace.zip")

    on_page(browser, body)
    with zipfile.ZipFile(tmp_path / "trace.zip") as archive:
        lines = archive.read("trace.trace").decode().splitlines()
    events = [event for event in map(json.loads, lines) if event["type"] == "before"]
    outer = [event for event in events if not event.get("parentId")]
    names = [event.get("title") or event["method"] for event in outer]
    assert names == ["goto", "solve_captcha", "title"]


def test_a_cancelled_solve_is_in_the_journal_with_its_text(
    async_browser: AsyncBrowser, lab: Lab, lab_api: Any, client: Any, tmp_path: Path
) -> None:
    path = tmp_path / "captchas.db"

    def calls() -> list[tuple[str | None, str]]:
        with Snapshot(path) as journal:
            return [(call.answer, call.outcome) for call in journal.rows()]

    async def cancel(solver: Solver) -> None:
        page = await async_browser.browser.new_page()
        await page.goto(lab.url)
        task = asyncio.ensure_future(solve_captcha(page, RULE, solver=solver))
        await asyncio.to_thread(lab_api.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls() == [(None, "unknown")]
        lab_api.gate.set()
        while calls()[0][0] is None:
            await asyncio.sleep(0.01)
        await page.context.close()

    lab_api.gate.clear()
    with Solver(client=client, journal=path) as solver:
        async_browser.run_async(lambda: asyncio.wait_for(cancel(solver), 20))
    assert calls() == [(lab.expected, "unknown")]
