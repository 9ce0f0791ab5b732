"""The journal: an SQLite record of every paid call and what became of it."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from scrapy_acecaptcha.errors import AceCaptchaError, SettingsError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

logger = logging.getLogger(__name__)

Outcome = Literal["accepted", "rejected", "unreadable", "unsent", "error", "unknown"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

SCHEMA_VERSION = 1  # PRAGMA user_version
_APPLICATION_ID = 0x41634361  # "AcCa": tells a journal from any other SQLite database
_BUSY_SECONDS = 30.0  # how long to wait for another process that writes

# The image comes last: SQLite need not read its pages to get at the other columns.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- a pruned row's id must not mean another call
    time REAL NOT NULL,
    spider TEXT NOT NULL,
    host TEXT NOT NULL,
    url TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    answer TEXT,
    seconds REAL,
    code TEXT,
    outcome TEXT NOT NULL DEFAULT 'unknown',
    withdrawn INTEGER NOT NULL DEFAULT 0,
    trace_id TEXT,
    image BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS finished (
    spider TEXT PRIMARY KEY,
    last_call INTEGER NOT NULL  -- of the crawl that finished last
);
CREATE INDEX IF NOT EXISTS calls_counted ON calls (spider, host);
CREATE INDEX IF NOT EXISTS calls_by_age ON calls (time);
CREATE INDEX IF NOT EXISTS calls_reusable ON calls (host, sha256)
    WHERE outcome = 'accepted' AND NOT withdrawn;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
# In small bites, for other processes wait meanwhile.
_PRUNE = """
DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE time < ? ORDER BY time LIMIT 500)
"""


class Call(NamedTuple):
    """One call of the recognition API.

    :param time: when it was sent, in seconds since 1970
    :param spider: the spider's name
    :param host: host of the page
    :param url: the page, without user name and password
    :param sha256: of the image, in hexadecimal
    :param answer: the text that the API read, None if it read none
    :param seconds: from sending to the answer, None if none came
    :param code: ``ok`` or the API's error code, None if the call was cut off
    :param outcome: accepted, rejected, unreadable (the text did not fit the rule), unsent (the text
        never reached the site, or it said nothing), error, or unknown after a crash
    :param trace_id: what Ace Data Cloud's support asks for
    :param image: the bytes that were sent, empty where they were not asked for
    """

    time: float
    spider: str
    host: str
    url: str
    sha256: str
    answer: str | None
    seconds: float | None
    code: str | None
    outcome: Outcome
    trace_id: str | None
    image: bytes


class Journal:
    """Writes down every call before it is sent, and afterwards what came of it.

    One object serves many threads, and several processes may write to one file, which has to be on
    a local disk (SQLite's WAL mode). Killing the process loses nothing; a power cut may lose the
    last moments, but leaves the file whole.

    :param path: the file; it and its folder are made where they are missing
    :param keep_days: calls older than this many days are deleted now, None or 0: never. What was
        deleted does not count against a budget any more
    :raises SettingsError: the file cannot be opened, is no journal, or one of a newer version
    """

    def __init__(self, path: str | os.PathLike[str], *, keep_days: float | None = None) -> None:
        self.path = Path(path).absolute()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = _open_for_writing(self.path)
        if keep_days:
            self.prune(keep_days)

    def __repr__(self) -> str:
        return f"<Journal {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A call that is still under way stays ``unknown``."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def begin(self, *, spider: str, host: str, url: str, image: bytes) -> int:
        """Write down a call that is about to be sent; it is on disk when this returns.

        :param url: the page that shows the captcha; a user name and password in it are left out
        :returns: the row, for :meth:`complete` and :meth:`settle`
        :raises AceCaptchaError: the journal cannot be written, so that the call must not be sent
        """
        cursor = self._write(
            "INSERT INTO calls (time, spider, host, url, sha256, image) VALUES (?, ?, ?, ?, ?, ?)",
            time.time(),
            _text(spider),
            _text(host),
            re.sub(r"//[^/?#]*@", "//", _text(url), count=1),
            sha256(image).hexdigest(),
            image,
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def complete(
        self,
        row: int,
        *,
        answer: str | None = None,
        code: str = "ok",
        seconds: float,
        trace_id: str | None = None,
    ) -> None:
        """Write down how a call came back.

        A failure to do so is logged and nothing more: the answer is paid for, and the row is there.

        :param answer: the text that the API read
        :param code: ``ok`` or the API's error code; the latter makes the outcome ``error``
        :param seconds: from sending to the answer
        """
        self._note(
            "UPDATE calls SET answer = ?, code = ?, seconds = ?, trace_id = ?, outcome = ?"
            " WHERE id = ?",
            None if answer is None else _text(answer),
            code,
            seconds,
            None if trace_id is None else _text(str(trace_id)),
            "unknown" if code == "ok" else "error",
            row,
        )

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

    def answer_for(self, image: bytes, host: str) -> str | None:
        """Return the answer that *host* accepted for exactly this image, None if there is none.

        :raises AceCaptchaError: the journal cannot be read
        """
        answer: str | None = self._value(
            "SELECT answer FROM calls WHERE outcome = 'accepted' AND NOT withdrawn"
            " AND host = ? AND sha256 = ? ORDER BY id DESC LIMIT 1",
            _text(host),
            sha256(image).hexdigest(),
        )
        return answer

    def reject(self, image: bytes, host: str) -> None:
        """Take out the answers for *image*: the site refused the one from :meth:`answer_for`."""
        self._note(
            "UPDATE calls SET withdrawn = 1 WHERE outcome = 'accepted' AND NOT withdrawn"
            " AND host = ? AND sha256 = ?",
            _text(host),
            sha256(image).hexdigest(),
        )

    def calls(self, host: str | None = None, spider: str | None = None) -> int:
        """Count the calls that were sent, whatever came of them: what a budget has to know.

        :param host: only calls for this host
        :param spider: only calls of this spider
        :raises AceCaptchaError: the journal cannot be read
        """
        return int(
            self._value(
                "SELECT count(*) FROM calls"
                " WHERE (?1 IS NULL OR host = ?1) AND (?2 IS NULL OR spider = ?2)",
                host,
                spider,
            )
        )

    def spent(self, spider: str, host: str | None = None) -> int:
        """Count the calls of a crawl that may have been paused, but has not finished.

        :param host: only calls for this host
        :raises AceCaptchaError: the journal cannot be read
        """
        return int(
            self._value(
                "SELECT count(*) FROM calls WHERE spider = ?1 AND (?2 IS NULL OR host = ?2)"
                " AND id > coalesce((SELECT last_call FROM finished WHERE spider = ?1), 0)",
                _text(spider),
                host,
            )
        )

    def finish(self, spider: str) -> None:
        """Close the account of a crawl that has come to its end: the next one begins at zero."""
        self._note(
            "INSERT OR REPLACE INTO finished SELECT ?1, coalesce(max(id), 0) FROM calls",
            _text(spider),
        )

    def prune(self, keep_days: float) -> int:
        """Delete the calls older than *keep_days* days and return how many they were.

        The file does not shrink; the room in it is used again.

        :raises SettingsError: *keep_days* is not a positive number
        :raises AceCaptchaError: the journal cannot be written
        """
        if not keep_days > 0:
            raise SettingsError(f"keep_days must be a positive number of days, not {keep_days!r}")
        oldest = time.time() - keep_days * 86400
        pruned = 0
        while deleted := self._write(_PRUNE, oldest).rowcount:
            pruned += deleted
        return pruned

    def rows(self) -> Iterator[Call]:
        """Yield every call, the newest first, without loading them all."""
        with Snapshot(self.path) as snapshot:
            yield from snapshot.rows()

    def _write(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Run one statement, which is one transaction."""
        with self._opened() as connection:
            return connection.execute(sql, values)

    def _note(self, sql: str, *values: object) -> None:
        """Write what may be missing: it is no reason to lose an answer that is paid for."""
        if self._connection is None:  # a call that outlived the crawl
            return
        try:
            self._write(sql, *values)
        except AceCaptchaError as error:
            logger.error("What became of an API call was not written down: %s", error)

    def _value(self, sql: str, *values: object) -> Any:
        """Return the first value that a query finds, None if it finds nothing."""
        with self._opened() as connection:
            rows = connection.execute(sql, values).fetchall()
        return rows[0][0] if rows else None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                raise AceCaptchaError(f"The journal {self.path} was closed")
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise AceCaptchaError(
                    f"The journal {self.path} does not work ({error}): is its disk full, or was "
                    "it moved or deleted?"
                ) from error


class Snapshot:
    """A journal as it is at this moment, for reading only.

    :param path: a journal; crawls may go on writing to it
    :raises SettingsError: there is no such file, it is no journal, or one of a newer version
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._connection = _open_for_reading(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def rows(self, limit: int | None = None, *, images: bool = True) -> Iterator[Call]:
        """Yield the calls, the newest first.

        :param limit: most calls to yield, None: all
        :param images: False leaves :attr:`Call.image` empty, which is a great deal faster
        :raises AceCaptchaError: the file is damaged
        """
        columns = ", ".join(Call._fields if images else (*Call._fields[:-1], "x''"))
        sql = f"SELECT {columns} FROM calls ORDER BY id DESC LIMIT ?"  # noqa: S608 - our own names
        try:
            found = self._connection.execute(sql, (-1 if limit is None else limit,))
            yield from map(Call._make, found)
        except sqlite3.Error as error:
            raise AceCaptchaError(f"The journal {self.path} cannot be read: {error}") from error


def _open_for_writing(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = _connect(path, "mode=rwc")
        with _closed_on_error(connection):
            version = _checked_version(connection, path)
            _write_ahead(connection)
            if version < SCHEMA_VERSION:
                connection.executescript(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        raise _refusal(path, error) from error
    return connection


def _open_for_reading(path: Path) -> sqlite3.Connection:
    if not os.path.isfile(path):
        raise SettingsError(f"There is no journal {path}: no such file")
    try:
        try:
            return _reader(path, "mode=rw")  # mode=ro leaves -wal and -shm files behind
        except sqlite3.OperationalError:
            if path.with_name(f"{path.name}-wal").exists():
                raise
            # A write-protected folder: SQLite must be told that nobody else can write, either.
            return _reader(path, "immutable=1")
    except sqlite3.Error as error:
        raise _refusal(path, error) from error


def _reader(path: Path, mode: str) -> sqlite3.Connection:
    connection = _connect(path, mode)
    with _closed_on_error(connection):
        connection.execute("PRAGMA query_only = 1")
        connection.execute("BEGIN")  # everything that is read from here on is of one moment
        if not _checked_version(connection, path):
            raise SettingsError(f"{path} is not a journal: it is empty")
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?{mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,  # each statement is a transaction
        check_same_thread=False,  # a lock sees to that
    )


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _checked_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema's version, 0 for an empty file; refuse what is no journal of ours."""
    ((version, application, tables),) = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_user_version, pragma_application_id"
    )
    if tables and application != _APPLICATION_ID:
        raise SettingsError(
            f"{path} is not a journal but a database of something else: name another file"
        )
    if version > SCHEMA_VERSION:
        raise SettingsError(
            f"The journal {path} was written by a newer scrapy-acecaptcha (schema {version}; this "
            f"one knows {SCHEMA_VERSION}): upgrade the package, or name another file"
        )
    return int(version)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode, in which readers and the writer do not wait for each other."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            # SQLite does not wait by itself where several processes switch a new file at once.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA synchronous = NORMAL")


def _refusal(path: Path, error: Exception) -> SettingsError:
    reason = getattr(error, "strerror", None) or error
    return SettingsError(f"The journal {path} cannot be opened ({reason}): name another file")


def _text(text: str) -> str:
    """*text* without lone surrogates, which SQLite refuses and which JSON may bring."""
    return text.encode("utf-8", "replace").decode("utf-8")
