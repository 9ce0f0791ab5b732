"""The solving loop, driven by hand, and its two drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

from scrapy_acecaptcha.errors import CaptchaError, CaptchaUnsolved
from scrapy_acecaptcha.flow import CaptchaResult, ImageReplaced, Steps, drive, drive_async, solve
from scrapy_acecaptcha.rules import CaptchaRule
from tests.event_loop import run

URL = "https://example.org/check"


class FakeChallenge:
    """Every method returns its name and arguments, which the loop then yields."""

    url = URL

    def __init__(self, **fields: Any) -> None:
        self.rule = CaptchaRule(image="#c", **fields)

    def image(self) -> Any:
        return ("image",)

    def submit(self, answer: str) -> Any:
        return ("submit", answer)

    def solved(self) -> Any:
        return ("solved",)

    def renew(self) -> Any:
        return ("renew",)


class Solve:
    """A solve under way: say() what came of a step, and get the next one."""

    def __init__(self, max_attempts: int = 3, **fields: Any) -> None:
        self.told: list[str] = []
        read: Any = lambda image: ("read", image)  # noqa: E731
        self.steps = solve(FakeChallenge(**fields), read, self.told.append, max_attempts)
        self.step = next(self.steps)

    def say(self, *values: Any) -> list[Any]:
        """The steps that follow when *values* are what came of the steps so far."""
        seen = []
        for value in values:
            self.step = self.steps.send(value)
            seen.append(self.step)
        return seen

    def end(self, value: Any) -> CaptchaResult:
        """The result, *value* being what came of the last step."""
        with pytest.raises(StopIteration) as stop:
            self.steps.send(value)
        result: CaptchaResult = stop.value.value
        return result


def facts(result: CaptchaResult) -> tuple[str, int, bytes]:
    return result.answer, result.attempts, result.image


def test_right_first_time() -> None:
    solving = Solve()
    assert solving.step == ("image",)
    assert solving.say(b"1", " ab 12", None) == [("read", b"1"), ("submit", "ab12"), ("solved",)]
    assert solving.told == []
    result = solving.end(True)
    assert facts(result) == ("ab12", 1, b"1")
    assert result.elapsed >= 0
    assert solving.told == ["accepted"]


def test_wrong_then_right() -> None:
    solving = Solve()
    assert solving.say(b"1", "x", None, False, True, b"2", "y", None) == [
        ("read", b"1"),
        ("submit", "x"),
        ("solved",),
        ("renew",),
        ("image",),
        ("read", b"2"),
        ("submit", "y"),
        ("solved",),
    ]
    assert solving.told == ["rejected"]
    assert facts(solving.end(True)) == ("y", 2, b"2")
    assert solving.told == ["rejected", "accepted"]


def replaced(solving: Solve) -> Any:
    """The step that follows when another image stands there as the answer is to be sent."""
    return solving.steps.throw(ImageReplaced())


def test_an_image_that_the_page_replaces_is_no_attempt() -> None:
    solving = Solve(max_attempts=1)
    solving.say(b"1", "x")
    assert replaced(solving) == ("renew",)
    solving.say(True, b"2", "y", None)
    assert facts(solving.end(True)) == ("y", 1, b"2")
    assert solving.told == ["unsent", "accepted"]


def test_a_page_that_replaces_each_image_is_not_paid_for_without_end() -> None:
    solving = Solve(max_attempts=2)
    solving.say(b"1", "x")
    for image in (b"2", b"3"):
        assert replaced(solving) == ("renew",)
        solving.say(True, image, "y")
    with pytest.raises(CaptchaUnsolved, match="3 images replaced") as caught:
        replaced(solving)
    assert caught.value.attempts == 0
    assert solving.told == ["unsent"] * 3


def test_unreadable_then_right() -> None:
    solving = Solve(answer="[0-9]{4}")
    assert solving.say(b"1", "73", True, b"2", "7364", None) == [
        ("read", b"1"),
        ("renew",),
        ("image",),
        ("read", b"2"),
        ("submit", "7364"),
        ("solved",),
    ]
    assert facts(solving.end(True)) == ("7364", 1, b"2")
    assert solving.told == ["unreadable", "accepted"]


WRONG = (b"i", "x", None, False)
UNSENT = (b"i", "x", None, None)
UNREADABLE = (b"i", "")


@pytest.mark.parametrize(
    ("max_attempts", "rounds", "attempts", "told", "message"),
    [
        (1, [WRONG], 1, ["rejected"], "1 answers refused, 0 images unreadable, the last one"),
        (2, [WRONG] * 2, 2, ["rejected"] * 2, "2 answers refused, 0 images unreadable"),
        (1, [UNREADABLE], 0, ["unreadable"], "0 answers refused, 1 images unreadable"),
        (3, [UNREADABLE] * 3, 0, ["unreadable"] * 3, "0 answers refused, 3 images unreadable"),
        (
            3,
            [UNREADABLE, WRONG, UNSENT],
            2,
            ["unreadable", "rejected", "unsent"],
            "1 answers refused, 1 images unreadable, 1 answers not sent",
        ),
    ],
)
def test_attempts_used_up(
    max_attempts: int, rounds: list[Any], attempts: int, told: list[str], message: str
) -> None:
    solving = Solve(max_attempts)
    values = [value for values in rounds for value in (*values, True)]
    with pytest.raises(CaptchaUnsolved) as caught:
        solving.say(*values[:-1])
    assert str(caught.value).startswith(f"The captcha was not solved: {message}")
    error = caught.value
    assert (error.attempts, error.url, error.selector) == (attempts, URL, "#c")
    assert solving.told == told
    assert solving.step != ("renew",)  # no fresh image is fetched for nobody


@pytest.mark.parametrize(
    ("values", "expected"),
    [(WRONG, ("", 1, b"i")), (UNSENT, ("", 1, b"i")), (UNREADABLE, ("", 0, b"i"))],
)
def test_a_text_that_was_refused_is_never_the_answer(
    values: tuple[Any, ...], expected: tuple[str, int, bytes]
) -> None:
    solving = Solve()
    solving.say(*values)
    assert solving.step == ("renew",)
    assert facts(solving.end(False)) == expected


@pytest.mark.parametrize("step", range(5))
def test_an_error_at_any_step_ends_the_loop(step: int) -> None:
    solving = Solve()
    solving.say(*[b"1", "x", None, False][:step])
    error = CaptchaError("no")
    with pytest.raises(CaptchaError) as caught:
        solving.steps.throw(error)
    assert caught.value is error
    # What was read is told of, though nobody knows what the site made of it.
    assert solving.told == [[], [], ["unsent"], ["unsent"], ["rejected"]][step]
    with pytest.raises(StopIteration):
        next(solving.steps)


# Drivers


def run_async(steps: Steps[Any]) -> Any:
    return run(drive_async(steps))


drivers = pytest.mark.parametrize("driver", [drive, run_async])


@drivers
def test_both_drivers_run_the_loop(driver: Callable[[Any], Any]) -> None:
    class Site(FakeChallenge):
        """Takes the second answer; two of its methods are generators themselves."""

        image_number = 0
        answer = ""

        def image(self) -> Any:
            self.image_number += 1
            return b"%d" % self.image_number

        def submit(self, answer: str) -> Generator[Any, Any, None]:
            self.answer = yield answer

        def solved(self) -> Generator[Any, Any, bool]:
            def nested() -> Generator[Any, Any, bool]:
                return (yield self.answer == "text 2".replace(" ", ""))

            return (yield nested())

        def renew(self) -> bool:
            return True

    told: list[str] = []
    result = driver(solve(Site(), lambda image: f"text {image.decode()}", told.append, 3))
    assert facts(result) == ("text2", 2, b"2")
    assert told == ["rejected", "accepted"]


@drivers
def test_drivers_give_back_what_was_yielded(driver: Callable[[Any], Any]) -> None:
    def steps() -> Generator[Any, Any, list[Any]]:
        return [(yield 1), (yield None), (yield [2]), (yield "x")]

    assert driver(steps()) == [1, None, [2], "x"]


@drivers
def test_errors_of_nested_generators_are_thrown_in(driver: Callable[[Any], Any]) -> None:
    def broken() -> Generator[Any, Any, None]:
        yield
        raise CaptchaError("broken")

    def steps() -> Generator[Any, Any, list[str]]:
        caught = []
        for _ in range(2):
            try:
                yield broken()
            except CaptchaError as error:
                caught.append(str(error))
        return [*caught, (yield "on it goes")]

    assert driver(steps()) == ["broken", "broken", "on it goes"]


@drivers
def test_errors_that_nobody_catches_come_out(driver: Callable[[Any], Any]) -> None:
    def broken() -> Generator[Any, Any, None]:
        raise CaptchaError("broken")
        yield

    def steps() -> Generator[Any, Any, None]:
        yield broken()

    with pytest.raises(CaptchaError, match=r"^broken$"):
        driver(steps())


def test_the_async_driver_awaits() -> None:
    async def coroutine(value: str) -> str:
        await asyncio.sleep(0)
        return value

    async def failing() -> None:
        await asyncio.sleep(0)
        raise CaptchaError("failed")

    def nested() -> Generator[Any, Any, str]:
        return (yield coroutine("nested"))

    def steps() -> Generator[Any, Any, list[str]]:
        future = asyncio.get_running_loop().create_future()
        future.set_result("future")
        seen = [(yield coroutine("coroutine")), (yield future), (yield nested())]
        try:
            yield failing()
        except CaptchaError as error:
            seen.append(str(error))
        return seen

    assert run_async(steps()) == ["coroutine", "future", "nested", "failed"]


def test_cancelling_the_async_driver_ends_the_generators() -> None:
    events: list[str] = []

    async def main() -> None:
        waits = asyncio.Event()

        async def forever() -> None:
            waits.set()
            await asyncio.Event().wait()

        def noting(name: str, inner: Any) -> Generator[Any, Any, None]:
            try:
                yield inner()
            except asyncio.CancelledError:
                events.append(f"{name} cancelled")
                raise
            finally:
                events.append(f"{name} over")

        task = asyncio.create_task(drive_async(noting("outer", lambda: noting("inner", forever))))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())
    assert events == ["inner cancelled", "inner over", "outer cancelled", "outer over"]


def test_closing_the_async_driver_closes_the_generator() -> None:
    events: list[str] = []

    class Never:
        def __await__(self) -> Generator[Any, Any, None]:
            yield

    def steps() -> Generator[Any, Any, None]:
        try:
            yield Never()
        finally:
            events.append("over")

    driving = drive_async(steps())
    driving.send(None)
    assert events == []
    driving.close()
    assert events == ["over"]


def test_interrupting_the_sync_driver_closes_the_generator() -> None:
    events: list[str] = []

    def interrupted() -> Generator[Any, Any, None]:
        raise KeyboardInterrupt
        yield

    def steps() -> Generator[Any, Any, None]:
        try:
            yield interrupted()
        finally:
            events.append("over")

    with pytest.raises(KeyboardInterrupt):
        drive(steps())
    assert events == ["over"]
