"""Solver: recognition and the solving loop for scripts, browsers and spiders."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Coroutine, Hashable
from typing import TYPE_CHECKING, Any, Protocol, overload

from scrapy_acecaptcha import flow
from scrapy_acecaptcha.errors import SettingsError
from scrapy_acecaptcha.flow import CaptchaResult, Outcome, Steps
from scrapy_acecaptcha.recognition.budget import Budget
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.recognition.closing import Closing
from scrapy_acecaptcha.recognition.journal import Journal
from scrapy_acecaptcha.recognition.local import ReadLocally
from scrapy_acecaptcha.recognition.recognizer import Origin, Reading, Recognizer
from scrapy_acecaptcha.recognition.turns import Turns
from scrapy_acecaptcha.recognition.waits import AsyncioWaits, BlockingWaits, Waits
from scrapy_acecaptcha.rules import CaptchaRule

if TYPE_CHECKING:
    from collections import Counter
    from types import TracebackType

    from scrapy.crawler import Crawler

__all__ = ["DEFAULT_MAX_ATTEMPTS", "Reading", "Solver", "SolverOwner"]

DEFAULT_MAX_ATTEMPTS = 3  # submissions per challenge
_METHODS = ("image", "submit", "solved", "renew")


class PlainChallenge(Protocol):
    """A :class:`scrapy_acecaptcha.flow.Challenge` whose methods are plain functions."""

    def image(self) -> bytes:
        """Fetch the image."""

    def submit(self, answer: str, /) -> object:
        """Send the answer."""

    def solved(self) -> Any:
        """Tell whether the site took it."""

    def renew(self) -> Any:
        """Get a fresh image; False if the site asks for no captcha any more."""


class Solver(Closing):
    """Reads captchas and solves them, with journal, budget and counts around the API's client.

    ::

        with Solver(journal="captchas.db", budget=500) as solver:
            text = solver.read(image)
            ...
            text.accepted()  # or text.refused()

    Any number of threads and event loops may use it.

    :param client: by default one with token and base URL of the environment, which is closed with
        the solver; yours is left open
    :param journal: path of the SQLite journal, None for none
    :param budget: most API calls, 0 for no limit; with a journal, calls of a run that was broken
        off count
    :param local_reader: reads first, for nothing, where that has proved worth it: ``ddddocr``
        (extra ``local``), a callable that takes bytes and returns a str or None, or its dotted path
    :param max_attempts: answers to submit for one captcha, unless its rule says otherwise
    :param name: what the journal calls this script
    :raises SettingsError: there is no token or no such reader, or the journal cannot be opened
    """

    _budget_name = "the Solver's argument `budget`"
    _job = ""  # a JOBDIR, whose budget goes on

    def __init__(
        self,
        *,
        client: AceCaptchaClient | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        budget: int | Budget = 0,
        local_reader: str | ReadLocally | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        name: str = "script",
    ) -> None:
        self.name = name
        self.max_attempts = max_attempts
        self._own_client = client is None
        self.client = client or AceCaptchaClient()
        if journal is not None and not isinstance(journal, Journal):
            journal = Journal(journal)
        self.journal = journal
        if journal is not None:
            self.client.pace.learn(journal.latencies().result())
        self._account = journal.open_account(name, self._job) if journal else None
        if not isinstance(budget, Budget):
            spent = journal.spent(self._account) if journal and self._account else 0
            budget = Budget(budget, spent=spent, name=self._budget_name)
        self.recognizer = Recognizer(
            self.client,
            budget=budget,
            journal=journal,
            account=self._account,
            local_reader=local_reader,
        )
        self._turns = Turns()
        self._waits: Waits = AsyncioWaits()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Solver:
        """Return the solver of a running crawl: its budget, journal, stats and circuit breaker.

        To be called once the engine is there: in a spider's ``start()`` and callbacks, not in its
        constructor.

        :raises SettingsError: the crawl has none
        """
        owner: SolverOwner | None = crawler.get_downloader_middleware(SolverOwner)
        if owner is None:
            raise SettingsError(
                "This crawl has no Solver: turn scrapy-acecaptcha on with "
                'ADDONS = {"scrapy_acecaptcha.Addon": 500}, and set ACECAPTCHA_TOKEN'
            )
        return owner.solver

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.client!r}>"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(finished=error is None)

    def close(self, *, finished: bool = True) -> None:
        """Close journal and connections.

        :param finished: the work is done, so that the next run of this name has a budget anew
        """
        if self._own_client:
            self.client.close()
        self.recognizer.close()
        if self.journal is not None:
            if self._account is not None:
                self.journal.leave(self._account, finished=finished)
            self.journal.close()

    @property
    def counts(self) -> Counter[str]:
        """What happened so far, by the names of the crawl's stats: api_requests, rejected ..."""
        return self.recognizer.counts

    # One image

    def read(self, image: bytes, *, url: str = "") -> Reading:
        """Return the text in *image*; blocks until it is there.

        :param image: PNG, JPEG, GIF, WebP or BMP bytes
        :param url: the page that shows it, for the journal; what was accepted at one host is used
            again at that host only
        :raises ApiError: the API said no past all retries
        :raises BudgetExhausted: the budget is used up
        :raises JournalError: the journal cannot be written
        """
        return flow.drive(self._reading(image, url, BlockingWaits()))

    async def read_async(self, image: bytes, *, url: str = "") -> Reading:
        """:meth:`read` for asyncio and for spiders: the event loop goes on while the API reads.

        Cancelled, it leaves its call in the journal, and its text, too, if that still comes.

        :raises CrawlStopped: in a spider: the crawl is stopping
        """
        return await flow.drive_async(self._reading(image, url, self._waits))

    def _reading(self, image: bytes, url: str, waits: Waits) -> Steps[Reading]:
        return self.recognizer.read(_checked_image(image), Origin.of(url, self.name), waits)

    # The loop

    @overload
    def solve(  # type: ignore[overload-overlap]
        self, challenge: PlainChallenge, *, session: Hashable = None
    ) -> CaptchaResult: ...
    @overload
    def solve(
        self, challenge: object, *, session: Hashable = None
    ) -> Coroutine[Any, Any, CaptchaResult]: ...
    def solve(
        self, challenge: Any, *, session: Hashable = None
    ) -> CaptchaResult | Coroutine[Any, Any, CaptchaResult]:
        """Read and submit until the site is content: the very loop of both front ends.

        :param challenge: any object with four methods: ``image()`` returns the image's bytes, once
            for each attempt; ``submit(answer)`` sends the answer, a str; ``solved()`` returns True
            if the site took it, False if it refused it, None if it said nothing; ``renew()`` gets a
            fresh image ready, and returns False if the site asks for no captcha any more. If one of
            them is ``async def``, the result must be awaited. Its attributes ``rule`` (a
            :class:`~scrapy_acecaptcha.CaptchaRule`: how to clean the text) and ``url`` (the page)
            may be missing
        :param session: name of the browsing session that the captcha is bound to, if it is: its
            captchas are solved one after the other. Whoever had to wait gets a fresh image first,
            as the one that it had may have been replaced
        :return: with 0 attempts and no answer if ``renew()`` said that another one had opened the
            way meanwhile
        :raises CaptchaUnsolved: every attempt was refused, or the rule's budget is used up
        :raises ApiError: the API said no past all retries
        :raises BudgetExhausted: the budget is used up
        :raises JournalError: the journal cannot be written
        :raises CrawlStopped: in a spider: the crawl is stopping
        """
        if self._must_await(challenge):
            return flow.drive_async(self._solving(challenge, session, self._waits))
        return flow.drive(self._solving(challenge, session, BlockingWaits()))

    def _must_await(self, challenge: Any) -> bool:
        return any(inspect.iscoroutinefunction(getattr(challenge, name)) for name in _METHODS)

    def _solving(self, challenge: Any, session: Hashable, waits: Waits) -> Steps[CaptchaResult]:
        challenge = _Complete(challenge)
        if session is None:
            return (yield from self.steps(challenge, waits))
        return (yield from self._solving_in_turn(challenge, session, waits))

    def _solving_in_turn(
        self, challenge: flow.Challenge, session: Hashable, waits: Waits
    ) -> Steps[CaptchaResult]:
        started = time.monotonic()
        turn = self._turns.enter(session)
        try:
            if not turn.done():
                yield waits.for_thread(turn)
                if (yield challenge.renew()) is False:
                    return CaptchaResult("", 0, time.monotonic() - started, b"")
            return (yield from self.steps(challenge, waits))
        finally:
            self._turns.leave(session, turn)

    def attempts_for(self, rule: CaptchaRule) -> int:
        """Images that may be read for one captcha of *rule*."""
        return rule.max_attempts or self.max_attempts

    def steps(
        self,
        challenge: flow.Challenge,
        waits: Waits | None = None,
        *,
        account: str = "",
        used: int = 0,
    ) -> Steps[CaptchaResult]:
        """Return the steps of solving *challenge*, for a front end that drives them itself.

        :param waits: how to wait for a text: ``BlockingWaits()`` for :func:`flow.drive`, by default
            as in the crawl or in asyncio, for :func:`flow.drive_async`
        :param account: what the rule's ``budget`` is counted for, by default the page's host
        :param used: images that have been read for it before
        """
        rule = challenge.rule
        origin = Origin.of(
            challenge.url,
            self.name,
            selector=rule.image,
            budget=rule.budget,
            account=account,
            clean=rule.clean,
            is_judged=True,
        )
        reader = _Reader(self.recognizer, origin, waits or self._waits)
        return flow.solve(challenge, reader.read, reader.tell, self.attempts_for(rule) - used)


class SolverOwner:
    """What the crawl's middleware is to :meth:`Solver.from_crawler`."""

    solver: Solver


class _Reader:
    """Reads the images of one challenge, and tells the last text what became of it."""

    def __init__(self, recognizer: Recognizer, origin: Origin, waits: Waits) -> None:
        self._recognizer = recognizer
        self._origin = origin
        self._waits = waits
        self._last: Reading | None = None
        self._local = True  # False right after a local text: then the API reads the fresh image

    def read(self, image: bytes) -> Steps[Reading]:
        self._last = None
        self._last = yield from self._recognizer.read(
            _checked_image(image), self._origin, self._waits, local=self._local
        )
        return self._last

    def tell(self, outcome: Outcome) -> None:
        if self._last is not None:
            self._local = not self._last.is_local
            self._last.tell(outcome)


class _Complete:
    """A challenge of a user, with a rule and a URL where it has none."""

    def __init__(self, challenge: Any) -> None:
        self.rule: CaptchaRule = getattr(challenge, "rule", None) or CaptchaRule(image="auto")
        self.url: str = getattr(challenge, "url", "")
        for name in _METHODS:
            setattr(self, name, getattr(challenge, name))


def _checked_image(image: object) -> bytes:
    if inspect.iscoroutine(image):
        image.close()
        raise TypeError("image() must be `async def`, or the whole challenge plain")
    if not isinstance(image, bytes):
        raise TypeError(f"An image is bytes, not {type(image).__name__}: {image!r:.80}")
    return image
