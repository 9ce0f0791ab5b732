"""The journal: no paid call is lost, and no answer that a site refused is used again."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from scrapy_acecaptcha.errors import AceCaptchaError, SettingsError
from scrapy_acecaptcha.recognition.journal import Account, Journal
from scrapy_acecaptcha.recognition.journal_file import SCHEMA_VERSION, Call, Snapshot

IMAGE = b"\x89PNG\r\n\x1a\n one"
OTHER = b"\x89PNG\r\n\x1a\n two"
HOST = "records.example.org"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acecaptcha.db"


def begin(journal: Journal, image: bytes = IMAGE, **fields: Any) -> int:
    call = {"host": HOST, "url": f"https://{HOST}/search", **fields}
    name = call.pop("spider", "court")
    account = ACCOUNTS.get((id(journal), name)) or journal.open_account(name)
    ACCOUNTS[id(journal), name] = account
    return journal.begin(account, **call, image=image)


ACCOUNTS: dict[tuple[int, str], Account] = {}


@pytest.fixture(autouse=True)
def _no_accounts() -> Iterator[None]:
    yield
    for account in ACCOUNTS.values():
        account.lock.release()
    ACCOUNTS.clear()


def calls(path: Path) -> list[Call]:
    with Snapshot(path) as snapshot:
        return list(snapshot.rows())


def settled(journal: Journal, outcome: Any, answer: str = "7364", **fields: Any) -> int:
    row = begin(journal, **fields)
    journal.complete(row, answer=answer, seconds=0.5)
    journal.settle(row, outcome)
    journal.latencies().result()  # the settling has been done by then
    return row


def outcomes(path: Path) -> list[str]:
    """From the newest to the oldest."""
    with Snapshot(path) as snapshot:
        return [call.outcome for call in snapshot.rows()]


class TestRows:
    def test_all_that_is_known_of_a_call(self, path: Path) -> None:
        with Journal(path) as journal:
            row = begin(journal)
            (call,) = calls(path)
            assert call.outcome == "unknown"
            assert (call.answer, call.code, call.seconds, call.trace_id) == (None, None, None, None)
            journal.complete(row, answer="73 64", seconds=1.5, trace_id="abc")
            journal.settle(row, "accepted")
            journal.latencies().result()  # the settling has been done by then
            (call,) = calls(path)
        assert abs(call.time - time.time()) < 60
        assert call == Call(
            time=call.time,
            spider="court",
            host=HOST,
            url=f"https://{HOST}/search",
            sha256=sha256(IMAGE).hexdigest(),
            answer="73 64",
            seconds=1.5,
            code="ok",
            outcome="accepted",
            trace_id="abc",
            task_id=None,
            image=IMAGE,
        )

    def test_newest_first(self, path: Path) -> None:
        with Journal(path) as journal:
            for answer in "abc":
                settled(journal, "accepted", answer)
            assert [call.answer for call in calls(path)] == ["c", "b", "a"]

    def test_error(self, path: Path) -> None:
        with Journal(path) as journal:
            journal.complete(begin(journal), code="timeout", seconds=130.0)
            (call,) = calls(path)
        assert (call.outcome, call.code, call.answer) == ("error", "timeout", None)

    def test_user_and_password_of_the_url_stay_out(self, path: Path) -> None:
        with Journal(path) as journal:
            begin(journal, url="https://me:se@cret@example.org/a?mail=x@y.org")
            (call,) = calls(path)
        assert call.url == "https://example.org/a?mail=x@y.org"

    def test_lone_surrogates_in_an_answer(self, path: Path) -> None:
        with Journal(path) as journal:
            journal.complete(begin(journal), answer="7\ud83d4", seconds=1)
            (call,) = calls(path)
        assert call.answer == "7?4"

    def test_snapshot_without_images_and_with_a_limit(self, path: Path) -> None:
        with Journal(path) as journal:
            for answer in "abc":
                settled(journal, "accepted", answer)
            with Snapshot(path) as snapshot:
                settled(journal, "accepted", "d")  # after the moment of the snapshot
                calls = list(snapshot.rows(2, images=False))
        assert [(call.answer, call.image) for call in calls] == [("c", b""), ("b", b"")]


class TestReuse:
    def test_accepted_answer(self, path: Path) -> None:
        with Journal(path) as journal:
            settled(journal, "accepted")
            assert journal.answer_for(IMAGE, HOST).result() == "7364"
            assert journal.answer_for(OTHER, HOST).result() is None
            assert journal.answer_for(IMAGE, "other.example.org").result() is None

    @pytest.mark.parametrize("outcome", ["rejected", "unreadable", "unknown", "error"])
    def test_any_other_answer(self, path: Path, outcome: str) -> None:
        with Journal(path) as journal:
            settled(journal, outcome)
            assert journal.answer_for(IMAGE, HOST).result() is None

    def test_rejection_of_a_reused_answer(self, path: Path) -> None:
        with Journal(path) as journal:
            settled(journal, "accepted")
            settled(journal, "accepted", host="other.example.org")
            journal.reject(IMAGE, HOST)
            assert journal.answer_for(IMAGE, HOST).result() is None
            assert journal.answer_for(IMAGE, "other.example.org").result() == "7364"
            assert outcomes(path) == ["accepted", "accepted"]
            settled(journal, "accepted", "new")
            assert journal.answer_for(IMAGE, HOST).result() == "new"

    def test_rejection_of_a_later_call(self, path: Path) -> None:
        with Journal(path) as journal:
            slow = begin(journal)
            settled(journal, "accepted")
            journal.complete(slow, answer="7364", seconds=9)
            journal.settle(slow, "rejected")  # sent before, refused after the other was accepted
            assert journal.answer_for(IMAGE, HOST).result() is None

    def test_over_a_restart(self, path: Path) -> None:
        with Journal(path) as journal:
            settled(journal, "accepted")
        with Journal(path) as journal:
            assert journal.answer_for(IMAGE, HOST).result() == "7364"
            journal.reject(IMAGE, HOST)
        with Journal(path) as journal:
            assert journal.answer_for(IMAGE, HOST).result() is None

    def test_lookup_uses_the_index(self, path: Path) -> None:
        Journal(path).close()
        with closing(sqlite3.connect(path)) as connection:
            (plan,) = connection.execute(
                "EXPLAIN QUERY PLAN SELECT answer FROM calls WHERE outcome = 'accepted'"
                " AND NOT withdrawn AND host = ? AND sha256 = ? ORDER BY id DESC LIMIT 1",
                ("", ""),
            )
        assert "calls_reusable (host=? AND sha256=?)" in plan[3]


class TestBudgetCount:
    def test_counts_whatever_came_of_a_call(self, path: Path) -> None:
        with Journal(path) as journal:
            court, register = journal.open_account("court"), journal.open_account("register")
            for account, host in ((court, "a.org"), (court, "b.org"), (register, "a.org")):
                journal.begin(account, host=host, url="", image=IMAGE)
            journal.begin(court, host="b.org:8000", rule="b.org", url="", image=IMAGE)
            assert [journal.spent(court), journal.spent(register)] == [3, 1]
            assert [journal.spent(court, host) for host in ("b.org", "a.org", "c.org")] == [2, 1, 0]

    def test_a_crawl_that_was_broken_off_goes_on_and_a_finished_one_begins_anew(
        self, path: Path
    ) -> None:
        for finished, spent in ((False, 0), (True, 1), (True, 0)):
            with Journal(path) as journal:
                account = journal.open_account("court")
                assert journal.spent(account) == spent
                journal.begin(account, host="h", url="", image=IMAGE)
                journal.leave(account, finished=finished)
        assert sorted(file.name for file in path.parent.iterdir()) == [path.name]

    def test_two_at_a_time_have_each_their_account(self, path: Path) -> None:
        with Journal(path) as one, Journal(path) as other:
            first, second = one.open_account("court"), other.open_account("court")
            one.begin(first, host="h", url="", image=IMAGE)
            other.begin(second, host="h", url="", image=OTHER)
            one.leave(first, finished=True)
            other.begin(second, host="h", url="", image=OTHER)
            assert other.spent(second) == 2
            other.leave(second, finished=False)
        with Journal(path) as journal:
            assert journal.spent(journal.open_account("court")) == 2

    def test_a_job_goes_on_with_its_own_account(self, path: Path) -> None:
        for job in ("/a", "/b", "/b"):
            with Journal(path) as journal:
                account = journal.open_account("court", job)
                journal.begin(account, host="h", url="", image=IMAGE)
                journal.leave(account, finished=False)
        with Journal(path) as journal:
            assert journal.spent(journal.open_account("court", "/a")) == 1
            assert journal.spent(journal.open_account("court", "/b")) == 2

    def test_prune(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = time.time()
        with Journal(path) as journal:
            with monkeypatch.context() as past:
                past.setattr(time, "time", lambda: now - 31 * 86400)
                for number in range(1200):  # more than one bite
                    begin(journal, image=IMAGE + b"%d" % number)
            begin(journal)
            journal.prune(32)
            assert len(calls(path)) == 1201
        with Journal(path, keep_days=30) as journal:
            assert len(calls(path)) == 1
            newer = begin(journal)
            assert newer > 1201  # a pruned row's number never means another call
        with Journal(path, keep_days=0) as journal:
            assert len(calls(path)) == 2
            with pytest.raises(SettingsError, match="positive number of days, not -1"):
                journal.prune(-1)


class TestManyWriters:
    def test_threads(self, path: Path) -> None:
        with Journal(path) as journal, ThreadPoolExecutor(32) as threads:
            list(threads.map(lambda n: settled(journal, "accepted", image=b"%d" % n), range(640)))
            assert len(calls(path)) == 640
            assert len({call.sha256 for call in calls(path)}) == 640
            assert {call.outcome for call in calls(path)} == {"accepted"}
            assert journal.answer_for(b"639", HOST).result() == "7364"

    @pytest.mark.slow
    def test_processes_on_a_file_that_is_not_there_yet(self, path: Path) -> None:
        processes = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)])
            for number in range(4)
        ]
        assert [process.wait(120) for process in processes] == [0, 0, 0, 0]
        with Snapshot(path) as snapshot:
            assert Counter(call.spider for call in snapshot.rows()) == {
                str(number): 50 for number in range(4)
            }
        assert set(outcomes(path)) == {"accepted"}

    def test_kill_between_sending_and_answer(self, path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"sent\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with Journal(path) as journal:
            assert outcomes(path) == ["unknown", "accepted"]
            account = journal.open_account("s")  # killed, so nobody holds it
            assert journal.spent(account) == 2


WRITER = """
import sys
from scrapy_acecaptcha.recognition.journal import Account, Journal

with Journal(sys.argv[1]) as journal:
    account = journal.open_account(sys.argv[2])
    for number in range(50):
        row = journal.begin(account, host="h", url="http://h/", image=b"%d" % number)
        journal.complete(row, answer="a", seconds=1)
        journal.settle(row, "accepted")
"""

VICTIM = """
import sys, time
from scrapy_acecaptcha.recognition.journal import Account, Journal

journal = Journal(sys.argv[1])
account = journal.open_account("s")
row = journal.begin(account, host="h", url="http://h/", image=b"1")
journal.complete(row, answer="a", seconds=1)
journal.settle(row, "accepted")
journal.begin(account, host="h", url="http://h/", image=b"2")
print("sent", flush=True)
time.sleep(60)
"""


class TestFile:
    def test_folder_is_made(self, tmp_path: Path) -> None:
        with Journal(tmp_path / "a" / "b" / "c.db") as journal:
            begin(journal)
            assert [oct(f.stat().st_mode) for f in (tmp_path / "a" / "b").iterdir()] == [
                "0o100600"
            ] * 4  # with -wal, -shm and the account's lock

    @pytest.mark.parametrize("name", ["a b.db", "50%25?mode=memory#x.db", ":memory:", "日本.db"])
    def test_odd_names(self, tmp_path: Path, name: str) -> None:
        with Journal(tmp_path / name) as journal:
            begin(journal)
        assert name in [file.name for file in tmp_path.iterdir()]
        assert outcomes(tmp_path / name) == ["unknown"]

    def test_close_is_idempotent_and_final(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        journal = Journal(path)
        row = begin(journal)
        journal.close()
        journal.close()
        with caplog.at_level(logging.DEBUG):
            journal.complete(row, answer="late", seconds=99)
            journal.settle(row, "accepted")
        assert not caplog.records
        assert outcomes(path) == ["unknown"]
        with pytest.raises(AceCaptchaError, match="was closed"):
            begin(journal)

    def test_call_must_not_be_sent_unwritten(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Journal(path) as journal:
            row = begin(journal)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DROP TABLE calls")
            with pytest.raises(AceCaptchaError, match=r"does not work.*no such table"):
                begin(journal)
            journal.complete(row, answer="paid", seconds=1)  # an answer that must not get lost
        assert "was not written down" in caplog.text

    def test_newer_schema(self, path: Path) -> None:
        Journal(path).close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            connection.execute("PRAGMA user_version = 99")
        for refuse in (Journal, Snapshot):
            with pytest.raises(SettingsError, match=r"acecaptcha\.db was written by a newer .*99"):
                refuse(path)

    def test_not_a_database(self, path: Path) -> None:
        path.write_text("id,title\n" * 1000)
        for refuse in (Journal, Snapshot):
            with pytest.raises(SettingsError, match=r"acecaptcha\.db cannot be opened .*not a"):
                refuse(path)
        assert path.read_text().startswith("id,title")

    def test_database_of_something_else(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE records (id)")
        before = path.read_bytes()
        for refuse in (Journal, Snapshot):
            with pytest.raises(SettingsError, match="a database of something else"):
                refuse(path)
        assert path.read_bytes() == before

    def test_folder_or_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="cannot be opened"):
            Journal(tmp_path)
        (tmp_path / "file").touch()
        with pytest.raises(SettingsError, match="cannot be opened"):
            Journal(tmp_path / "file" / "a.db")

    def test_snapshot_of_nothing(self, path: Path) -> None:
        with pytest.raises(SettingsError, match="no such file"):
            Snapshot(path)
        assert not path.exists()
        path.touch()
        with pytest.raises(SettingsError, match="it is empty"):
            Snapshot(path)
        Journal(path).close()  # an empty file is as good as none to begin with
        assert outcomes(path) == []

    def test_snapshot_leaves_the_file_as_it_was(self, path: Path) -> None:
        with Journal(path) as journal:
            begin(journal)
        before = path.read_bytes()
        with Snapshot(path) as snapshot:
            assert len(list(snapshot.rows())) == 1
        assert path.read_bytes() == before
        assert not list(path.parent.glob("*-wal"))

    def test_damaged_file(self, path: Path) -> None:
        with Journal(path) as journal:
            for number in range(2000):
                begin(journal, image=b"%d" % number)
        data = bytearray(path.read_bytes())
        data[8192:] = b"\xff" * (len(data) - 8192)
        path.write_bytes(data)
        with Snapshot(path) as snapshot, pytest.raises(AceCaptchaError, match="cannot be read"):
            list(snapshot.rows())
