"""Many workers: one queue and one budget in Redis, a browsing session each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from captcha.image import ImageCaptcha

from example_project.data import COMPANIES
from example_project.site import create_register
from scrapy_acecaptcha.recognition.sandbox import LocalServer, Sandbox
from tests.cluster import Cluster, wait_until
from tests.crawl_process import ROOT
from tests.redis_server import RedisServer
from tests.site import CaptchaSite, Seen
from tests.stub import ApiStub

CONCURRENT = 4  # requests of a worker

pytestmark = pytest.mark.slow

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def cluster(
    site: CaptchaSite, redis_server: RedisServer, settings: Any, tmp_path: Path
) -> Iterator[MakeCluster]:
    """Make a cluster for some records of a scenario: cluster("inplace", 100)."""
    with ExitStack() as stack:

        def make(scenario: str, records: int, **more: Any) -> Cluster:
            listing = f"{site.url}/{scenario}/?n={records}"
            config = settings(scenario, **{"CONCURRENT_REQUESTS": CONCURRENT, **more})
            made = stack.enter_context(Cluster(redis_server.url, listing, config, tmp_path))
            made.redis.flushall()
            return made

        yield make


class Door:
    """The site's door, where a worker has to wait once it has asked for so many records."""

    def __init__(self, site: CaptchaSite, **most: int) -> None:
        self._most = most
        self._came: Counter[str] = Counter()
        self._opened: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._lock = threading.Lock()
        self.asked: defaultdict[str, set[str]] = defaultdict(set)
        self.waiting: defaultdict[str, list[str]] = defaultdict(list)
        site.on_request = self

    def __call__(self, seen: Seen) -> None:
        if "/record/" not in seen.path:
            return
        name, record = worker(seen), f"Record {seen.path.split('/')[-1]}"
        with self._lock:
            self.asked[name].add(record)
            self._came[name] += 1
            waits = self._came[name] > self._most.get(name, 1000)
            if waits:
                self.waiting[name].append(record)
        if waits:
            self._opened[name].wait(100)

    def open(self, name: str) -> None:
        self._opened[name].set()


def worker(seen: Seen) -> str:
    return seen.headers["User-Agent"]


def once(count: int) -> Counter[str]:
    return Counter(f"Record {i}" for i in range(count))


def test_a_killed_worker_loses_what_it_had_in_its_hands_and_nothing_else(
    site: CaptchaSite, api: ApiStub, cluster: MakeCluster
) -> None:
    crowd = cluster("inplace", 100)
    door = Door(site, first=30, second=30)
    crowd.start("first", "second")
    wait_until(lambda: len(door.waiting["first"]) == CONCURRENT)
    wait_until(lambda: len(door.waiting["second"]) == CONCURRENT)
    in_hands, of_second = set(door.waiting["first"]), set(door.waiting["second"])
    let_out = (door.asked["first"] | door.asked["second"]) - in_hands - of_second
    wait_until(lambda: crowd.kept == Counter(let_out))  # the callbacks have them all
    crowd.kill("first")
    crowd.start("again")
    wait_until(lambda: bool(door.asked["again"]))
    door.open("second")
    assert crowd.finish("second", "again") == {"finished"}
    assert crowd.kept == once(100) - Counter(in_hands)
    assert len(in_hands) == CONCURRENT
    assert len(api.calls) == 3, "one for each worker's session"


def test_a_worker_that_is_told_to_stop_loses_nothing(api: ApiStub, cluster: MakeCluster) -> None:
    crowd = cluster("inplace", 60)
    api.gate.clear()
    crowd.start("first")
    api.wait_for(1, timeout=60)  # one request pays, others of its session wait for it
    crowd.stop("first")
    assert crowd.finish("first") == {"shutdown"}
    assert (len(crowd.queue), len(crowd.kept)) == (60, 0)
    api.gate.set()
    crowd.start("second")
    assert crowd.finish("second") == {"finished"}
    assert crowd.kept == once(60)


def test_a_worker_that_waits_for_its_captcha_leaves_the_queue_to_others(
    api: ApiStub, cluster: MakeCluster
) -> None:
    answer = threading.Event()

    def at_once(image: bytes) -> str:
        return api.answers(image) or ""

    def late(image: bytes) -> str:
        answer.wait(100)
        return at_once(image)

    api.script += [at_once, late]
    crowd = cluster("every_k", 60)
    crowd.start("first")
    api.wait_for(2, timeout=60)  # a session is good for ten records, then its gate is shut again
    crowd.start("second")
    crowd.finish("second")
    assert len(crowd.kept) == 60 - CONCURRENT
    answer.set()
    crowd.finish("first")
    assert crowd.kept == once(60)


def test_who_was_redirected_follows_the_redirect(
    site: CaptchaSite, api: ApiStub, cluster: MakeCluster
) -> None:
    crowd = cluster("redirect", 200)
    crowd.start("first", "second")
    crowd.finish("first", "second")
    assert crowd.kept == once(200)
    assert len(api.calls) == len({worker(seen) for seen in site.requests}) == 2
    sent_away = set()
    for seen in site.requests:
        if "/record/" in seen.path:
            sent_away.add((worker(seen), f"next={seen.path}"))
        elif seen.path == "/redirect/check":
            assert (worker(seen), seen.query) in sent_away


def test_another_workers_redirect_is_not_paid_for(
    site: CaptchaSite, api: ApiStub, cluster: MakeCluster
) -> None:
    crowd = cluster("redirect", 40, CONCURRENT_REQUESTS=1)
    door = Door(site, first=0, second=10)
    crowd.start("first", "second")
    wait_until(lambda: bool(door.waiting["first"] and door.waiting["second"]))
    crowd.stop("first")
    door.open("first")
    crowd.finish("first")
    assert sum("redirect_urls" in request["meta"] for request in crowd.queue) == 1
    door.open("second")
    crowd.finish("second")
    assert crowd.kept == once(40)
    assert len(api.calls) == 1


def test_the_budget_is_never_overshot_and_nothing_is_lost_when_it_is_used_up(
    api: ApiStub, cluster: MakeCluster
) -> None:
    api.latency = 0.2  # seconds, so that calls are under way when the last one is granted
    crowd = cluster("inplace", 60, JARS=60, ACECAPTCHA_BUDGET=25)  # each record is to be paid for
    crowd.start("first", "second")
    assert crowd.finish("first", "second") == {"acecaptcha_budget_exhausted"}
    assert len(api.calls) == len(crowd.kept) == 25
    assert len(crowd.queue) == 35
    crowd.start("first", "second", ACECAPTCHA_BUDGET=60)
    assert crowd.finish("first", "second") == {"finished"}
    assert crowd.kept == once(60)
    assert len(api.calls) == 60


def test_the_example_as_its_settings_say(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[bytes, str] = {}
    generate = ImageCaptcha.generate

    def noted(self: ImageCaptcha, text: str, *args: Any) -> Any:
        image = generate(self, text, *args)
        answers[image.getvalue()] = text
        return image

    monkeypatch.setattr(ImageCaptcha, "generate", noted)
    with (
        LocalServer(create_register()) as register,
        Sandbox(recognise=answers.__getitem__) as sandbox,
    ):
        environ = {
            **os.environ,
            **sandbox.environ,
            "EXAMPLE_REGISTER_PORT": str(register.port),
            "REDIS_URL": redis_server.url,
            "SCRAPY_SETTINGS_MODULE": "registry.settings_cluster",
        }
        command = [sys.executable, "-m", "scrapy", "crawl", "register"]
        command += ["-s", "CLUSTER_IDLE_SECONDS=3"]
        command += ["-s", f"ACECAPTCHA_JOURNAL={tmp_path / 'journal.db'}", "-O"]
        files = [tmp_path / "one.jl", tmp_path / "other.jl"]
        workers = [
            subprocess.Popen([*command, str(file)], cwd=ROOT / "example_project", env=environ)
            for file in files
        ]
        try:
            assert [process.wait(120) for process in workers] == [0, 0]
        finally:
            for process in workers:
                process.kill()
    items = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sorted(item["number"] for item in items) == sorted(c.number for c in COMPANIES)


def test_the_table_in_the_docs_is_what_its_formula_says() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    namespace: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.S)[0], namespace)
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+ \| [\d.| ]+) \|$", page, re.M)
    assert len(rows) == 6
    for per_captcha, api_seconds, rest in rows:
        planned = namespace["plan"](1_000_000, int(per_captcha), int(api_seconds))
        assert [str(value) for value in planned.values()] == rest.split(" | ")
