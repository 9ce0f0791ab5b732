"""The solving loop, without I/O, and its two drivers.

The loop is a generator that yields whatever the front end's methods returned, and the driver sends
back what came of it: Scrapy's and Playwright's async methods return awaitables, Playwright's sync
methods have done their work already, and a method that is a generator itself runs the same way.
"""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, Union

from scrapy_acecaptcha.errors import CaptchaUnsolved
from scrapy_acecaptcha.rules import CaptchaRule

T = TypeVar("T")
Steps = Generator[Any, Any, T]
Step = Union[Steps[T], Awaitable[T], T]  # noqa: UP007 - 3.10 cannot subscript T | ... of its own
# "rejected": refused by the site; "unreadable": did not fit the rule; "unsent": never reached the
# site, or the site said nothing of it
Outcome = Literal["accepted", "rejected", "unreadable", "unsent"]


class ImageReplaced(Exception):
    """The page has replaced the image while it was read."""


class Challenge(Protocol):
    """A captcha in front of us, as a front end sees it."""

    rule: CaptchaRule

    @property
    def url(self) -> str:
        """The page on which it stands."""

    def image(self) -> Step[bytes]:
        """Fetch the captcha's image; exactly once, as a second download is another captcha."""

    def submit(self, answer: str) -> Step[None]:
        """Fill in the form and send it.

        :raises ImageReplaced: another image is asked for by now, so nothing was sent
        """

    def solved(self) -> Step[bool | None]:
        """Tell whether the site took the answer; None if nothing was sent, or nothing was said."""

    def renew(self) -> Step[bool | None]:
        """Get a fresh image to read; False if the site asks for no captcha any more."""


@dataclass(frozen=True)
class CaptchaResult:
    """How a captcha was solved.

    :param answer: the text that the site took; empty if in the end it asked for none, as when
        another request of the session had been let through meanwhile
    :param attempts: number of answers submitted, the right one included
    :param elapsed: seconds from finding the captcha to the site's yes
    :param image: the image that was read, as bytes
    :param page: in a browser: Playwright's page on which the form's answer is, a new tab if the
        form opened one
    :param download: in a browser: Playwright's download, where the form led to a file
    """

    answer: str
    attempts: int
    elapsed: float
    image: bytes
    page: Any = field(default=None, compare=False, repr=False)
    download: Any = field(default=None, compare=False, repr=False)


def solve(
    challenge: Challenge,
    read: Callable[[bytes], Step[str]],
    tell: Callable[[Outcome], object],
    max_attempts: int,
) -> Steps[CaptchaResult]:
    """Read and submit until the site is content.

    :param read: image in, text out
    :param tell: told what became of each text that was read
    :param max_attempts: answers to submit at most. As many images may be read for nothing, because
        the page has replaced them meanwhile
    :raises CaptchaUnsolved: the attempts are used up
    """
    started = time.monotonic()
    told: Counter[str] = Counter()
    while True:
        image = yield challenge.image()
        text = yield read(image)
        answer = challenge.rule.clean(text)
        outcome: Outcome | Literal["stale"] = "unreadable"
        if answer is not None:
            outcome = yield from _attempt(challenge, answer, tell)
        tell("unsent" if outcome == "stale" else outcome)
        told[outcome] += 1
        submitted = told.total() - told["unreadable"] - told["stale"]
        if outcome == "accepted":
            return CaptchaResult(answer or "", submitted, time.monotonic() - started, image)
        if told["stale"] > max_attempts or told.total() - told["stale"] >= max_attempts:
            unsent = f"{told['unsent']} answers not sent, " if told["unsent"] else ""
            if told["stale"]:
                unsent += f"{told['stale']} images replaced by the page while they were read, "
            raise CaptchaUnsolved(
                f"The captcha was not solved: {told['rejected']} answers refused, "
                f"{told['unreadable']} images unreadable, {unsent}the last one read as {text!r}",
                attempts=submitted,
                url=challenge.url,
                selector=challenge.rule.image,
            )
        if (yield challenge.renew()) is False:
            # A text that was refused is nobody's answer.
            return CaptchaResult("", submitted, time.monotonic() - started, image)


def _attempt(
    challenge: Challenge, answer: str, tell: Callable[[Outcome], object]
) -> Steps[Outcome | Literal["stale"]]:
    """Submit *answer* and tell what became of it, whatever goes wrong on the way."""
    try:
        yield challenge.submit(answer)
        solved = yield challenge.solved()
    except ImageReplaced:
        return "stale"
    except BaseException:
        tell("unsent")
        raise
    if solved is None:
        return "unsent"
    return "accepted" if solved else "rejected"


async def drive_async(steps: Steps[T]) -> T:
    """Run a generator of steps, awaiting what it yields."""
    send: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        try:
            step = send(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        try:
            if inspect.isgenerator(step):
                step = drive_async(step)
            value = await step if inspect.isawaitable(step) else step
            send = steps.send
        except BaseException as error:
            value, send = error, steps.throw


def drive(steps: Steps[T]) -> T:
    """Run a generator of steps whose work is done by the time it is yielded."""
    send: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        try:
            step = send(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        try:
            value = drive(step) if inspect.isgenerator(step) else step
            send = steps.send
        except BaseException as error:
            value, send = error, steps.throw
