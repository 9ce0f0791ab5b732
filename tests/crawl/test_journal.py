"""A journal in trouble: it cannot be written, its disk is full, another process keeps it locked."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request

from scrapy_acecaptcha.recognition import journal_file
from tests.crawling import run_crawl
from tests.site import CaptchaSite, Seen
from tests.stub import ApiStub

ALL_100 = [f"Record {i}" for i in range(100)]


def sessions(site: CaptchaSite, n: int) -> list[Request]:
    """One request for each of *n* browsing sessions."""
    return [Request(f"{site.url}/inplace/record/{i}", meta={"cookiejar": i}) for i in range(n)]


@ensureDeferred
async def test_a_journal_that_cannot_be_written_loses_nothing(
    site: CaptchaSite, api: ApiStub, settings: Any, tmp_path: Path
) -> None:
    """What waits for a captcha goes back to the scheduler, and the resumed crawl has all of it."""
    journal = tmp_path / "journal.db"
    config = settings(
        "inplace",
        ACECAPTCHA_JOURNAL=str(journal),
        JOBDIR=str(tmp_path / "job"),
        CONCURRENT_REQUESTS=8,
    )

    def fail(text: bytes) -> str:
        with sqlite3.connect(journal) as db:
            db.execute("ALTER TABLE calls RENAME TO elsewhere")
        return site.answers(text) or ""

    api.script += [site.answers, site.answers, fail]
    first = await run_crawl(sessions(site, 20), config)
    assert first.reason == "acecaptcha_journal_failed"
    assert first.errors == []
    with sqlite3.connect(journal) as db:
        db.execute("ALTER TABLE elsewhere RENAME TO calls")
    second = await run_crawl([], config)
    assert second.reason == "finished"
    assert sorted(first.records + second.records) == sorted(ALL_100[:20])


@ensureDeferred
async def test_a_full_disk_loses_nothing(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = journal_file._connect

    def connect_on_a_small_disk(path: Path, mode: str) -> sqlite3.Connection:
        connection = connect(path, mode)
        connection.execute("PRAGMA max_page_count = 24")  # of 4 kB; with it SQLite says it is full
        return connection

    config = settings("inplace", JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=8)
    with monkeypatch.context() as small:
        small.setattr(journal_file, "_connect", connect_on_a_small_disk)
        first = await run_crawl(sessions(site, 30), config)
    assert first.reason == "acecaptcha_journal_failed"
    assert first.errors == []
    assert 0 < len(first.records) < 30
    assert len(api.calls) == len(first.records), "no call that could not be written down"
    second = await run_crawl([], config)
    assert second.reason == "finished"
    assert sorted(first.records + second.records) == sorted(ALL_100[:30])


@ensureDeferred
async def test_pages_come_while_another_process_keeps_the_journal_locked(
    site: CaptchaSite, settings: Any, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    locked = threading.Event()
    other: list[sqlite3.Connection] = []

    def on_request(seen: Seen) -> None:
        if "captcha." in seen.path:  # what is read of the image is to be written down next
            other.append(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
            other[0].execute("BEGIN IMMEDIATE")
            locked.set()
        elif "nocaptcha" in seen.path:
            locked.wait(10)
            if seen.path.endswith("/9"):  # it is asked for when those before it have come
                other[0].execute("ROLLBACK")

    site.on_request = on_request
    plain = [  # in another session, so that they do not wait for the captcha
        Request(f"{site.url}/nocaptcha/record/{i}", meta={"cookiejar": "plain"})
        for i in range(1, 10)
    ]
    config = settings("inplace", ACECAPTCHA_JOURNAL=str(path), CONCURRENT_REQUESTS=2)
    crawl = await run_crawl([f"{site.url}/inplace/record/0", *plain], config)
    assert crawl.records == ALL_100[:10]
    assert crawl.errors == []
