"""The journal: an SQLite record of every paid call and what became of it."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from scrapy_acecaptcha.errors import JournalError, SettingsError
from scrapy_acecaptcha.recognition.closing import Closing
from scrapy_acecaptcha.recognition.journal_file import Outcome, open_for_writing

logger = logging.getLogger(__name__)
T = TypeVar("T")

# In small bites, for other processes wait meanwhile.
_PRUNE = """
DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE time < ? ORDER BY time LIMIT 500)
"""

_VERDICTS = {
    "api": """
        SELECT outcome = 'accepted' FROM calls WHERE host = ?
        AND outcome IN ('accepted', 'rejected') ORDER BY id DESC LIMIT 100
    """,
    "local": """
        SELECT outcome = 'accepted' FROM free_readings WHERE host = ?
        AND source IN ('local', 'compared') AND outcome IN ('accepted', 'rejected')
        ORDER BY id DESC LIMIT 100
    """,
}


class Account(NamedTuple):
    """What the calls of one crawl are counted by, over its pauses.

    :param number: its row in the journal
    :param spider: the spider's or script's name
    :param lock: held as long as the crawl runs, and set free even by a kill -9
    """

    number: int
    spider: str
    lock: FileLock


class Journal(Closing):
    """Writes down every call before it is sent, and afterwards what came of it.

    SQLite runs in a thread of the journal's own, as it may have to wait for other processes. One
    object serves many threads, and several processes may write to one file, which has to be on
    a local disk (SQLite's WAL mode). Killing the process loses nothing; a power cut may lose the
    last moments, but leaves the file whole.

    :param path: the file; it and its folder are made where they are missing, for its owner only
    :param keep_days: calls older than this many days are deleted now, None or 0: never. What was
        deleted does not count against a budget any more
    :raises SettingsError: the file cannot be opened, is no journal, or one of a newer version
    """

    def __init__(self, path: str | os.PathLike[str], *, keep_days: float | None = None) -> None:
        self.path = Path(path).absolute()
        self._connection: sqlite3.Connection | None = open_for_writing(self.path)
        self._thread = ThreadPoolExecutor(1, "acecaptcha-journal")
        if keep_days:
            self.prune(keep_days)

    def __repr__(self) -> str:
        return f"<Journal {self.path}>"

    def close(self) -> None:
        """Write what is still to be written and close the file.

        A call that is still under way stays ``unknown``.
        """
        with suppress(RuntimeError):  # it was closed before
            self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    # Accounts

    def open_account(self, spider: str, job: str = "") -> Account:
        """Return the account of a crawl that was broken off, or a new one.

        An account that another process, or another crawl of this one, is using is left to it.

        :param spider: name of the spider or script
        :param job: its JOBDIR, which goes on with its own account only
        :raises JournalError: the journal cannot be written
        """
        return self._do(lambda db: self._claim(db, _text(spider), _text(job))).result()

    def _claim(self, db: sqlite3.Connection, spider: str, job: str) -> Account:
        db.execute("BEGIN IMMEDIATE")  # nobody else claims or finishes one meanwhile
        try:
            known = db.execute(
                "SELECT id FROM accounts WHERE spider = ? AND job = ? AND NOT finished ORDER BY id",
                (spider, job),
            ).fetchall()
            for (number,) in known:
                lock = self._lock(number)
                with suppress(Timeout):
                    lock.acquire(timeout=0)
                    return Account(number, spider, lock)
            row = db.execute("INSERT INTO accounts (spider, job) VALUES (?, ?)", (spider, job))
            assert row.lastrowid is not None
            account = Account(row.lastrowid, spider, self._lock(row.lastrowid))
            account.lock.acquire()
            return account
        finally:
            db.execute("COMMIT")

    def _lock(self, number: int) -> FileLock:
        name = self.path.with_name(f"{self.path.name}-{number}.lock")
        return FileLock(name, mode=0o600, thread_local=False)

    def spent(self, account: Account, rule: str | None = None) -> int:
        """Count the calls of a crawl that may have been paused; blocks.

        :param rule: only calls for this rule's budget
        :raises JournalError: the journal cannot be read
        """
        counted: int = self._value(
            "SELECT count(*) FROM calls WHERE account = ?1 AND (?2 IS NULL OR rule = ?2)",
            account.number,
            rule,
        ).result()
        return counted

    def leave(self, account: Account, *, finished: bool) -> None:
        """Give an account back.

        :param finished: the crawl has come to its end, so that the next one begins at zero
        """

        def leave(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                if finished:
                    db.execute("UPDATE accounts SET finished = 1 WHERE id = ?", (account.number,))
            finally:
                Path(account.lock.lock_file).unlink(missing_ok=True)
                account.lock.release()
                db.execute("COMMIT")

        self._later(leave)

    # Calls

    def begin(self, account: Account, *, host: str, url: str, image: bytes, rule: str = "") -> int:
        """Write down a call that is about to be sent; it is on disk when this returns.

        :param url: the page that shows the captcha; a user name and password in it are left out
        :param rule: whose budget it counts for, by default the host's
        :returns: the row, for :meth:`complete` and :meth:`settle`
        :raises JournalError: the journal cannot be written, so that the call must not be sent
        """
        values = {
            "account": account.number,
            "time": time.time(),
            "spider": _text(account.spider),
            "host": _text(host),
            "rule": _text(rule or host),
            "url": re.sub(r"//[^/?#]*@", "//", _text(url), count=1),
            "sha256": sha256(image).hexdigest(),
            "image": image,
        }
        row = self._do(lambda db: _insert(db, "calls", values)).result()
        assert row is not None
        return row

    def note_task(self, row: int, task_id: str) -> None:
        """Write down under which number a call's text can be had; blocks.

        :raises JournalError: the journal cannot be written
        """
        self._do(
            lambda db: db.execute(
                "UPDATE calls SET task_id = ? WHERE id = ?", (_text(task_id), row)
            )
        ).result()

    def complete(
        self,
        row: int,
        *,
        answer: str | None = None,
        code: str = "ok",
        seconds: float,
        trace_id: str | None = None,
    ) -> None:
        """Write down how a call came back; it is on disk when this returns.

        A failure to do so is logged and nothing more: the answer is paid for, and the row is there.

        :param answer: the text that the API read
        :param code: ``ok`` or the API's error code; the latter makes the outcome ``error``
        :param seconds: from sending to the answer
        """
        written = self._note(
            "UPDATE calls SET answer = ?, code = ?, seconds = ?, trace_id = ?, outcome = ?"
            " WHERE id = ?",
            None if answer is None else _text(answer),
            _text(code),
            seconds,
            None if trace_id is None else _text(str(trace_id)),
            "unknown" if code == "ok" else "error",
            row,
        )
        wait([written])

    def settle(self, row: int, outcome: Outcome) -> None:
        """Write down what the site said to an answer, or that the answer did not fit the rule.

        A rejection also takes out every answer accepted before for the same image and host. As in
        :meth:`complete`, failures are only logged.
        """
        if outcome == "rejected":
            self._note(
                "UPDATE calls SET withdrawn = 1 WHERE outcome = 'accepted' AND NOT withdrawn"
                " AND (host, sha256) = (SELECT host, sha256 FROM calls WHERE id = ?)",
                row,
            )
        self._note("UPDATE calls SET outcome = ? WHERE id = ?", outcome, row)

    def answer_for(self, image: bytes, host: str) -> Future[str | None]:
        """Return, in time, the answer that *host* accepted for exactly this image.

        None if there is none; JournalError if the journal cannot be read.
        """
        return self._value(
            "SELECT answer FROM calls WHERE outcome = 'accepted' AND NOT withdrawn"
            " AND host = ? AND sha256 = ? ORDER BY id DESC LIMIT 1",
            _text(host),
            sha256(image).hexdigest(),
        )

    def reject(self, image: bytes, host: str) -> None:
        """Take out the answers for *image*: the site refused the one from :meth:`answer_for`."""
        self._note(
            "UPDATE calls SET withdrawn = 1 WHERE outcome = 'accepted' AND NOT withdrawn"
            " AND host = ? AND sha256 = ?",
            _text(host),
            sha256(image).hexdigest(),
        )

    # Texts that nobody was paid for

    def note_free_reading(self, account: Account, host: str, source: str, outcome: Outcome) -> None:
        """Write down what became of a text that came from the journal or from a local reader.

        :param source: ``journal``, ``local``, or ``compared``: read on this machine only to see
            what would have become of it
        """
        self._note(
            "INSERT INTO free_readings (time, spider, host, source, outcome)"
            " VALUES (?, ?, ?, ?, ?)",
            time.time(),
            _text(account.spider),
            _text(host),
            source,
            outcome,
        )

    def verdicts(self, host: str) -> Future[dict[str, list[bool]]]:
        """Return, in time, what *host* accepted of the newest texts, at most 100 of each kind.

        :returns: the oldest first, of ``api`` and of ``local`` (those compared included)
        """

        def read(db: sqlite3.Connection) -> dict[str, list[bool]]:
            return {
                kind: [accepted for (accepted,) in db.execute(sql, [_text(host)])][::-1]
                for kind, sql in _VERDICTS.items()
            }

        return self._do(read)

    def latencies(self) -> Future[list[float]]:
        """Return, in time, the seconds that the newest calls took: at most 100."""
        sql = "SELECT seconds FROM calls WHERE code = 'ok' ORDER BY id DESC LIMIT 100"
        return self._do(
            lambda db: [s for (s,) in db.execute(sql) if isinstance(s, float) and 0 < s < 3600]
        )

    def prune(self, keep_days: float) -> int:
        """Delete the calls older than *keep_days* days and return how many they were.

        The file does not shrink; the room in it is used again.

        :raises SettingsError: *keep_days* is not a positive number
        :raises JournalError: the journal cannot be written
        """
        if not keep_days > 0:
            raise SettingsError(f"keep_days must be a positive number of days, not {keep_days!r}")
        oldest = time.time() - keep_days * 86400
        pruned = 0
        while deleted := self._do(lambda db: db.execute(_PRUNE, (oldest,)).rowcount).result():
            pruned += deleted
        self._note("DELETE FROM free_readings WHERE time < ?", oldest)
        return pruned

    # The thread

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run *work* in the journal's thread, after all that was asked of it before."""
        try:
            return self._thread.submit(self._working, work)
        except RuntimeError:
            raise JournalError(f"The journal {self.path} was closed") from None

    def _working(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise JournalError(f"The journal {self.path} was closed")
        try:
            return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"The journal {self.path} does not work ({error}): is its disk full, was it moved "
                "or deleted, or does another process keep it locked?"
            ) from error

    def _later(self, work: Callable[[sqlite3.Connection], object]) -> Future[object]:
        """Write what may be missing: it is no reason to lose an answer that is paid for."""

        def logged(future: Future[object]) -> None:
            error = future.exception()
            if error is not None:
                logger.error("What became of an API call was not written down: %s", error)

        try:
            written: Future[object] = self._do(work)
        except JournalError:  # closed: a call outlived the crawl
            written = Future()
            written.set_result(None)
        else:
            written.add_done_callback(logged)
        return written

    def _note(self, sql: str, *values: object) -> Future[object]:
        return self._later(lambda db: db.execute(sql, values))

    def _value(self, sql: str, *values: object) -> Future[Any]:
        """Return, in time, the first value that a query finds, None if it finds nothing."""

        def first(db: sqlite3.Connection) -> Any:
            rows = db.execute(sql, values).fetchall()
            return rows[0][0] if rows else None

        return self._do(first)


def _insert(db: sqlite3.Connection, table: str, values: dict[str, object]) -> int | None:
    names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    sql = f"INSERT INTO {table} ({names}) VALUES ({places})"  # noqa: S608 - our own names
    return db.execute(sql, values).lastrowid


def _text(text: str) -> str:
    """*text* without lone surrogates, which SQLite refuses and which JSON may bring."""
    return text.encode("utf-8", "replace").decode("utf-8")
