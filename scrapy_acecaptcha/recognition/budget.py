"""Budgets: say yes or no before each call of the recognition API."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scrapy_acecaptcha.errors import BudgetExhausted, SettingsError

if TYPE_CHECKING:
    from redis import Redis

_SECONDS = 5.0  # for one answer of the Redis server
_RETRIES = 4  # after 1, 2, 4, 4 s: a server that is being restarted comes back


class Budget:
    """Most API calls that may be sent; any number of threads may ask.

    Where a call has to fit into two budgets, ask the narrower one first: what it refuses has not
    been taken from the wider one.

    :param limit: calls, 0 for no limit
    :param spent: calls sent before, in the part of the crawl before a pause for instance
    :param name: what the user knows it by, for the message
    :raises SettingsError: a limit below 0
    """

    def __init__(self, limit: int, *, spent: int = 0, name: str = "ACECAPTCHA_BUDGET") -> None:
        if limit < 0:
            raise SettingsError(f"{name} must be a number of calls, 0 for no limit, not {limit}")
        self.limit = limit
        self.name = name
        self._spent = spent
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.limit or 'no limit'}>"

    @property
    def spent(self) -> int:
        """Calls taken from the budget so far."""
        return self._spent

    def spend(self) -> None:
        """Take one call from the budget, before it is sent.

        :raises BudgetExhausted: there is none left
        """
        if not self._take():
            raise BudgetExhausted(
                f"{self.name} is used up: all {self.limit} API calls have been sent. Raise it to "
                "go on"
            )

    def close(self) -> None:
        """Close what the count is kept in."""

    def _take(self) -> bool:
        with self._lock:
            if self.limit and self._spent >= self.limit:
                return False
            self._spent += 1
            return True


class SharedBudget(Budget):
    """A budget that every worker draws on that names the same Redis server and key.

    The count stays in Redis when the crawl is over; delete the key to begin a new one. Asking waits
    for the server, so ask from the thread that sends the call and not from an event loop.

    :param limit: calls of all workers together, 0 for no limit
    :param url: as the redis package takes it: ``redis://[[user]:password@]host[:port][/db]``,
        ``rediss://`` for TLS or ``unix://`` for a socket
    :param key: name of the counter
    :raises SettingsError: the extra ``redis`` is missing, or the server cannot be used
    """

    # One step on the server, so that workers cannot overshoot between looking and taking. Beside
    # the count, the server knows what each worker has taken. One that lost its memory in a restart
    # is reminded by every worker of all that this one has seen, its own calls in any case.
    _TAKE = """
        if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
        for i = 3, #ARGV, 2 do
            local taken = tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or '0')
            if tonumber(ARGV[i + 1]) > taken then
                redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
            end
        end
        local spent, limit = 0, tonumber(ARGV[1])
        for _, taken in ipairs(redis.call('HVALS', KEYS[2])) do spent = spent + taken end
        spent = math.max(spent, tonumber(redis.call('GET', KEYS[1]) or '0'))
        local granted = (limit > 0 and spent >= limit) and 0 or 1
        redis.call('SET', KEYS[1], spent + granted)
        redis.call('HINCRBY', KEYS[2], ARGV[2], granted)
        return {granted, redis.call('HGETALL', KEYS[2])}
    """

    def __init__(self, limit: int, url: str, key: str, *, name: str = "ACECAPTCHA_BUDGET") -> None:
        super().__init__(limit, name=name)
        self.key = key
        self._redis = _connect(url, key)
        self._script = self._redis.register_script(self._TAKE)
        self._me = uuid.uuid4().hex.encode()
        self._granted = 0
        self._taken: dict[bytes, int] = {}  # by each worker, as far as this one knows

    def close(self) -> None:
        """Close the connections to the server."""
        self._redis.close()

    @property
    def spent(self) -> int:
        """Calls that all workers have taken so far.

        :raises BudgetExhausted: the server does not answer
        """
        return int(self._asked(lambda: self._redis.get(self.key)) or 0)

    def _take(self) -> bool:
        with self._lock:
            seen = [part for worker in self._taken.items() for part in worker]
        keys = [self.key, f"{self.key}:workers"]
        granted, now = self._asked(lambda: self._script(keys, [self.limit, self._me, *seen]))
        with self._lock:
            for worker, taken in zip(now[::2], map(int, now[1::2]), strict=True):
                self._taken[worker] = max(taken, self._taken.get(worker, 0))
            # The server may have forgotten what other threads were just granted.
            self._granted += granted
            self._taken[self._me] = max(self._granted, self._taken[self._me])
        return bool(granted)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """Ask the server; no answer means no, as nobody knows what the other workers have spent."""
        from redis import ConnectionError, RedisError, TimeoutError  # noqa: PLC0415 - an extra
        from redis.backoff import ExponentialBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        # A call whose reply got lost is counted twice by this, which errs on the safe side.
        retry = Retry(
            ExponentialBackoff(cap=4, base=0.5), _RETRIES, (ConnectionError, TimeoutError)
        )
        try:
            return retry.call_with_retry(ask, lambda _: None)
        except RedisError as error:
            raise BudgetExhausted(
                f"{self.name} is counted by the Redis server at {_address(self._redis)}, which "
                f"fails: {error}. No call is sent without it"
            ) from error


def _connect(url: str, key: str) -> Redis:
    """Return a client of a server that was seen to answer and to hold a number or nothing."""
    try:
        from redis import Redis, RedisError  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError:
        raise SettingsError(
            "ACECAPTCHA_BUDGET_REDIS needs the redis package: "
            "pip install 'scrapy-acecaptcha[redis]'"
        ) from None
    try:
        client = Redis.from_url(
            url,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),  # a wrong address must not hold up the start
        )
    except ValueError:  # its message may quote a part of the password, as may the URL
        raise SettingsError(
            "ACECAPTCHA_BUDGET_REDIS is not a URL such as redis://:password@localhost:6379/0 "
            "(special characters in the password must be percent-encoded)"
        ) from None
    try:
        value: Any = client.get(key)
        int(value or 0)
    except (RedisError, ValueError) as error:
        client.close()
        raise SettingsError(
            f"The Redis server of ACECAPTCHA_BUDGET_REDIS, {_address(client)}, cannot count "
            f"{key!r}: {error}"
        ) from error
    return client


def _address(client: Redis) -> str:
    """Name the server of *client* without user name and password."""
    where = client.connection_pool.connection_kwargs
    if "path" in where:
        return f"unix://{where['path']}"
    host, port = where.get("host", "localhost"), where.get("port", 6379)
    return f"redis://{host}:{port}/{where.get('db', 0)}"
