"""One image's way to its text: journal, local reader, circuit breaker, budgets and the API."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy_acecaptcha.errors import ApiError, BudgetExhausted, CaptchaUnsolved
from scrapy_acecaptcha.recognition.budget import Budget
from scrapy_acecaptcha.recognition.circuit_breaker import CircuitBreaker
from scrapy_acecaptcha.recognition.local import LocalReader, ReadLocally

NOT_FETCHED = "not_fetched"  # what the journal calls a task that was given up, which is free

if TYPE_CHECKING:
    from typing_extensions import Self

    from scrapy_acecaptcha.flow import Outcome, Steps
    from scrapy_acecaptcha.recognition.client import AceCaptchaClient
    from scrapy_acecaptcha.recognition.journal import Account, Journal
    from scrapy_acecaptcha.recognition.waits import Waits


class Reading(str):
    """The text that was read in an image; a str that knows its call.

    Tell it what the site said, so that the journal and the report have it, and so that the text is
    used again where the very same image comes back.

    :param is_local: it was read on this machine
    """

    _tell: Callable[[Outcome], object]
    is_local: bool

    def __new__(
        cls, text: str, tell: Callable[[Outcome], object], *, is_local: bool = False
    ) -> Self:
        """Make a reading whose fate *tell* writes down."""
        reading = super().__new__(cls, text)
        reading._tell = tell
        reading.is_local = is_local
        return reading

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)

    def accepted(self) -> None:
        """Note that the site took this text."""
        self.tell("accepted")

    def refused(self) -> None:
        """Note that the site refused this text."""
        self.tell("rejected")

    def tell(self, outcome: Outcome) -> None:
        """Note what became of this text, as the solving loop calls it."""
        self._tell(outcome)


@dataclass(frozen=True)
class Origin:
    """Where an image comes from.

    :param url: the page that shows it
    :param host: host and port of that page, or whatever else its answers belong to
    :param selector: of the image, for error messages
    :param budget: most calls for *account*, 0 for no limit
    :param account: the rule whose budget it is, by default *host*
    :param clean: fits a text to the rule, None if it does not fit
    :param is_judged: somebody will tell what became of the text, whatever happens
    """

    url: str
    host: str
    selector: str = ""
    budget: int = 0
    account: str = ""
    clean: Callable[[str], str | None] = str
    is_judged: bool = False

    @classmethod
    def of(cls, url: str, default: str, **fields: Any) -> Self:
        """Make the origin of an image at *url*; without a URL, *default* stands for the host."""
        return cls(url, urlsplit(url).netloc or default, **fields)


class Recognizer:
    """Reads images and keeps account of every call.

    Any number of threads and event loops may use it.

    :param budget: of all calls
    :param journal: None for none
    :param account: what the journal counts the calls by
    :param local_reader: reads first, see :class:`LocalReader`
    """

    def __init__(
        self,
        client: AceCaptchaClient,
        *,
        budget: Budget,
        journal: Journal | None,
        account: Account | None,
        local_reader: str | ReadLocally | None = None,
    ) -> None:
        self.client = client
        self.budget = budget
        self.books: tuple[Journal, Account] | None = None
        if journal is not None and account is not None:
            self.books = (journal, account)
        self.circuit_breaker = CircuitBreaker()
        self.check_may_call: Callable[[], None] = lambda: None  # raises once the crawl is stopping
        self._counts: Counter[str] = Counter()
        self._rule_budgets: dict[str, Budget] = {}
        self._lock = threading.Lock()
        self._local: LocalReader | None = None
        if local_reader:
            self._local = LocalReader(local_reader, self.books, self.count)

    def close(self) -> None:
        """Close the budget and the local reader; client and journal are their owners'."""
        if self._local is not None:
            self._local.close()
        self.budget.close()

    @property
    def counts(self) -> Counter[str]:
        """What happened so far: api_requests, rejected, unreadable, reused, local_accepted ..."""
        with self._lock:
            return self._counts.copy()

    def count(self, event: str) -> None:
        """Add 1 to a count; from any thread."""
        with self._lock:
            self._counts[event] += 1

    def read(
        self, image: bytes, origin: Origin, waits: Waits, *, local: bool = True
    ) -> Steps[Reading]:
        """Return the text in *image*, from the journal if it has been read and accepted before.

        :param local: False where a local text was refused just now: the API is to read
        :raises ApiError: the API said no
        :raises BudgetExhausted: the budget of all calls is used up
        :raises CaptchaUnsolved: the rule's budget is used up
        :raises JournalError: the journal cannot be written or read
        """
        if self.books is not None:
            known = yield waits.for_thread(self.books[0].answer_for(image, origin.host))
            if known is not None:
                self.count("reused")
                return Reading(known, lambda outcome: self._tell_reused(image, origin, outcome))
        read_here = None
        if self._local is not None:
            read_here = yield from self._local.read(image, origin, waits, submit=local)
            if read_here.text is not None:
                return Reading(read_here.text, read_here.tell, is_local=True)
        call = _Call(self, image, origin)
        text = yield from self._ask_api(image, call, waits)

        def tell(outcome: Outcome) -> None:
            call.tell(outcome)
            if read_here is not None:
                read_here.compare(text, outcome)

        return Reading(text, tell)

    def _ask_api(self, image: bytes, call: _Call, waits: Waits) -> Steps[str]:
        since = time.monotonic()
        while pause := self.circuit_breaker.pause(call, since):
            yield waits.sleep(pause)
        error: BaseException | None = None
        try:
            self.check_may_call()
            text: str = yield waits.for_thread(self.client.recognize_in_thread(image, meter=call))
            return text
        except BaseException as raised:
            error = raised
            call.is_wanted = False
            raise
        finally:
            self.circuit_breaker.leave(call, error)

    def pay(self, origin: Origin) -> None:
        """Take one call from the budgets, before it is sent.

        :raises BudgetExhausted: the budget of all calls is used up
        :raises CaptchaUnsolved: the rule's budget is used up
        """
        if origin.budget:
            try:
                self._rule_budget(origin).spend()
            except BudgetExhausted:
                raise CaptchaUnsolved(
                    f"The rule's budget of {origin.budget} API calls is used up",
                    url=origin.url,
                    selector=origin.selector,
                    retry=False,
                ) from None
        self.budget.spend()

    def _tell_reused(self, image: bytes, origin: Origin, outcome: Outcome) -> None:
        if outcome != "accepted":
            self.count(outcome)
        if self.books is None:
            return
        journal, account = self.books
        journal.note_free_reading(account, origin.host, "journal", outcome)
        if outcome in ("rejected", "unreadable"):
            journal.reject(image, origin.host)

    def _rule_budget(self, origin: Origin) -> Budget:
        account = origin.account or origin.host
        with self._lock:
            if account not in self._rule_budgets:
                spent = self.books[0].spent(self.books[1], account) if self.books else 0
                self._rule_budgets[account] = Budget(
                    origin.budget, spent=spent, name=f"the budget of {account}"
                )
            return self._rule_budgets[account]


class _Call:
    """One image at the API: the client's Meter, called from its threads around each call."""

    def __init__(self, recognizer: Recognizer, image: bytes, origin: Origin) -> None:
        self._recognizer = recognizer
        self._origin = origin
        self._row: int | None = None
        self.is_wanted = True  # somebody waits for the text

    def sending(self, image: bytes) -> None:
        """Pay for a call, or forbid it, and write it down before it is sent."""
        recognizer, origin = self._recognizer, self._origin
        self._check_wanted()
        recognizer.check_may_call()
        recognizer.pay(origin)
        if recognizer.books is not None:
            journal, account = recognizer.books
            self._row = journal.begin(
                account, host=origin.host, url=origin.url, rule=origin.account, image=image
            )
        recognizer.count("api_requests")

    def task_begun(self, task_id: str) -> None:
        """Write down where the text can be had, before anybody asks for it."""
        if self._recognizer.books is not None and self._row is not None:
            self._recognizer.books[0].note_task(self._row, task_id)

    def looking(self, task_id: str) -> None:
        """Leave a text alone that nobody waits for: read, it would be charged."""
        self._check_wanted()

    def _check_wanted(self) -> None:
        if not self.is_wanted:
            raise ApiError("Nobody waits for the text any more", code=NOT_FETCHED)

    def answered(self, outcome: str | ApiError, seconds: float, trace_id: str | None) -> None:
        """Write down how the call ended."""
        answer, code = (None, outcome.code) if isinstance(outcome, ApiError) else (outcome, "ok")
        if code not in ("ok", NOT_FETCHED):
            self._recognizer.count(f"api_errors/{code}")
        if self._recognizer.books is not None and self._row is not None:
            self._recognizer.books[0].complete(
                self._row, answer=answer, code=code, seconds=seconds, trace_id=trace_id
            )

    def tell(self, outcome: Outcome) -> None:
        """Write down what became of the text."""
        if outcome != "accepted":
            self._recognizer.count(outcome)
        if self._recognizer.books is not None and self._row is not None:
            self._recognizer.books[0].settle(self._row, outcome)
