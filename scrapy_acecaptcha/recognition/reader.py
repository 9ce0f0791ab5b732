"""Image in, text out: the client's calls with budget, journal and stats around them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scrapy_acecaptcha.crawl.waiting import Stopped, Waits
from scrapy_acecaptcha.errors import ApiError, BudgetExhausted, CaptchaUnsolved
from scrapy_acecaptcha.recognition.budget import Budget, SharedBudget
from scrapy_acecaptcha.recognition.circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    from scrapy_acecaptcha.flow import Outcome
    from scrapy_acecaptcha.recognition.client import AceCaptchaClient
    from scrapy_acecaptcha.recognition.journal import Journal
    from scrapy_acecaptcha.rules import CaptchaRule


class Till:
    """What all recognition calls of a crawl have in common: who pays, and who keeps the books.

    :param count: adds to a stat
    """

    def __init__(
        self,
        client: AceCaptchaClient,
        *,
        waits: Waits,
        budget: Budget,
        journal: Journal | None,
        spider: str,
        count: Callable[[str, float], None],
    ) -> None:
        self.client = client
        self.waits = waits
        self.budget = budget
        self.journal = journal
        self.spider = spider
        self.count = count
        self.circuit_breaker = CircuitBreaker(waits)
        self._host_budgets: dict[str, Budget] = {}
        self._lock = threading.Lock()

    def host_budget(self, host: str, limit: int) -> Budget:
        """The budget of one host, which a rule may limit by itself."""
        with self._lock:
            if host not in self._host_budgets:
                spent = self.journal.spent(self.spider, host) if self.journal else 0
                self._host_budgets[host] = Budget(limit, spent=spent, name=f"the budget of {host}")
            return self._host_budgets[host]

    def close(self, *, finished: bool) -> None:
        """Close the client and the books.

        :param finished: the crawl has come to its end, so that the next one has a budget anew
        """
        self.client.close()
        if isinstance(self.budget, SharedBudget):
            self.budget.close()
        if self.journal is not None:
            if finished:
                self.journal.finish(self.spider)
            self.journal.close()


class Reader:
    """Reads the images of one challenge, and keeps the books on what became of each.

    It is the client's Meter, called from its threads.
    """

    def __init__(self, till: Till, rule: CaptchaRule, url: str) -> None:
        self._till = till
        self._rule = rule
        self._url = url
        self._host = urlsplit(url).netloc
        self._row: int | None = None
        self._reused: bytes | None = None
        self._sent = 0
        self._errors: Counter[str] = Counter()

    async def read(self, image: bytes) -> str:
        """Return the text in *image*, from the journal if it has been read and accepted before.

        :raises ApiError: the API said no
        :raises BudgetExhausted: ACECAPTCHA_BUDGET is used up
        :raises CaptchaUnsolved: the rule's budget is used up
        :raises Stopped: the crawl is stopping
        """
        till = self._till
        self._row, self._reused = None, None
        if till.journal is not None:
            known = till.journal.answer_for(image, self._host)
            if known is not None:
                till.count("reused", 1)
                self._reused = image
                return known
        try:
            async with till.circuit_breaker.call():
                if till.waits.stopped:
                    raise Stopped
                return await till.waits.for_thread(
                    till.client.recognize_in_thread(image, meter=self)
                )
        finally:
            self._count_calls()

    def tell(self, outcome: Outcome) -> None:
        """Book what became of the text that was read last."""
        if outcome != "accepted":
            self._till.count(outcome, 1)
        journal = self._till.journal
        if journal is None or outcome == "unsent":  # its row stays "unknown"
            return
        if self._row is not None:
            journal.settle(self._row, outcome)
        elif self._reused is not None and outcome != "accepted":
            journal.reject(self._reused, self._host)

    def _count_calls(self) -> None:
        """Hand on what the threads counted: Scrapy's stats belong to its own thread."""
        self._till.count("api_requests", self._sent)
        for code, times in self._errors.items():
            self._till.count(f"api_errors/{code}", times)
        self._sent = 0
        self._errors.clear()

    # Meter: called in the client's threads, around each call

    def sending(self, image: bytes) -> None:
        """Pay for a call, or forbid it, and write it down before it is sent."""
        till = self._till
        if till.waits.stopped:
            raise Stopped
        if self._rule.budget:
            try:
                till.host_budget(self._host, self._rule.budget).spend()
            except BudgetExhausted:
                raise CaptchaUnsolved(
                    f"The rule's budget of {self._rule.budget} API calls is used up",
                    url=self._url,
                    selector=self._rule.image,
                    retry=False,
                ) from None
        till.budget.spend()
        if till.journal is not None:
            self._row = till.journal.begin(
                spider=till.spider, host=self._host, url=self._url, image=image
            )
        self._sent += 1

    def answered(self, outcome: str | ApiError, seconds: float, trace_id: str | None) -> None:
        """Write down how the call ended."""
        if isinstance(outcome, ApiError):
            answer, code = None, outcome.code
            self._errors[code] += 1
        else:
            answer, code = outcome, "ok"
        if self._till.journal is not None and self._row is not None:
            self._till.journal.complete(
                self._row, answer=answer, code=code, seconds=seconds, trace_id=trace_id
            )
