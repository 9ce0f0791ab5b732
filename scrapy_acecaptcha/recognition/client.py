"""AceCaptchaClient: bytes in, text out, over requests."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

from scrapy_acecaptcha.errors import (
    ApiConnectionError,
    ApiError,
    ApiRequestError,
    ApiServerError,
    ApiTimeout,
    SettingsError,
    TokenMissing,
)
from scrapy_acecaptcha.recognition import transport
from scrapy_acecaptcha.recognition.api_errors import CODE_OF_STATUS, ERRORS
from scrapy_acecaptcha.recognition.closing import Closing
from scrapy_acecaptcha.recognition.tasks import Pace, Task, text_of

DEFAULT_BASE_URL = "https://api.acedata.cloud"
MAX_RETRY_AFTER = 60  # seconds
MAX_TOLD = 300  # characters of a reply in an error message

DEFAULT_TIMEOUT = 130.0  # seconds for one call; the server itself gives up at 120
DEFAULT_RETRIES = 4
DEFAULT_CONCURRENCY = 16

N = TypeVar("N", int, float)


class Meter(Protocol):
    """Sees every recognition call: budget, journal and stats stand behind it.

    Its methods are called from the client's threads.
    """

    def sending(self, image: bytes) -> None:
        """A call is about to be sent. Raise to forbid it."""

    def task_begun(self, task_id: str) -> None:
        """The API hands the text out later, under this number."""

    def looking(self, task_id: str) -> None:
        """The text is about to be asked for, and charged if it is ready. Raise to forbid it."""

    def answered(self, outcome: str | ApiError, seconds: float, trace_id: str | None) -> None:
        """The call came back with a text or failed with an error after *seconds*."""


class AceCaptchaClient(Closing):
    """Client of Ace Data Cloud's image-to-text recognition.

    It may be used from many threads, and keeps its connections open until :meth:`close`. The facts
    about the API are those of https://docs.acedata.cloud, Captcha Recognition.

    :param token: API token, by default the environment variable ACEDATACLOUD_API_TOKEN
    :param base_url: by default ACEDATACLOUD_API_BASE_URL, else https://api.acedata.cloud; plain
        http is refused except for loopback addresses
    :param timeout: seconds for one call, from sending the image to having its text (the server
        itself gives up at 120)
    :param retries: retries of one call on 408, 429, 5xx and connection errors, after 1, 2, 4, 8 s
        plus jitter or after what Retry-After says, up to 60 s
    :param concurrency: most calls under way at a time
    :param tasks: send images as tasks and fetch their texts: what is never fetched, as after a
        kill, is never charged
    :raises SettingsError: no token, or a base URL that would send it in clear text
    """

    def __init__(  # noqa: PLR0917 - as in the client of requests, names may be left out
        self,
        token: str | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        concurrency: int = DEFAULT_CONCURRENCY,
        tasks: bool = False,
    ) -> None:
        self.base_url = _checked_base_url(
            base_url or os.environ.get("ACEDATACLOUD_API_BASE_URL") or DEFAULT_BASE_URL
        )
        self.timeout = _checked("timeout", timeout, above=0)
        self.retries = _checked("retries", retries, above=-1)
        self.concurrency = _checked("concurrency", concurrency, above=0)
        self.tasks = tasks
        self.pace = Pace()
        self._token = _checked_token(token or os.environ.get("ACEDATACLOUD_API_TOKEN") or "")
        self._slots = threading.BoundedSemaphore(concurrency)
        self._closed = threading.Event()
        self._session = self._connect()

    def __repr__(self) -> str:
        return f"<AceCaptchaClient {self.base_url}>"

    def close(self) -> None:
        """Close the connections. Calls under way end by themselves, and no more are sent."""
        self._closed.set()
        self._session.close()

    def recognize(self, image: bytes, *, meter: Meter | None = None) -> str:
        """Return the text that the API reads in *image*; blocks until it is there.

        :param image: PNG, JPEG, GIF, WebP or BMP bytes
        :param meter: told of every call that is sent, retries included; a Solver has one for you
        :return: the API's text, in one line; case and spaces are as in its reply
        :raises ApiError: the API said no past all retries
        """
        return self._recognize(image, meter, lambda: True)

    def recognize_in_thread(self, image: bytes, *, meter: Meter | None = None) -> Future[str]:
        """Start :meth:`recognize` in a thread and return its future.

        It can be cancelled as long as it waits for its turn. The thread is a daemon's, as
        ThreadPoolExecutor's are joined at exit: an interrupted crawl would hang there for as long
        as the API takes.
        """
        future: Future[str] = Future()

        def work() -> None:
            try:
                begin = future.set_running_or_notify_cancel
                future.set_result(self._recognize(image, meter, begin))
            except CancelledError:
                pass  # and nothing was sent
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="acecaptcha", daemon=True).start()
        return future

    async def recognize_async(self, image: bytes, *, meter: Meter | None = None) -> str:
        """:meth:`recognize` for asyncio: the event loop goes on while the API reads.

        A call that is cancelled before its turn is never sent; one that is under way goes on, and
        is charged.
        """
        return await asyncio.wrap_future(self.recognize_in_thread(image, meter=meter))

    def _connect(self) -> requests.Session:
        session = requests.Session()
        adapter = transport.Adapter(
            pool_connections=2, pool_maxsize=self.concurrency, max_retries=0
        )
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        # A proxy from the environment would see the token of a call to loopback in clear text.
        session.trust_env = self.base_url.lower().startswith("https:")
        # Set as `auth` and not as a header: a ~/.netrc entry would replace the header.
        session.auth = _Bearer(self._token)
        session.headers["accept"] = "application/json"
        session.headers["accept-encoding"] = "identity"  # a short reply; a packed one may be a bomb
        # Threads share the session; a jar that never takes a cookie needs no lock.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return session

    def _recognize(self, image: bytes, meter: Meter | None, begin: Callable[[], bool]) -> str:
        """Call until there is a text, once *begin* allows it.

        :raises CancelledError: *begin* says no
        """
        for retry in range(self.retries + 1):
            try:
                with self._slots:
                    if retry == 0 and not begin():
                        raise CancelledError
                    self._wait(0)
                    return self._call(image, meter)
            except ApiError as error:
                if not error.retryable or retry == self.retries:
                    raise
                pause = _pause(retry, error)
            self._wait(pause)
        raise AssertionError("unreachable")

    def _wait(self, seconds: float) -> None:
        """Wait, unless the client is closed meanwhile.

        :raises ApiConnectionError: it is
        """
        if self._closed.wait(seconds):
            raise ApiConnectionError("The client was closed", code="connection_error")

    def _call(self, image: bytes, meter: Meter | None) -> str:
        """Send one call, which may be charged, and tell *meter* how it ended."""
        if meter is not None:
            meter.sending(image)
        started = time.monotonic()
        outcome: str | ApiError = ApiConnectionError("Interrupted", code="connection_error")
        trace_id = None
        try:
            body = self._recognition(image, started, meter)
            trace_id = self._plain(body.get("trace_id")) or None
            text = outcome = printable(text_of(body) or "")
        except ApiError as error:
            trace_id = error.trace_id
            outcome = error
            raise
        finally:
            if meter is not None:
                meter.answered(outcome, time.monotonic() - started, trace_id)
        return text

    def _recognition(self, image: bytes, started: float, meter: Meter | None) -> dict[str, Any]:
        deadline = started + self.timeout
        sent: dict[str, Any] = {"image": base64.b64encode(image).decode("ascii")}
        if self.tasks:
            sent["async"] = True
        body = self._post("/captcha/recognition/image2text", sent, deadline)
        if text_of(body) is None and body.get("task_id"):
            task_id = str(body["task_id"])
            if meter is not None:
                meter.task_begun(task_id)
            body = Task(
                task_id,
                look=lambda task_id: self._look(task_id, deadline, meter),
                wait=self._wait,
                started=started,
                deadline=deadline,
            ).fetch(self.pace)
        else:
            self.pace.learn([time.monotonic() - started])
        if text_of(body) is None:
            raise ApiServerError(
                f"A reply without text: {self._plain(str(body))}", code="bad_response", status=200
            )
        return body

    def _look(self, task_id: str, deadline: float, meter: Meter | None) -> dict[str, Any]:
        if meter is not None:
            meter.looking(task_id)
        return self._post("/captcha/tasks", {"task_id": task_id}, deadline)

    def _post(self, path: str, sent: dict[str, Any], deadline: float) -> dict[str, Any]:
        """POST *sent*, return the reply's JSON object, or raise what the reply stands for."""
        url = self.base_url + path
        failure: ApiError
        try:
            with transport.until(deadline):
                response = self._session.post(
                    url,
                    json=sent,
                    timeout=max(deadline - time.monotonic(), 0.001),
                    allow_redirects=False,
                    stream=True,
                )
                reply = transport.read(response)
        except requests.RequestException as error:
            failure = self._failure(error, url, deadline)
        except transport.ReplyTooLarge as error:
            failure = ApiServerError(
                f"{url} sends {error}", code="bad_response", status=response.status_code
            )
            if response.status_code >= 300:
                failure = self._error(response, {})
        else:
            return self._parse(response, reply)
        # Not raised above: the original, as its __context__, carries the request with the token.
        raise failure

    def _failure(self, error: requests.RequestException, url: str, deadline: float) -> ApiError:
        """What the failure of a call is called here."""
        if isinstance(error, requests.Timeout) or time.monotonic() >= deadline:
            return ApiTimeout(f"No answer from {url} within {self.timeout:g} s", code="timeout")
        return ApiConnectionError(self._plain(f"{url}: {error}"), code="connection_error")

    def _parse(self, response: requests.Response, reply: bytes) -> dict[str, Any]:
        try:
            body = json.loads(reply.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            body = None
        if response.ok and not 300 <= response.status_code < 400:
            if (
                isinstance(body, dict)
                and not body.get("error")
                and body.get("success") is not False
            ):
                return body
            if not isinstance(body, dict):
                raise ApiServerError(
                    f"Not the API's JSON: {self._plain(reply.decode('utf-8', 'replace'))!r}",
                    code="bad_response",
                    status=response.status_code,
                )
        raise self._error(response, body if isinstance(body, dict) else {})

    def _error(self, response: requests.Response, body: dict[str, Any]) -> ApiError:
        status = response.status_code
        error = body.get("error")
        details = error if isinstance(error, dict) else body
        code = self._plain(details.get("code") or body.get("code"))
        if code not in ERRORS and isinstance(error, str) and error in ERRORS:
            code = error
        by_status = CODE_OF_STATUS.get(status, "api_error" if status >= 500 else "bad_response")
        known = ERRORS.get(code) or ERRORS.get(by_status)
        kind = known.kind if known else ApiRequestError
        message = details.get("message") or details.get("detail")
        if not message:
            message = error if isinstance(error, str) else response.reason
        if 300 <= status < 400:
            message = "The API redirects elsewhere; the token is not sent there. Check the base URL"
        exception = kind(
            self._plain(message) or f"HTTP {status}",
            code=code or by_status,
            status=status,
            trace_id=self._plain(body.get("trace_id")) or None,
        )
        exception.retry_after = response.headers.get("Retry-After")
        return exception

    def _plain(self, told: object) -> str:
        """What the API, or whoever answers in its place, told us: short and without the token."""
        return printable(str(told or "").replace(self._token, "***").strip()[:MAX_TOLD])


def printable(text: str) -> str:
    """*text* without what a terminal or a log would take for a command, and in one line."""
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text
    )


class _Bearer(requests.auth.AuthBase):
    """The token, without a repr that shows it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["authorization"] = f"Bearer {self._token}"
        return request


def _pause(retry: int, error: ApiError) -> float:
    """Seconds to wait before retry number *retry* + 1."""
    if error.retry_after is not None:
        try:
            return min(Retry().parse_retry_after(error.retry_after), MAX_RETRY_AFTER)
        except (InvalidHeader, ValueError, OverflowError):
            pass
    return float(2**retry) + random.random()  # noqa: S311 - jitter


def _checked(name: str, value: N, *, above: int) -> N:
    if not value > above:
        raise SettingsError(f"The client's {name} must be more than {above}, not {value!r}")
    return value


def _checked_token(token: str) -> str:
    token = token.strip()
    if not token:
        raise TokenMissing(
            "There is no API token. Set ACECAPTCHA_TOKEN, the environment variable "
            "ACEDATACLOUD_API_TOKEN, or the argument `token`; to try without an account, run "
            "`acecaptcha sandbox` and take any token"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError("The API token has characters that no token has (white space, accents)")
    return token


def _checked_base_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise SettingsError(f"The API's base URL {url!r} is not an http(s) URL")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SettingsError(
            f"The API's base URL {url!r} would send the token in clear text: use https "
            "(http is for loopback addresses only)"
        )
    return url.strip().rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
