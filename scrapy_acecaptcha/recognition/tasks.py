"""Texts that the API hands out later: when to ask for them, and what counts as their end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from statistics import median
from typing import Any

from scrapy_acecaptcha.errors import ApiError, ApiServerError, ApiTimeout

POLL_SECONDS = 3.0  # at most between two looks at a task, as the API's documentation advises
LEAST_SECONDS = 0.25  # between two looks
FIRST_SECONDS = 0.5  # before the first look, as long as nothing is known of the API's latency
SHARE = 0.05  # of the time that has passed: the wait until the next look
SOONER = 0.8  # of the time until the first look, where that found the text: it was ready before
REMEMBERED = 40  # newest latencies


class Pace:
    """When to look at a task: first when half of all texts are ready, then ever less often.

    A text is fetched at most LEAST_SECONDS, or SHARE of its latency, after it was ready, if it took
    longer than the median.
    """

    def __init__(self) -> None:
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, latencies: Iterable[float]) -> None:
        """Take into account that texts took so many seconds."""
        self._latencies.extend(latencies)

    @property
    def first(self) -> float:
        """Seconds from sending the image to the first look."""
        return median(self._latencies) if self._latencies else FIRST_SECONDS

    def next(self, elapsed: float) -> float:
        """Seconds from a look to the next one, *elapsed* seconds after sending the image."""
        return min(max(LEAST_SECONDS, SHARE * elapsed), POLL_SECONDS)


class Task:
    """A recognition under way at the API.

    :param look: asks the API for the task's state, or raises where nobody needs the text any more:
        to read it may be charged
    :param wait: waits so many seconds, or raises where the client was closed
    :param started: when the image was sent, as of time.monotonic()
    :param deadline: when the call's time is over
    """

    def __init__(
        self,
        task_id: str,
        *,
        look: Callable[[str], dict[str, Any]],
        wait: Callable[[float], None],
        started: float,
        deadline: float,
    ) -> None:
        self.task_id = task_id
        self._look = look
        self._wait = wait
        self._started = started
        self._deadline = deadline

    def fetch(self, pace: Pace) -> dict[str, Any]:
        """Look until the text is there, and return the reply that has it.

        A look that fails is repeated: the task goes on behind it, and the image is not sent again.

        :raises ApiError: the task ended without a text
        :raises ApiTimeout: there was none in time; it is not retried, as the task goes on
        """
        pause = pace.first
        for looks in count(1):
            now = time.monotonic()
            if now >= self._deadline:
                late = ApiTimeout(
                    f"Task {self.task_id} was not ready within "
                    f"{self._deadline - self._started:.4g} s",
                    code="timeout",
                )
                late.retryable = False
                raise late
            self._wait(max(0.0, min(self._started + pause, self._deadline) - now))
            try:
                body = self._look(self.task_id)
            except ApiError as error:
                # With a status it is the API's word on the task, and a 504 is its last.
                if not error.retryable or (isinstance(error, ApiTimeout) and error.status):
                    raise
                body = {"status": "processing"}
            if body.get("status") == "failed":
                raise ApiServerError(f"Task {self.task_id} failed", code="api_error", status=200)
            elapsed = time.monotonic() - self._started
            if body.get("status") not in ("processing", None) or text_of(body) is not None:
                pace.learn([elapsed * SOONER if looks == 1 else elapsed])
                return body
            pause = elapsed + pace.next(elapsed)
        raise AssertionError("unreachable")


def text_of(body: dict[str, Any]) -> str | None:
    """Return the text in a reply, which stands at its top or in its ``solution``."""
    solution = body.get("solution")
    text = body.get("text", solution.get("text") if isinstance(solution, dict) else None)
    return text if isinstance(text, str) else None
