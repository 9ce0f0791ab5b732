"""Workers under scrapy-redis, each in a process of its own, with the example's settings.

Run as ``python -m tests.cluster NAME LISTING SETTINGS``. A worker tells the site its name in the
User-Agent header. As a module this is also the serializer of the workers' queue, one that is
stricter than pickle: what it lets pass would survive JSON as well.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from scrapy import Request, Spider
from scrapy.http import Response

from tests.crawl_process import ROOT
from tests.crawling import BASE_SETTINGS

NAME = "clustered"
KEPT = f"{NAME}:kept"  # Redis list: records, each when a callback has it
ENDS = f"{NAME}:ends"  # Redis hash: worker -> reason of its end


def dumps(request: dict[str, Any]) -> bytes:
    _check(request["meta"])
    return pickle.dumps(request)


def loads(data: bytes) -> dict[str, Any]:
    request: dict[str, Any] = pickle.loads(data)
    return request


def _check(value: Any) -> None:
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value), value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            _check(part)
    else:
        assert value is None or isinstance(value, (str, int, float, bool)), repr(value)


class ClusteredSpider(Spider):
    """Follows a listing to its records, in as many browsing sessions as the setting JARS says."""

    name = NAME
    listing: str

    async def start(self) -> Any:
        self.redis: Any = redis.Redis.from_url(self.settings["REDIS_URL"])
        yield Request(self.listing)

    def parse(self, response: Any, **kwargs: Any) -> Iterator[Request]:
        for number, link in enumerate(response.css("a.record")):
            meta = {"cookiejar": number % self.settings.getint("JARS", 1)}
            yield response.follow(link, self.keep, meta=meta)

    def keep(self, response: Response) -> None:
        self.redis.rpush(KEPT, response.css("h1.record::text").get("no record"))

    def closed(self, reason: str) -> None:
        self.redis.hset(ENDS, self.settings["USER_AGENT"], reason)


class Cluster:
    """The workers that crawl one listing, and what came of it; none outlives the ``with`` block."""

    def __init__(
        self, redis_url: str, listing: str, settings: dict[str, Any], folder: Path
    ) -> None:
        self.redis_url = redis_url
        self.redis: Any = redis.Redis.from_url(redis_url)
        self._listing = listing
        self._settings = {"ACECAPTCHA_JOURNAL": str(folder / "journal.db"), **settings}
        self._folder = folder
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.kill()
            worker.wait()
        self.redis.close()

    def start(self, *names: str, **settings: Any) -> None:
        """Start workers called *names*."""
        for name in names:
            arguments = [name, self._listing, json.dumps({**self._settings, **settings})]
            with self._log(name).open("wb") as log:
                self._workers[name] = subprocess.Popen(
                    [sys.executable, "-m", "tests.cluster", *arguments],
                    cwd=ROOT,
                    env={
                        **os.environ,
                        "PYTHONPATH": "example_project",
                        "REDIS_URL": self.redis_url,
                    },
                    stderr=log,
                )

    def kill(self, name: str) -> None:
        """``kill -9``."""
        self._workers[name].kill()
        self._workers[name].wait()

    def stop(self, name: str) -> None:
        """Tell a worker to stop, and see that it has begun to."""
        self._workers[name].terminate()
        wait_until(lambda: "Received SIGTERM" in self._log(name).read_text())

    def finish(self, *names: str) -> set[str]:
        """Wait until workers have come to their end; return the reasons for it."""
        for name in names:
            code = self._workers[name].wait(timeout=120)
            log = self._log(name).read_text()
            assert code == 0, log[-3000:]
            assert "Traceback" not in log, log[-3000:]
        return {reason.decode() for reason in self.redis.hmget(ENDS, names)}

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    @property
    def kept(self) -> Counter[str]:
        """Records that reached a callback, and how often."""
        return Counter(record.decode() for record in self.redis.lrange(KEPT, 0, -1))

    @property
    def queue(self) -> list[dict[str, Any]]:
        """Requests in Redis."""
        return [loads(data) for data in self.redis.zrange(f"{NAME}:requests", 0, -1)]


def wait_until(condition: Callable[[], bool], timeout: float = 60) -> None:
    """Wait for what is bound to happen."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def main() -> None:
    name, listing, settings = sys.argv[1:]
    from registry import settings_cluster  # the example's own, on the path of workers only
    from scrapy.core.engine import ExecutionEngine
    from scrapy.crawler import CrawlerProcess

    ExecutionEngine._SLOT_HEARTBEAT_INTERVAL = 0.5  # seconds: idle workers look sooner for work
    of_example = {key: getattr(settings_cluster, key) for key in dir(settings_cluster)}
    process = CrawlerProcess(
        {
            **{key: value for key, value in of_example.items() if key.isupper()},
            **BASE_SETTINGS,
            "LOG_LEVEL": "INFO",
            "SCHEDULER_SERIALIZER": "tests.cluster",
            "ACECAPTCHA_MAX_HELD": 0,  # the queue is shared
            "CONCURRENT_REQUESTS": 4,
            "CLUSTER_IDLE_SECONDS": 2,
            "USER_AGENT": name,
            **json.loads(settings),
        }
    )
    process.crawl(ClusteredSpider, listing=listing)
    process.start()


if __name__ == "__main__":
    main()
