"""The local reader: it goes first, as long as that is worth it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred

from scrapy_acecaptcha import AceCaptchaClient, CaptchaRule, SettingsError, Solver
from scrapy_acecaptcha.recognition.local import pays_off
from tests.crawling import run_crawl
from tests.event_loop import run
from tests.site import CaptchaSite
from tests.stub import ApiStub

HOST = "records.example.org"


def free_readings(path: Path) -> Counter[tuple[str, str]]:
    with sqlite3.connect(path) as db:
        return Counter(db.execute("SELECT source, outcome FROM free_readings"))


class Captchas:
    """Captchas in a row whose texts are their numbers; the API is right in 9 of 10."""

    url = f"https://{HOST}/"

    def __init__(self, api: ApiStub, seed: int = 1) -> None:
        self.number = 0
        self.random = random.Random(seed)
        api.answers = lambda image: image.decode() if self.random.random() < 0.9 else "wrong"
        self.wrong = 0

    def image(self) -> bytes:
        self.number += 1
        return b"%d" % self.number

    def submit(self, answer: str) -> None:
        self.answer = answer

    def solved(self) -> bool:
        right = self.answer == str(self.number)
        self.wrong += not right
        return right

    def renew(self) -> bool:
        return True

    def reader(self, agree: float, right: float) -> Callable[[bytes], str | None]:
        """Answers so many of the images, and so many of these right."""
        dice = random.Random(2)

        def read(image: bytes) -> str | None:
            if dice.random() >= agree:
                return None
            return image.decode() if dice.random() < right else "amiss"

        return read


class TestPaysOff:
    @pytest.mark.parametrize(
        ("right", "wrong", "api", "pays"),
        [
            (0, 0, (0, 0), True),  # unknown: tried
            (0, 1, (0, 0), False),  # one refused answer ends that,
            (2, 1, (0, 0), True),  # until two others have proved right
            (1, 1, (0, 0), False),
            (92, 8, (90, 10), True),  # four digits
            (68, 32, (90, 10), False),  # five letters and digits
            (82, 18, (90, 10), True),
            (79, 21, (90, 10), False),
            (82, 18, (100, 0), False),  # where the API is better, so must this be
            (50, 50, (45, 55), True),  # and where the API is bad, it may be bad, too
            (0, 100, (0, 100), False),
        ],
    )
    def test_table(self, right: int, wrong: int, api: tuple[int, int], pays: bool) -> None:
        assert pays_off(right, wrong, api_right=api[0], api_wrong=api[1]) is pays


class TestScript:
    def test_read(self, api: ApiStub, client: AceCaptchaClient, path: Path) -> None:
        api.script += ["2", "3"]
        reader = {b"1": "1", b"3": "x"}.get
        with Solver(client=client, journal=path, local_reader=reader) as solver:
            text = solver.read(b"1", url=f"https://{HOST}/")
            text.accepted()
            assert (text, text.is_local) == ("1", True)
            text = solver.read(b"2", url=f"https://{HOST}/")
            assert (text, text.is_local) == ("2", False)
            solver.read(b"3", url=f"https://{HOST}/").refused()
            assert solver.read(b"3", url=f"https://{HOST}/") == "3"
            assert solver.counts == {
                "api_requests": 2,
                "local_accepted": 1,
                "local_refused": 1,
                "rejected": 1,
            }
        assert free_readings(path) == {("local", "accepted"): 1, ("local", "rejected"): 1}

    def test_the_budget_is_for_calls(self, api: ApiStub, client: AceCaptchaClient) -> None:
        with Solver(client=client, budget=1, local_reader=bytes.decode) as solver:
            for image in (b"1", b"2", b"3"):
                solver.read(image).accepted()
            assert solver.recognizer.budget.spent == 0

    def test_good_at_four_digits(self, api: ApiStub, client: AceCaptchaClient, path: Path) -> None:
        captchas = Captchas(api)
        reader = captchas.reader(agree=0.78, right=0.92)
        with Solver(client=client, journal=path, local_reader=reader) as solver:
            for _ in range(200):
                solver.solve(captchas)
            counts = solver.counts
        assert len(api.calls) == counts["api_requests"] < 200 * 0.4
        assert captchas.wrong == counts["rejected"] <= 200 * 0.15
        assert free_readings(path)["local", "accepted"] == counts["local_accepted"] > 120

    def test_bad_at_five_letters(self, api: ApiStub, client: AceCaptchaClient, path: Path) -> None:
        captchas = Captchas(api)
        reader = captchas.reader(agree=0.16, right=0.68)
        with Solver(client=client, journal=path, local_reader=reader) as solver:
            for _ in range(200):
                solver.solve(captchas)
            assert solver.counts["local_refused"] <= 4

    def test_what_was_learned_is_remembered(
        self, api: ApiStub, client: AceCaptchaClient, path: Path
    ) -> None:
        captchas = Captchas(api)
        for expected in (1, 0, 0):  # a useless reader is tried once, and never again
            with Solver(client=client, journal=path, local_reader=lambda _: "amiss") as solver:
                for _ in range(5):
                    solver.solve(captchas)
                assert solver.counts["local_refused"] == expected
                solver.solve(captchas)
        assert free_readings(path)["compared", "rejected"] > 10

    def test_a_reader_that_gets_better_is_noticed_for_nothing(
        self, api: ApiStub, client: AceCaptchaClient
    ) -> None:
        captchas = Captchas(api)
        texts = ["amiss"]
        reader = lambda image: texts.pop() if texts else image.decode()  # noqa: E731
        with Solver(client=client, local_reader=reader) as solver:
            for _ in range(20):
                solver.solve(captchas)
            assert solver.counts["local_refused"] == 1
            assert solver.counts["local_accepted"] >= 15

    def test_after_a_refused_text_the_api_reads(
        self, api: ApiStub, client: AceCaptchaClient
    ) -> None:
        captchas = Captchas(api)
        read = []

        def reader(image: bytes) -> str:
            read.append(image)
            return "amiss" if len(read) > 90 else image.decode()

        with Solver(client=client, local_reader=reader) as solver:
            for _ in range(90):
                assert solver.solve(captchas).attempts == 1
            assert api.calls == []
            result = solver.solve(captchas, session=1)
        assert [call.image for call in api.calls][:1] == [b"92"]
        assert result.attempts >= 2

    def test_a_text_that_does_not_fit_the_rule(
        self, api: ApiStub, client: AceCaptchaClient
    ) -> None:
        captchas = Captchas(api)
        api.answers = bytes.decode
        captchas.rule = CaptchaRule(image="auto", answer=r"\d+")  # type: ignore[attr-defined]
        solver = Solver(client=client, local_reader=lambda _: "amiss")
        assert solver.solve(captchas).attempts == 1
        assert captchas.wrong == 0

    def test_many_at_once_on_a_host_that_nobody_knows(
        self, api: ApiStub, client: AceCaptchaClient
    ) -> None:
        """Only one tries what the site says to a local text; the others ask the API."""
        challenges = [Captchas(api, seed=i) for i in range(12)]
        api.answers = bytes.decode

        async def together(solver: Solver) -> None:
            await asyncio.gather(*(solver.solve(cast(Any, _Slow(c))) for c in challenges))

        with Solver(client=client, local_reader=lambda _: "amiss") as solver:
            run(together(solver))
            assert solver.counts["local_refused"] == 1

    def test_many_at_once_on_a_host_where_it_has_proved_right(
        self, api: ApiStub, client: AceCaptchaClient
    ) -> None:
        async def together(solver: Solver) -> None:
            challenges = [_Slow(Captchas(api, seed=i)) for i in range(32)]
            await asyncio.gather(*(solver.solve(cast(Any, c)) for c in challenges))

        with Solver(client=client, local_reader=bytes.decode) as solver:
            for _ in range(8):
                solver.solve(Captchas(api))
            run(together(solver))
            assert solver.counts == {"local_accepted": 40}
        assert api.calls == []


class _Slow:
    """A challenge whose verdict comes when all have read."""

    def __init__(self, challenge: Captchas) -> None:
        self.image, self.submit, self.renew = challenge.image, challenge.submit, challenge.renew
        self.url = challenge.url
        self._solved = challenge.solved

    async def solved(self) -> bool:
        await asyncio.sleep(0.1)
        return self._solved()


class TestReader:
    def test_one_that_fails(
        self, api: ApiStub, client: AceCaptchaClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        api.script += ["1", "2", "3"]
        replies: list[Any] = [7, b"x"]
        solver = Solver(client=client, local_reader=lambda _: replies.pop())
        assert [solver.read(b"1"), solver.read(b"2"), solver.read(b"3")] == ["1", "2", "3"]
        (record,) = caplog.records
        assert "local reader failed" in record.getMessage()

    def test_not_in_the_callers_thread_and_not_more_than_there_are_cores(
        self, client: AceCaptchaClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        barrier = threading.Barrier(2, timeout=10)  # two do read at a time
        lock = threading.Lock()
        reading = most = 0
        threads = set()

        def reader(image: bytes) -> str:
            nonlocal reading, most
            threads.add(threading.current_thread().name)
            with lock:
                reading += 1
                most = max(most, reading)
            barrier.wait()
            with lock:
                reading -= 1
            return "x"

        async def together(solver: Solver) -> None:
            await asyncio.gather(*(solver.read_async(b"%d" % i) for i in range(8)))

        run(together(Solver(client=client, local_reader=reader)))
        assert most == 2
        assert threads == {"acecaptcha"}

    @pytest.mark.parametrize(
        ("reader", "message"),
        [
            ("tests.nowhere", "dotted path"),
            ("nonsense", "dotted path"),
            ("tests.crawling.TOKEN", "not a plain callable"),
            (3, "not a plain callable"),
            (Solver.read_async, "not a plain callable"),
        ],
    )
    def test_no_reader(self, client: AceCaptchaClient, reader: Any, message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            Solver(client=client, local_reader=reader)

    def test_dotted_path(self, client: AceCaptchaClient) -> None:
        solver = Solver(client=client, local_reader="builtins.bytes.decode")
        assert solver.read(b"1") == "1"

    def test_the_extra_is_missing(
        self, client: AceCaptchaClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(SettingsError, match=r"scrapy-acecaptcha\[local\]"):
            Solver(client=client, local_reader="ddddocr")

    def test_ddddocr(self, site: CaptchaSite, api: ApiStub, client: AceCaptchaClient) -> None:
        image = site.gallery.png("7364")
        api.script += ["API", "API", "API"]
        with Solver(client=client, local_reader="ddddocr") as solver:
            text = solver.read(image)
            assert (text, text.is_local) == ("7364", True)
            assert solver.read(b"no image") == "API"
            assert solver.read(site.gallery.png("")) == "API"

    def test_nothing_is_imported_where_it_is_off(self) -> None:
        code = (
            "import sys, scrapy_acecaptcha as a;"
            "a.Solver(client=a.AceCaptchaClient('token'));"
            "sys.exit('ddddocr' in sys.modules or 'PIL' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@ensureDeferred
async def test_in_a_crawl(site: CaptchaSite, api: ApiStub, settings: Any, path: Path) -> None:
    def reader(image: bytes) -> str | None:
        return site.answers(image)

    crawl = await run_crawl(
        [f"{site.url}/redirect/?n=5"],
        settings(
            "redirect",
            ACECAPTCHA_LOCAL_READER=reader,
            ACECAPTCHA_JOURNAL=str(path),
        ),
    )
    assert crawl.stats["local_accepted"] == crawl.stats["solved"] > 0
    assert "api_requests" not in crawl.stats
    assert api.calls == []
    assert free_readings(path) == {("local", "accepted"): crawl.stats["solved"]}


EXIT_WHILE_READING = """
import atexit, sys, threading, time
from scrapy_acecaptcha import AceCaptchaClient, Solver

begun = threading.Event()

def read(image):
    begun.set()
    time.sleep(0.3)
    print("read", flush=True)

solver = Solver(client=AceCaptchaClient("token", sys.argv[1], retries=0), local_reader=read)
threading.Thread(target=lambda: solver.read(b"1", url="https://example.org/"), daemon=True).start()
begun.wait(10)
"""


def test_a_reading_under_way_ends_before_the_process_does(api: ApiStub) -> None:
    """Else a model's own threads end the process by an abort."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT_WHILE_READING, api.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "read\n")
