"""Budgets: never more calls than allowed, however many ask at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from scrapy_acecaptcha.errors import BudgetExhausted, SettingsError
from scrapy_acecaptcha.recognition import budget as budget_module
from scrapy_acecaptcha.recognition.budget import Budget, SharedBudget
from tests.redis_server import RedisServer

THREADS = 64
KEY = "acecaptcha:test"


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


def calls_granted(*budgets: Budget, each: int) -> int:
    """Let all threads ask *each* times at once and return how often the answer was yes."""
    barrier = threading.Barrier(THREADS)

    def ask(number: int) -> int:
        budget = budgets[number % len(budgets)]
        barrier.wait()
        granted = 0
        for _ in range(each):
            try:
                budget.spend()
            except BudgetExhausted:
                continue
            granted += 1
        return granted

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(threads.map(ask, range(THREADS)))


class TestBudget:
    def test_threads_never_overshoot(self) -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            budget = Budget(1000)
            assert calls_granted(budget, each=100) == 1000
        finally:
            sys.setswitchinterval(interval)
        assert budget.spent == 1000

    def test_no_limit_still_counts(self) -> None:
        budget = Budget(0)
        assert calls_granted(budget, each=10) == 640
        assert budget.spent == 640

    def test_what_was_spent_before_counts(self) -> None:
        budget = Budget(3, spent=2)
        budget.spend()
        with pytest.raises(BudgetExhausted):
            budget.spend()

    def test_spent_beyond_a_lowered_limit(self) -> None:
        with pytest.raises(BudgetExhausted):
            Budget(3, spent=5).spend()

    def test_message_names_the_budget(self) -> None:
        budget = Budget(1, name="the budget of the rule for example.org")
        budget.spend()
        with pytest.raises(BudgetExhausted, match=r"rule for example\.org is used up: all 1 API"):
            budget.spend()

    def test_negative_limit(self) -> None:
        with pytest.raises(SettingsError, match="ACECAPTCHA_BUDGET must be"):
            Budget(-1)


WORKER = """
import sys
from scrapy_acecaptcha.recognition.budget import SharedBudget
from scrapy_acecaptcha.errors import BudgetExhausted

budget = SharedBudget(500, sys.argv[1], "acecaptcha:test")
granted = 0
try:
    while True:
        budget.spend()
        granted += 1
except BudgetExhausted:
    print(granted)
"""


class TestSharedBudget:
    def test_workers_and_threads_never_overshoot(self, url: str) -> None:
        workers = [SharedBudget(1000, url, KEY) for _ in range(4)]
        assert calls_granted(*workers, each=30) == 1000
        assert {worker.spent for worker in workers} == {1000}
        for worker in workers:
            worker.close()

    @pytest.mark.slow
    def test_processes_never_overshoot(self, url: str) -> None:
        processes = [
            subprocess.Popen([sys.executable, "-c", WORKER, url], stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        granted = [int(process.communicate(timeout=120)[0]) for process in processes]
        assert sum(granted) == 500

    def test_count_outlives_a_worker_and_a_raised_limit_goes_on(self, url: str) -> None:
        first = SharedBudget(2, url, KEY)
        first.spend()
        first.spend()
        with pytest.raises(BudgetExhausted, match="is used up: all 2 API calls"):
            first.spend()
        SharedBudget(3, url, KEY).spend()
        assert first.spent == 3
        with redis.Redis.from_url(url) as client:
            client.delete(KEY)
        anew = SharedBudget(1, url, KEY)
        anew.spend()
        assert anew.spent == 1

    def test_no_limit_still_counts(self, url: str) -> None:
        budget = SharedBudget(0, url, KEY)
        budget.spend()
        budget.spend()
        assert budget.spent == 2

    def test_keys_are_independent(self, url: str) -> None:
        SharedBudget(1, url, KEY).spend()
        SharedBudget(1, url, KEY + ":other").spend()

    def test_missing_extra(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)
        with pytest.raises(SettingsError, match=r"pip install 'scrapy-acecaptcha\[redis\]'"):
            SharedBudget(1, url, KEY)

    def test_no_server(self) -> None:
        with pytest.raises(SettingsError, match=r"redis://127\.0\.0\.1:1/3, cannot") as caught:
            SharedBudget(1, "redis://:secret@127.0.0.1:1/3?socket_timeout=1", KEY)
        assert "secret" not in str(caught.value)

    @pytest.mark.redis
    def test_wrong_password(self) -> None:
        with RedisServer(password="right-secret") as server:
            wrong = server.url.replace("right-secret", "wrong-secret")
            with pytest.raises(SettingsError, match="cannot count") as caught:
                SharedBudget(1, wrong, KEY)
            assert "wrong-secret" not in str(caught.value)
            SharedBudget(1, server.url, KEY).spend()

    @pytest.mark.parametrize(
        "url",
        ["http://localhost", "localhost", "redis://:secret/pass@host", "redis://:secret#1@host"],
    )
    def test_not_a_redis_url(self, url: str) -> None:
        with pytest.raises(SettingsError, match="is not a URL such as") as caught:
            SharedBudget(1, url, KEY)
        assert "secret" not in str(caught.value)

    def test_key_of_something_else(self, url: str) -> None:
        with redis.Redis.from_url(url) as client:
            client.lpush(KEY, "a")
            client.set(KEY + ":text", "a")
        for key in (KEY, KEY + ":text"):
            with pytest.raises(SettingsError, match=f"cannot count '{key}'"):
                SharedBudget(1, url, key)

    @pytest.mark.redis
    def test_lost_server_means_no(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(budget_module, "_RETRIES", 0)
        with RedisServer() as server:
            budget = SharedBudget(10, server.url, KEY)
            budget.spend()
            server.stop()
            with pytest.raises(BudgetExhausted, match="No call is sent without it"):
                budget.spend()

    @pytest.mark.redis
    def test_restarted_server_is_waited_for(self) -> None:
        with RedisServer() as server:
            budget = SharedBudget(10, server.url, KEY)
            budget.spend()
            server.stop()
            restart = threading.Timer(2, server.start)
            restart.start()
            budget.spend()
            restart.join()
            assert budget.spent == 2  # though the server kept nothing on disk

    def test_an_emptied_server_is_told_by_all_workers_what_they_took(self, url: str) -> None:
        workers = [SharedBudget(100, url, KEY) for _ in range(3)]
        for worker in workers:
            for _ in range(20):
                worker.spend()  # the first has never seen what the others took
        with redis.Redis.from_url(url) as client:
            client.flushall()
        granted = 60
        for worker in workers * 100:
            try:
                worker.spend()
            except BudgetExhausted:
                continue
            granted += 1
        assert granted == 100
        assert {worker.spent for worker in workers} == {100}
