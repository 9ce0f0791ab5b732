"""The solving loop, without I/O, and its two drivers.

The loop is a generator that yields whatever the front end's methods returned, and the driver sends
back what came of it: Scrapy's and Playwright's async methods return awaitables, Playwright's sync
methods have done their work already, and a method that is a generator itself runs the same way.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, Union

from scrapy_acecaptcha.errors import CaptchaUnsolved
from scrapy_acecaptcha.rules import CaptchaRule

T = TypeVar("T")
Steps = Generator[Any, Any, T]
Step = Union[Steps[T], Awaitable[T], T]  # noqa: UP007 - 3.10 cannot subscript T | ... of its own
Outcome = Literal["accepted", "rejected", "unreadable"]


class Challenge(Protocol):
    """A captcha in front of us, as a front end sees it."""

    rule: CaptchaRule

    @property
    def url(self) -> str:
        """The page on which it stands."""

    def image(self) -> Step[bytes]:
        """Fetch the captcha's image; exactly once, as a second download is another captcha."""

    def submit(self, answer: str) -> Step[None]:
        """Fill in the form and send it."""

    def solved(self) -> Step[bool]:
        """Tell whether the site took the answer."""

    def renew(self) -> Step[bool]:
        """Get a fresh image to read; False if the site asks for no captcha any more."""


@dataclass(frozen=True)
class CaptchaResult:
    """How a captcha was solved.

    :param answer: the text that the site took
    :param attempts: number of answers submitted, the right one included
    :param elapsed: seconds from finding the captcha to the site's yes
    :param image: the image that was read, as bytes
    """

    answer: str
    attempts: int
    elapsed: float
    image: bytes


def solve(
    challenge: Challenge,
    read: Callable[[bytes], Step[str]],
    tell: Callable[[Outcome], object],
    max_attempts: int,
) -> Steps[CaptchaResult]:
    """Read and submit until the site is content.

    :param read: image in, text out
    :param tell: told what became of each text that was read
    :param max_attempts: answers to submit at most; as many images, and two at least, may turn out
        unreadable, as these cost calls too
    :raises CaptchaUnsolved: the attempts are used up
    """
    started = time.monotonic()
    submitted = unreadable = 0
    while True:
        image = yield challenge.image()
        text = yield read(image)
        answer = challenge.rule.clean(text)
        if answer is None:
            unreadable += 1
            tell("unreadable")
        else:
            submitted += 1
            yield challenge.submit(answer)
            if (yield challenge.solved()):
                tell("accepted")
                break
            tell("rejected")
        if submitted >= max_attempts or unreadable >= max(max_attempts, 2):
            raise CaptchaUnsolved(
                f"The captcha was not solved: {submitted} answers refused, {unreadable} images "
                f"unreadable, the last one read as {text!r}",
                attempts=submitted,
                url=challenge.url,
                selector=challenge.rule.image,
            )
        if not (yield challenge.renew()):
            break
    return CaptchaResult(answer or "", submitted, time.monotonic() - started, image)


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
