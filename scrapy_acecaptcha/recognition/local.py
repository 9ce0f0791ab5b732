"""A reader on this machine that goes first, at hosts where that has proved worth it."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import pkgutil
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from scrapy_acecaptcha.errors import SettingsError
from scrapy_acecaptcha.recognition.waits import in_thread

if TYPE_CHECKING:
    from scrapy_acecaptcha.flow import Outcome, Steps
    from scrapy_acecaptcha.recognition.journal import Account, Journal
    from scrapy_acecaptcha.recognition.recognizer import Origin
    from scrapy_acecaptcha.recognition.waits import Waits

logger = logging.getLogger(__name__)

ReadLocally = Callable[[bytes], "str | None"]

REMEMBERED = 100  # newest verdicts of a host that count
TRIED_OFTEN = 50  # images of a host, before only every TENTH one is tried where it does not pay off
TENTH = 10
PATIENCE = 5  # seconds for a reading that is under way when the reader is closed
# What is believed of a host of which nothing is known, and how many verdicts weigh as much.
EXPECTED_SHARE = 0.9
LOCAL_WEIGHT, API_WEIGHT = 5, 10
# For each local text that proved right, so many may wait for the site's word at a time; and one.
AT_ONCE = 4
# A refused answer costs an attempt, two downloads and some of the site's patience.
WORTH_CALLS = 9


def pays_off(right: int, wrong: int, *, api_right: int = 0, api_wrong: int = 0) -> bool:
    """Whether to submit a local text rather than ask the API.

    Let a site accept a share p of the local texts and a share q of the API's. The API alone takes
    1/q calls and (1 - q)/q refused answers for a captcha; a local text first, and the API once it
    was refused, takes (1 - p)/q of either. So it saves p/q calls, for (q - p)/q more refused
    answers; fewer, if p > q. It pays off where every additional refused answer saves at least
    WORTH_CALLS calls: p >= q * WORTH_CALLS / (WORTH_CALLS + 1).

    Both shares are means of what is known, beginning with EXPECTED_SHARE: a host of which nothing
    is known is tried, and one refused answer ends that until others have proved right.

    :param right: local texts that the site accepted, or would have
    :param wrong: those that it refused, or would have
    :param api_right: the API's texts that the site accepted
    :param api_wrong: those that it refused
    """
    local = (right + EXPECTED_SHARE * LOCAL_WEIGHT) / (right + wrong + LOCAL_WEIGHT)
    api = (api_right + EXPECTED_SHARE * API_WEIGHT) / (api_right + api_wrong + API_WEIGHT)
    return local >= api * WORTH_CALLS / (WORTH_CALLS + 1)


class LocalReader:
    """Reads first, and learns from what sites say to its texts and to the API's.

    Any number of threads and event loops may use it. As many images are read at a time as this
    process has cores.

    :param reader: ``ddddocr``, the dotted path of a callable, or a callable: bytes in; text out, or
        None where it cannot read them
    :param books: remember what was learned; None: for as long as this process runs
    :param count: counts an event
    :raises SettingsError: there is no such reader
    """

    def __init__(
        self,
        reader: str | ReadLocally,
        books: tuple[Journal, Account] | None,
        count: Callable[[str], None],
    ) -> None:
        self.books = books
        self.count = count
        self.lock = threading.Lock()
        self._read_bytes = load_reader(reader)
        self._hosts: dict[str, _Host] = {}
        self._cores = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._has_failed = False
        self._running: set[Future[str | None]] = set()
        self._is_closed = threading.Event()
        # Also when the process ends: a model must not be read with while it is being torn down.
        self.close = weakref.finalize(self, _finish, self._is_closed, self._running)

    def read(self, image: bytes, origin: Origin, waits: Waits, *, submit: bool) -> Steps[LocalText]:
        """Read *image*, if that is worth it; see :attr:`LocalText.text`.

        :param submit: False where a local text was refused just now: the API is to read
        """
        host = yield from self._host(origin.host, waits)
        with self.lock:
            submit = submit and not host.refused_last and host.may_submit()
            host.refused_last = False
            if not (submit or host.is_to_be_tried()):
                return LocalText(self, host, origin)
            host.pending += submit and origin.is_judged  # that others, too, read at this moment
        future = in_thread(lambda: self._read(image, origin), begun=self._running.add)
        future.add_done_callback(self._running.discard)
        text = LocalText(self, host, origin, future)
        if submit:
            try:
                text.text = yield waits.for_thread(future)
            finally:
                if text.text is None:
                    with self.lock:
                        host.pending -= origin.is_judged
        return text

    def _host(self, name: str, waits: Waits) -> Steps[_Host]:
        host = self._hosts.get(name)
        if host is None:
            host = _Host(name)
            if self.books is not None:
                verdicts = yield waits.for_thread(self.books[0].verdicts(name))
                host.local.extend(verdicts["local"])
                host.api.extend(verdicts["api"])
        return self._hosts.setdefault(name, host)

    def _read(self, image: bytes, origin: Origin) -> str | None:
        """Read, in a thread; what a reader raises is no reason not to ask the API."""
        try:
            with self._cores:
                text = None if self._is_closed.is_set() else self._read_bytes(image)
            if text is not None and not isinstance(text, str):
                raise TypeError(f"it returned {text!r:.80} and not a str or None")
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception("The local reader failed, as it may again; the API is asked")
            return None
        return text if text and origin.clean(text) else None

    def note(self, host: _Host, source: str, outcome: Outcome) -> None:
        """Write down what became of a text."""
        if self.books is not None:
            journal, account = self.books
            journal.note_free_reading(account, host.name, source, outcome)


def _finish(is_closed: threading.Event, running: set[Future[str | None]]) -> None:
    """Begin no more readings, and wait for those that have begun."""
    is_closed.set()
    wait(running.copy(), timeout=PATIENCE)


class LocalText:
    """What was read in one image on this machine.

    :param future: completes with it; None where nothing was read
    """

    def __init__(
        self,
        reader: LocalReader,
        host: _Host,
        origin: Origin,
        future: Future[str | None] | None = None,
    ) -> None:
        self.text: str | None = None  # the text to submit, if there is one
        self.future = future
        self._reader = reader
        self._host = host
        self._origin = origin

    def tell(self, outcome: Outcome) -> None:
        """Learn what became of the text, which was submitted."""
        reader, host = self._reader, self._host
        right = outcome == "accepted"
        judged = right or outcome == "rejected"
        if judged:
            reader.count("local_accepted" if right else "local_refused")
        if not right:
            reader.count(outcome)
        with reader.lock:
            host.pending -= self._origin.is_judged
            host.refused_last = host.refused_last or outcome == "rejected"
            if judged:
                host.local.append(right)
        reader.note(host, "local", outcome)

    def compare(self, text: str, outcome: Outcome) -> None:
        """Learn from what became of the API's *text* for the same image."""
        if outcome not in ("accepted", "rejected"):
            return
        with self._reader.lock:
            self._host.api.append(outcome == "accepted")
        if self.future is not None:
            self.future.add_done_callback(lambda read: self._compare(read.result(), text, outcome))

    def _compare(self, read: str | None, text: str, outcome: Outcome) -> None:
        if read is None:
            return
        same = self._origin.clean(read) == self._origin.clean(text)
        if outcome == "rejected" and not same:
            return  # nobody knows what the site would have said
        verdict: Outcome = outcome if same else "rejected"
        with self._reader.lock:
            self._host.local.append(verdict == "accepted")
        self._reader.note(self._host, "compared", verdict)


class _Host:
    """What one host said to the newest texts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.local: deque[bool] = deque(maxlen=REMEMBERED)
        self.api: deque[bool] = deque(maxlen=REMEMBERED)
        self.pending = 0  # local texts that are about to be judged
        self.refused_last = False
        self._tried = 0

    def may_submit(self) -> bool:
        """Whether a local text pays off, and not too many are about to be judged already."""
        right, api_right = sum(self.local), sum(self.api)
        return self.pending <= AT_ONCE * right and pays_off(
            right,
            len(self.local) - right,
            api_right=api_right,
            api_wrong=len(self.api) - api_right,
        )

    def is_to_be_tried(self) -> bool:
        """Whether to read an image only to see whether the text would have been right."""
        self._tried += 1
        return self._tried <= TRIED_OFTEN or self._tried % TENTH == 0


def load_reader(reader: str | ReadLocally) -> ReadLocally:
    """Return the callable that is meant by a name, a dotted path or the callable itself.

    :raises SettingsError: there is none
    """
    if reader == "ddddocr":
        missing = [name for name in ("ddddocr", "PIL") if importlib.util.find_spec(name) is None]
        if missing:
            raise SettingsError(
                "The local reader ddddocr is not installed: pip install 'scrapy-acecaptcha[local]'"
            )
        return _read_with_ddddocr
    found: Any = reader
    if isinstance(reader, str):
        try:
            found = pkgutil.resolve_name(reader)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingsError(
                f"There is no local reader {reader!r}: it is `ddddocr` or the dotted path of a "
                f"callable ({error})"
            ) from error
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise SettingsError(
            f"The local reader {reader!r} is not a plain callable that takes bytes and returns a "
            "str or None"
        )
    return found  # type: ignore[no-any-return]


def _read_with_ddddocr(image: bytes) -> str | None:
    from scrapy_acecaptcha.recognition.ocr import read_if_sure  # noqa: PLC0415 - an extra

    return read_if_sure(image)
