"""The journal's file: its schema, how it is opened, and a snapshot of it for reading."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from scrapy_acecaptcha.errors import AceCaptchaError, SettingsError
from scrapy_acecaptcha.recognition.closing import Closing

Outcome = Literal["accepted", "rejected", "unreadable", "unsent", "error", "unknown"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

SCHEMA_VERSION = 2  # PRAGMA user_version
_APPLICATION_ID = 0x41634361  # "AcCa": tells a journal from any other SQLite database
LAST_TIME = 32503680000  # the year 3000, in seconds since 1970; what is later is a mistake
LONGEST = 1e6  # seconds that a call may have taken
BUSY_SECONDS = 30.0  # how long to wait for another process that writes

# The image comes last: SQLite need not read its pages to get at the other columns.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS accounts (  -- of a crawl: what its budget is counted by
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    spider TEXT NOT NULL,
    job TEXT NOT NULL,  -- its JOBDIR
    finished INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- a pruned row's id must not mean another call
    account INTEGER NOT NULL,
    time REAL NOT NULL,
    spider TEXT NOT NULL,
    host TEXT NOT NULL,
    rule TEXT NOT NULL,  -- whose budget it counts for
    url TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    task_id TEXT,
    answer TEXT,
    seconds REAL,
    code TEXT,
    outcome TEXT NOT NULL DEFAULT 'unknown',
    withdrawn INTEGER NOT NULL DEFAULT 0,
    trace_id TEXT,
    image BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS free_readings (  -- texts that nobody was paid for
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    spider TEXT NOT NULL,
    host TEXT NOT NULL,
    source TEXT NOT NULL,  -- journal, local or compared
    outcome TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_counted ON calls (account, rule);
CREATE INDEX IF NOT EXISTS calls_by_age ON calls (time);
CREATE INDEX IF NOT EXISTS calls_reusable ON calls (host, sha256)
    WHERE outcome = 'accepted' AND NOT withdrawn;
CREATE INDEX IF NOT EXISTS calls_judged ON calls (host)
    WHERE outcome IN ('accepted', 'rejected');
CREATE INDEX IF NOT EXISTS free_readings_by_host ON free_readings (host);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
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
    :param task_id: under which the text was to be had, if the call was a task
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
    task_id: str | None
    image: bytes


class FreeReadings(NamedTuple):
    """Texts that nobody was paid for.

    :param source: ``journal``: accepted before for the same image; ``local``: of the local reader;
        ``compared``: of the local reader, and only compared with the API's
    :param number: how many there were with this outcome
    """

    host: str
    source: str
    outcome: str
    number: int


class Snapshot(Closing):
    """A journal as it is at this moment, for reading only.

    :param path: a journal; crawls may go on writing to it
    :raises SettingsError: there is no such file, it is no journal, or one of a newer version
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._connection = _open_for_reading(self.path)

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
        yield from map(_call, self._rows(sql, -1 if limit is None else limit))

    def accepted(self) -> Iterator[Call]:
        """Yield a call for each image and answer that a site accepted, the oldest first.

        :raises AceCaptchaError: the file is damaged
        """
        columns = ", ".join(Call._fields)
        sql = (
            f"SELECT {columns} FROM calls WHERE id IN (SELECT min(id) FROM calls WHERE"  # noqa: S608
            " outcome = 'accepted' AND NOT withdrawn GROUP BY sha256, answer) ORDER BY id"
        )
        yield from map(_call, self._rows(sql))

    def free_readings(self) -> list[FreeReadings]:
        """Count the texts that nobody was paid for.

        :raises AceCaptchaError: the file is damaged
        """
        sql = (
            "SELECT host, source, outcome, count(*) FROM free_readings"
            " GROUP BY host, source, outcome"
        )
        return [
            FreeReadings(str(host), str(source), str(outcome), number)
            for host, source, outcome, number in self._rows(sql)
        ]

    def _rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            # Not `yield from`, which would close the cursor after its connection.
            for row in self._connection.execute(sql, values):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            raise AceCaptchaError(f"The journal {self.path} cannot be read: {error}") from error


def _call(row: tuple[Any, ...]) -> Call:
    """Make a call of what stands in a row, which others may have written: SQLite takes anything."""
    call = Call(*row)
    return Call(
        time=_number(call.time, LAST_TIME) or 0.0,
        spider=str(call.spider),
        host=str(call.host),
        url=str(call.url),
        sha256=str(call.sha256),
        answer=_text(call.answer),
        seconds=_number(call.seconds, LONGEST),
        code=_text(call.code),
        outcome=call.outcome if call.outcome in OUTCOMES else "unknown",
        trace_id=_text(call.trace_id),
        task_id=_text(call.task_id),
        image=call.image if isinstance(call.image, bytes) else b"",
    )


def _number(value: object, most: float) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= most else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def open_for_writing(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Images and addresses are nobody else's business. SQLite gives its -wal and -shm the same.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = _connect(path, "mode=rw")
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
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = 1")
        connection.execute("BEGIN")  # everything that is read from here on is of one moment
        if not _checked_version(connection, path):
            raise SettingsError(f"{path} is not a journal: it is empty")
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?{mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # each statement is a transaction
        check_same_thread=False,  # the journal's own thread is the only one
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
    if 0 < version < SCHEMA_VERSION:
        raise SettingsError(
            f"The journal {path} was written by a pre-release of scrapy-acecaptcha: name another "
            "file"
        )
    if version > SCHEMA_VERSION:
        raise SettingsError(
            f"The journal {path} was written by a newer scrapy-acecaptcha (schema {version}; this "
            f"one knows {SCHEMA_VERSION}): upgrade the package, or name another file"
        )
    return int(version)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode, in which readers and the writer do not wait for each other."""
    deadline = time.monotonic() + BUSY_SECONDS
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
