"""The API client, against a stand-in for the API over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import math
import pickle
import random
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from flask import Response, jsonify, request
from hypothesis import given
from hypothesis import strategies as st

from scrapy_acecaptcha.errors import (
    ApiAuthError,
    ApiBalanceError,
    ApiConnectionError,
    ApiError,
    ApiRateLimited,
    ApiRequestError,
    ApiServerError,
    ApiTimeout,
    BudgetExhausted,
    SettingsError,
)
from scrapy_acecaptcha.recognition import tasks
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from tests.event_loop import run
from tests.stub import HANG, RESET, ApiStub, Reply, Task

TOKEN = "secret-token-0123456789"
IMAGE = b"\x89PNG an image"


class PollStub(ApiStub):
    """An API whose replies to polls are scripted, too."""

    def __init__(self, *polls: tuple[int, Any]) -> None:
        super().__init__(lambda image: "7364", [Task()])
        self._replies = list(polls)

    def _poll(self) -> Response:
        self.polls.append(request.get_json()["task_id"])
        status, body = self._replies.pop(0)
        response = jsonify(body)
        response.status_code = status
        return response


@pytest.fixture
def api() -> Iterator[ApiStub]:
    with ApiStub(lambda image: "7364") as stub:
        yield stub


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; what would have been waited: 0 before each call, a pause before a retry."""
    seen: list[float] = []
    monkeypatch.setattr(AceCaptchaClient, "_wait", lambda self, seconds: seen.append(seconds))
    monkeypatch.setattr("random.random", lambda: 0.25)
    return seen


def client_of(api: ApiStub | SimpleNamespace, **arguments: Any) -> AceCaptchaClient:
    return AceCaptchaClient(TOKEN, api.url, **{"timeout": 10, "retries": 0, **arguments})


def failure(client: AceCaptchaClient) -> ApiError:
    with pytest.raises(ApiError) as caught:
        client.recognize(IMAGE)
    return caught.value


def facts(error: ApiError) -> tuple[Any, ...]:
    return type(error), error.code, error.status, error.message, error.trace_id


# What is sent


def test_the_call_is_as_documented(api: ApiStub) -> None:
    with client_of(api) as client:
        assert client.recognize(IMAGE) == "7364"
    (call,) = api.calls
    assert json.loads(call.body) == {"image": base64.b64encode(IMAGE).decode()}
    headers = {name.lower(): value for name, value in call.headers.items()}
    assert {name: headers.get(name) for name in ("authorization", "accept", "content-type")} == {
        "authorization": f"Bearer {TOKEN}",
        "accept": "application/json",
        "content-type": "application/json",
    }


def test_settings_come_from_the_environment(api: ApiStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", f" {TOKEN}\n")
    assert AceCaptchaClient().base_url == "https://api.acedata.cloud"
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", api.url + "/")
    with AceCaptchaClient() as client:
        assert client.recognize(IMAGE) == "7364"
    assert api.calls[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert AceCaptchaClient(base_url="https://example.org").base_url == "https://example.org"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.acedata.cloud",
        "https://example.org:8443/v1",
        "http://127.0.0.1:8765",
        "http://127.8.8.8",
        "http://localhost:8765",
        "http://[::1]:8765",
        "HTTPS://example.org",
    ],
)
def test_base_urls_that_keep_the_token_safe(url: str) -> None:
    client = AceCaptchaClient(TOKEN, f" {url}/ ")
    assert (client.base_url, repr(client)) == (url, f"<AceCaptchaClient {url}>")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://api.acedata.cloud", "would send the token in clear text"),
        ("http://127.0.0.1@example.org", "would send the token in clear text"),
        ("http://127.0.0.1.example.org", "would send the token in clear text"),
        ("http://localhost.example.org", "would send the token in clear text"),
        ("http://0.0.0.0:8765", "would send the token in clear text"),
        ("http://192.168.0.1", "would send the token in clear text"),
        ("api.acedata.cloud", "is not an http"),
        ("ftp://127.0.0.1", "is not an http"),
        ("https://", "is not an http"),
        ("https:///path", "is not an http"),
        ("http://[::1", "is not an http"),
        ("https://example.org:99999", "is not an http"),
        ("http://127.0.0.1:port", "is not an http"),
    ],
)
def test_other_base_urls_are_refused(url: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AceCaptchaClient(TOKEN, url)
    assert str(caught.value).startswith(f"The API's base URL {url!r} {problem}")


@pytest.mark.parametrize("token", ["", " ", None])
def test_without_a_token_the_error_says_where_to_put_it(token: str | None) -> None:
    with pytest.raises(SettingsError, match=r"^There is no API token\. Set ACECAPTCHA_TOKEN, "):
        AceCaptchaClient(token)


@pytest.mark.parametrize("token", ["Bearer abc", "abc\ndef", "abc\x00", "tökén"])
def test_what_cannot_be_a_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AceCaptchaClient(token)
    assert str(caught.value) == (
        "The API token has characters that no token has (white space, accents)"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"concurrency": 0},
    ],
)
def test_numbers_that_cannot_work_are_refused(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(SettingsError, match=f"^The client's {name} must be more than "):
        AceCaptchaClient(TOKEN, **arguments)


# What comes back


@pytest.mark.parametrize(
    "body",
    [
        {"text": "7364"},
        {"text": "7364", "elapsed": 1.2, "started_at": 1.0, "finished_at": 2.2},
        {"text": "7364", "success": True, "error": None, "trace_id": "t"},
        {"text": "7364", "task_id": "t", "something": {"new": [1]}},
    ],
)
@pytest.mark.parametrize("status", [200, 201])
def test_the_text_is_taken_from_every_shape_of_reply(api: ApiStub, status: int, body: Any) -> None:
    api.script.append((status, body, {}))
    assert client_of(api).recognize(IMAGE) == "7364"
    assert (len(api.calls), api.polls) == (1, [])


def test_an_empty_text_is_a_text(api: ApiStub) -> None:
    api.script.append("")
    assert client_of(api).recognize(IMAGE) == ""
    assert len(api.calls) == 1


def test_tasks_are_polled(api: ApiStub, waits: list[float]) -> None:
    api.script.append(Task(processing=2, text="later"))
    assert client_of(api).recognize(IMAGE) == "later"
    assert (len(api.calls), len(api.polls), len(set(api.polls))) == (1, 3, 1)
    assert waits == pytest.approx([0, 0.5, 0.25, 0.25], abs=0.1)


@pytest.mark.parametrize(
    ("polls", "text"),
    [
        ([(200, {"text": "a"})], "a"),
        (
            [
                (200, {"status": "processing", "text": None}),
                (200, {"status": "ready", "text": "a"}),
            ],
            "a",
        ),
        ([(200, {}), (200, {"status": "ready", "text": "a"})], "a"),
        ([(500, {}), (429, {}), (200, {"solution": {"text": "a"}})], "a"),
    ],
)
def test_a_failed_look_at_a_task_is_no_failed_task(
    polls: list[Any], text: str, waits: list[float]
) -> None:
    with PollStub(*polls) as api:
        assert client_of(api).recognize(IMAGE) == text
        assert (len(api.calls), len(api.polls)) == (1, len(polls))


@pytest.mark.parametrize(
    ("poll", "kind", "code"),
    [
        ((200, {"status": "failed"}), ApiServerError, "api_error"),
        ((504, {"code": "timeout", "detail": "Late."}), ApiTimeout, "timeout"),
        ((404, {"error": {"code": "not_found"}}), ApiRequestError, "not_found"),
        ((200, {"status": "ready", "text": None}), ApiServerError, "bad_response"),
        (
            (404, {"error": {"code": "bad_request", "message": "no"}}),
            ApiRequestError,
            "bad_request",
        ),
        ((401, {"error": {"code": "invalid_token"}}), ApiAuthError, "invalid_token"),
    ],
)
def test_a_task_may_fail(poll: Any, kind: type[ApiError], code: str, waits: list[float]) -> None:
    with PollStub(poll) as api:
        error = failure(client_of(api))
        assert (type(error), error.code, len(api.polls)) == (kind, code, 1)


def test_a_task_that_never_gets_ready(api: ApiStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LEAST_SECONDS", 0.02)
    monkeypatch.setattr(tasks, "FIRST_SECONDS", 0.02)
    api.script.append(Task(processing=10**9))
    error = failure(client_of(api, timeout=0.2))
    task_id = api.polls[0]
    message = f"Task {task_id} was not ready within 0.2 s"
    assert facts(error) == (ApiTimeout, "timeout", None, message, None)


TABLE = [
    (400, "bad_request", ApiRequestError, False),
    (400, "token_mismatched", ApiAuthError, False),
    (400, "api_not_implemented", ApiRequestError, False),
    (400, "no_token", ApiAuthError, False),
    (401, "invalid_token", ApiAuthError, False),
    (401, "token_expired", ApiAuthError, False),
    (401, "token_mismatched", ApiAuthError, False),
    (403, "used_up", ApiBalanceError, False),
    (403, "disabled", ApiBalanceError, False),
    (403, "forbidden", ApiRequestError, False),
    (404, "no_api", ApiRequestError, False),
    (429, "too_many_requests", ApiRateLimited, True),
    (500, "api_error", ApiServerError, True),
    (504, "timeout", ApiTimeout, True),
    # The code decides, whatever the status.
    (200, "used_up", ApiBalanceError, False),
    (400, "used_up", ApiBalanceError, False),
    (403, "invalid_token", ApiAuthError, False),
    (403, "too_many_requests", ApiRateLimited, True),
    (400, "api_error", ApiServerError, True),
    (500, "bad_request", ApiRequestError, False),
    (500, "used_up", ApiBalanceError, False),
    # Only then does the status.
    (401, "new_code", ApiAuthError, False),
    (403, "new_code", ApiRequestError, False),
    (402, "new_code", ApiRequestError, False),
    (429, "new_code", ApiRateLimited, True),
    (503, "new_code", ApiServerError, True),
]


@pytest.mark.parametrize(("status", "code", "kind", "retryable"), TABLE)
def test_error_codes(
    api: ApiStub,
    waits: list[float],
    status: int,
    code: str,
    kind: type[ApiError],
    retryable: bool,
) -> None:
    told = {"code": code, "message": "Because."}
    body = {"success": False, "error": told, "trace_id": "trace-1"}
    api.script += [(status, body, {})] * 2
    error = failure(client_of(api, retries=1))
    assert facts(error) == (kind, code, status, "Because.", "trace-1")
    assert error.retryable is retryable
    assert len(api.calls) == (2 if retryable else 1)
    mend = f". {kind.hint}" if kind.hint else ""
    assert str(error) == f"{code}: Because. (HTTP {status}, trace_id trace-1){mend}"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            500,
            {"error": {"code": "api_error"}},
            (ApiServerError, "api_error", "INTERNAL SERVER ERROR"),
        ),
        (500, {"error": "It broke."}, (ApiServerError, "api_error", "It broke.")),
        (500, {"error": None}, (ApiServerError, "api_error", "INTERNAL SERVER ERROR")),
        (500, {}, (ApiServerError, "api_error", "INTERNAL SERVER ERROR")),
        (500, [], (ApiServerError, "api_error", "INTERNAL SERVER ERROR")),
        (500, "", (ApiServerError, "api_error", "INTERNAL SERVER ERROR")),
        (502, "<html>Bad gateway", (ApiServerError, "api_error", "BAD GATEWAY")),
        (599, "", (ApiServerError, "api_error", "UNKNOWN")),
        (503, b"\xff\xfe", (ApiServerError, "api_error", "SERVICE UNAVAILABLE")),
        (
            504,
            {"code": "timeout", "detail": "Late.", "task_id": "t"},
            (ApiTimeout, "timeout", "Late."),
        ),
        (504, "<html>", (ApiTimeout, "timeout", "GATEWAY TIMEOUT")),
        (408, "", (ApiTimeout, "timeout", "REQUEST TIMEOUT")),
        (429, "slow down", (ApiRateLimited, "too_many_requests", "TOO MANY REQUESTS")),
        (401, {"error": "invalid_token"}, (ApiAuthError, "invalid_token", "invalid_token")),
        (401, {"detail": "Who?"}, (ApiAuthError, "invalid_token", "Who?")),
        (403, {"error": "used_up"}, (ApiBalanceError, "used_up", "used_up")),
        (400, {"error": {"message": "What?"}}, (ApiRequestError, "bad_request", "What?")),
        (400, {"error": {"code": "odd", "message": "?"}}, (ApiRequestError, "odd", "?")),
        (400, {"error": ["What?"]}, (ApiRequestError, "bad_request", "BAD REQUEST")),
        (400, {"error": {"code": 7, "message": {}}}, (ApiRequestError, "7", "BAD REQUEST")),
        (400, {"error": {}, "code": "used_up"}, (ApiBalanceError, "used_up", "BAD REQUEST")),
        (418, "teapot", (ApiRequestError, "bad_response", "I'M A TEAPOT")),
        (200, {"success": False}, (ApiRequestError, "bad_response", "OK")),
        (200, {"text": "x", "error": "used_up"}, (ApiBalanceError, "used_up", "used_up")),
        (200, {}, (ApiServerError, "bad_response", "A reply without text: {}")),
        (
            200,
            {"text": None},
            (ApiServerError, "bad_response", "A reply without text: {'text': None}"),
        ),
        (200, {"text": 7}, (ApiServerError, "bad_response", "A reply without text: {'text': 7}")),
        (200, [], (ApiServerError, "bad_response", "Not the API's JSON: '[]'")),
        (200, "null", (ApiServerError, "bad_response", "Not the API's JSON: 'null'")),
        (200, "", (ApiServerError, "bad_response", "Not the API's JSON: ''")),
        (
            200,
            "<html>Log in",
            (ApiServerError, "bad_response", "Not the API's JSON: '<html>Log in'"),
        ),
        (
            200,
            "[" * 50_000,
            (ApiServerError, "bad_response", f"Not the API's JSON: {'[' * 300!r}"),
        ),
        (500, {"error": "x" * 10_000}, (ApiServerError, "api_error", "x" * 300)),
    ],
)
def test_every_shape_of_error(api: ApiStub, status: int, body: Any, expected: Any) -> None:
    api.script.append((status, body, {}))
    error = failure(client_of(api))
    assert (type(error), error.code, error.message, error.status) == (*expected, status)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
replies = st.dictionaries(
    st.sampled_from(["text", "error", "success", "code", "message", "detail", "trace_id"]),
    json_values | st.dictionaries(st.sampled_from(["code", "message", "detail"]), json_values),
)


@given(st.integers(200, 599), (replies | json_values).map(json.dumps).map(str.encode) | st.binary())
def test_whatever_the_api_says_is_a_dict_or_an_api_error(status: int, body: bytes) -> None:
    response = requests.Response()
    response.status_code = status
    with suppress(ApiError):
        assert isinstance(AceCaptchaClient(TOKEN)._parse(response, body), dict)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_token_does_not_follow_redirects(api: ApiStub, status: int) -> None:
    with ApiStub(lambda image: "stolen") as other:
        there = f"{other.url}/captcha/recognition/image2text"
        api.script.append((status, {"text": "x"}, {"Location": there}))
        error = failure(client_of(api))
        assert (type(error), error.code, error.status) == (ApiRequestError, "bad_response", status)
        assert error.message == (
            "The API redirects elsewhere; the token is not sent there. Check the base URL"
        )
        assert other.calls == []


# Trouble on the way


@contextmanager
def server(reply: bytes, hangs: bool = False) -> Iterator[SimpleNamespace]:
    """A server that answers every connection with these bytes, HTTP or not."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []
    over = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    seen.append(connection.recv(65536))
                    connection.sendall(reply)
                    if hangs:
                        over.wait()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}", seen=seen)
    finally:
        over.set()
        listener.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"


@pytest.mark.parametrize("reply", [b"", b"junk\r\n\r\n", HEAD, HEAD + b'{"text": "73'])
def test_a_broken_connection(reply: bytes) -> None:
    with server(reply) as api:
        error = failure(client_of(api))
        assert (type(error), error.code, error.status) == (
            ApiConnectionError,
            "connection_error",
            None,
        )
        assert error.message.startswith(f"{api.url}/captcha/recognition/image2text: ")


@pytest.mark.parametrize("reply", [b"", HEAD[:20], HEAD, HEAD + b'{"text": "73'])
def test_a_connection_that_hangs(reply: bytes) -> None:
    with server(reply, hangs=True) as api:
        message = f"No answer from {api.url}/captcha/recognition/image2text within 0.2 s"
        error = failure(client_of(api, timeout=0.2))
        assert facts(error) == (ApiTimeout, "timeout", None, message, None)


def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(AceCaptchaClient(TOKEN, f"http://127.0.0.1:{port}", retries=0))
    assert (type(error), error.code) == (ApiConnectionError, "connection_error")


BUSY: Reply = (429, {"error": {"code": "too_many_requests"}}, {})
DOWN: Reply = (500, {}, {})


@pytest.mark.parametrize(
    "trouble", [BUSY, DOWN, (502, "", {}), (408, "", {}), RESET, (200, "?", {})]
)
def test_trouble_is_retried_at_growing_pauses(
    api: ApiStub, waits: list[float], trouble: Any
) -> None:
    api.script += [trouble] * 4
    assert client_of(api, retries=4).recognize(IMAGE) == "7364"
    assert waits == [0, 1.25, 0, 2.25, 0, 4.25, 0, 8.25, 0]
    assert len({call.body for call in api.calls}) == 1


def test_trouble_past_all_retries_is_an_error(api: ApiStub, waits: list[float]) -> None:
    api.script += [DOWN, RESET, BUSY]
    assert type(failure(client_of(api, retries=2))) is ApiRateLimited
    assert len(api.calls) == 3


def test_a_hang_is_retried(api: ApiStub, waits: list[float]) -> None:
    api.script.append(HANG)
    assert client_of(api, retries=1, timeout=0.5).recognize(IMAGE) == "7364"
    assert len(api.calls) == 2


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        ("7", 7),
        ("0", 0),
        (" 7 ", 7),
        ("60", 60),
        ("61", 60),
        ("86400", 60),
        (formatdate(1_000_030, usegmt=True), 30),
        (formatdate(1_000_900, usegmt=True), 60),
        (formatdate(999_000, usegmt=True), 0),
        ("1.5", 1.25),
        ("-1", 1.25),
        ("", 1.25),
        ("soon", 1.25),
        ("9" * 5000, 1.25),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 1.25),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_respected(
    api: ApiStub,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    retry_after: str,
    pause: float,
) -> None:
    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(time=lambda: 1_000_000))
    api.script.append((status, {}, {"Retry-After": retry_after}))
    assert client_of(api, retries=1).recognize(IMAGE) == "7364"
    assert waits == [0, pause, 0]


# What stays at home


def test_the_token_is_nowhere_to_be_seen(
    api: ApiStub, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = f"Bearer {TOKEN} " + "x" * 280 + TOKEN
    with server(HEAD) as broken, client_of(api) as client:
        api.script += [
            (401, {"error": {"code": TOKEN, "message": echo}, "trace_id": TOKEN}, {}),
            (500, {"error": echo}, {}),
            (400, {"detail": {"authorization": echo}}, {}),
            (200, {"headers": {"authorization": echo}}, {}),
            (200, f"<html>{echo}", {}),
            RESET,
        ]
        errors = [failure(client) for _ in range(len(api.script))]
        errors.append(failure(client_of(broken)))
        shown = [repr(client), repr(client._session.auth), caplog.text]
    for error in errors:
        shown += [str(error), repr(error), str(vars(error)), *traceback.format_exception(error)]
        shown.append(str(pickle.dumps(error)))
    assert len(errors) == 7
    assert '"POST /captcha/recognition/image2text HTTP/1.1" 401' in caplog.text
    assert [text for text in shown if TOKEN[:12] in text] == []


@pytest.mark.parametrize(
    "kind", [ApiError, *dict.fromkeys(row[2] for row in TABLE), ApiConnectionError]
)
def test_api_errors_survive_pickling(kind: type[ApiError]) -> None:
    error = kind("Because.", code="code", status=500, trace_id="t")
    error.retry_after = "7"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))


def test_cookies_are_not_kept(api: ApiStub) -> None:
    api.script.append((200, {"text": "1"}, {"Set-Cookie": "session=1; Path=/"}))
    with client_of(api) as client:
        assert [client.recognize(IMAGE), client.recognize(IMAGE)] == ["1", "7364"]
    assert [call.headers.get("Cookie") for call in api.calls] == [None, None]


def test_netrc_does_not_replace_the_token(
    api: ApiStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client = client_of(api)
    client._session.trust_env = True  # as for an https API
    assert client.recognize(IMAGE) == "7364"
    assert api.calls[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_no_proxy_sees_calls_to_loopback(api: ApiStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with server(b"") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("all_proxy", proxy.url)
        assert client_of(api).recognize(IMAGE) == "7364"
        assert proxy.seen == []


def test_a_proxy_from_the_environment_tunnels_https(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        error = failure(AceCaptchaClient(TOKEN, "https://api.example.org", retries=0))
        assert type(error) is ApiConnectionError
        (seen,) = proxy.seen
        assert seen.startswith(b"CONNECT api.example.org:443 HTTP/1.")
        assert TOKEN.encode() not in seen


# Many at a time


def test_no_more_calls_at_a_time_than_allowed(api: ApiStub) -> None:
    api.gate.clear()
    with client_of(api, concurrency=2) as client:
        futures = [client.recognize_in_thread(IMAGE) for _ in range(6)]
        with pytest.raises(TimeoutError):
            api.wait_for(3, timeout=0.3)
        assert len(api.calls) == 2
        api.gate.set()
        assert [future.result(10) for future in futures] == ["7364"] * 6
    assert (len(api.calls), api.max_parallel) == (6, 2)


def test_who_backs_off_lets_others_go_first(api: ApiStub) -> None:
    api.script.append((503, {}, {"Retry-After": "60"}))
    with client_of(api, concurrency=1, retries=1) as client:
        waiting = client.recognize_in_thread(IMAGE)
        api.wait_for(1)
        assert client.recognize(IMAGE) == "7364"
        assert not waiting.done()


def test_closing_wakes_who_backs_off(api: ApiStub) -> None:
    api.script.append((503, {}, {"Retry-After": "60"}))
    client = client_of(api, retries=4)
    future = client.recognize_in_thread(IMAGE)
    api.wait_for(1)
    client.close()
    error = future.exception(10)
    assert (type(error), str(error)) == (
        ApiConnectionError,
        "connection_error: The client was closed",
    )
    assert len(api.calls) == 1


def test_closing_wakes_who_waits_for_a_task(api: ApiStub) -> None:
    api.script.append(Task())
    client = client_of(api)
    future = client.recognize_in_thread(IMAGE)
    api.wait_for(1)
    client.close()
    assert str(future.exception(10)) == "connection_error: The client was closed"
    assert api.polls == []


def test_a_closed_client_sends_nothing_more(api: ApiStub) -> None:
    api.gate.clear()
    client = client_of(api, concurrency=1)
    under_way = client.recognize_in_thread(IMAGE)
    api.wait_for(1)
    waiting = client.recognize_in_thread(IMAGE)
    client.close()
    api.gate.set()
    assert under_way.result(10) == "7364"
    assert str(waiting.exception(10)) == "connection_error: The client was closed"
    assert str(failure(client)) == "connection_error: The client was closed"
    assert len(api.calls) == 1


def test_a_call_that_waits_for_its_turn_can_be_cancelled(api: ApiStub) -> None:
    api.gate.clear()
    with client_of(api, concurrency=1) as client:
        under_way = client.recognize_in_thread(IMAGE)
        api.wait_for(1)
        waiting = client.recognize_in_thread(IMAGE)
        assert (under_way.cancel(), waiting.cancel()) == (False, True)
        api.gate.set()
        last = client.recognize_in_thread(IMAGE)
        wait([under_way, waiting, last], 10)
        assert (under_way.result(0), last.result(0)) == ("7364", "7364")
    assert len(api.calls) == 2


def test_the_event_loop_goes_on_while_the_api_reads(api: ApiStub) -> None:
    api.gate.clear()

    async def main() -> list[str]:
        with client_of(api) as client:
            reading = [asyncio.create_task(client.recognize_async(IMAGE)) for _ in range(3)]
            await asyncio.to_thread(api.wait_for, 3)
            api.gate.set()
            return await asyncio.gather(*reading)

    assert run(main()) == ["7364"] * 3


def test_a_cancelled_task_sends_nothing(api: ApiStub) -> None:
    api.gate.clear()

    async def main() -> str:
        with client_of(api, concurrency=1) as client:
            under_way = asyncio.create_task(client.recognize_async(IMAGE))
            await asyncio.to_thread(api.wait_for, 1)
            waiting = asyncio.create_task(client.recognize_async(IMAGE))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            api.gate.set()
            return await under_way + await client.recognize_async(IMAGE)

    assert run(main()) == "73647364"
    assert len(api.calls) == 2


def test_errors_come_out_of_the_event_loop(api: ApiStub) -> None:
    api.script.append(DOWN)
    with client_of(api) as client, pytest.raises(ApiServerError):
        run(client.recognize_async(IMAGE))


# The meter


class Notes:
    """A meter that writes everything down."""

    def __init__(self, allowed: int = 100) -> None:
        self.events: list[Any] = []
        self.allowed = allowed

    def sending(self, image: bytes) -> None:
        if not self.allowed:
            raise BudgetExhausted("no more")
        self.allowed -= 1
        self.events.append(("sending", image))

    def task_begun(self, task_id: str) -> None:
        """A call goes on as a task."""

    def looking(self, task_id: str) -> None:
        """Its text is asked for."""

    def answered(self, outcome: str | ApiError, seconds: float, trace_id: str | None) -> None:
        assert seconds >= 0
        told = outcome if isinstance(outcome, str) else outcome.code
        self.events.append(("answered", told, trace_id))


SENDING = ("sending", IMAGE)


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        (["7364"], [("7364", None)]),
        ([(200, {"text": "1", "trace_id": "t"}, {})], [("1", "t")]),
        ([(200, {"text": "1", "trace_id": {"a": 1}}, {})], [("1", "{'a': 1}")]),
        ([DOWN, RESET, "1"], [("api_error", None), ("connection_error", None), ("1", None)]),
        ([(429, {"trace_id": "t"}, {}), "1"], [("too_many_requests", "t"), ("1", None)]),
        ([(200, "?", {}), Task(1, "1")], [("bad_response", None), ("1", None)]),
    ],
)
def test_the_meter_sees_every_call(
    api: ApiStub, waits: list[float], script: list[Any], answers: list[Any]
) -> None:
    api.script += script
    meter = Notes()
    assert client_of(api, retries=2).recognize(IMAGE, meter=meter) == answers[-1][0]
    assert meter.events == [
        event for answer in answers for event in (SENDING, ("answered", *answer))
    ]


def test_the_meter_may_forbid_a_call(api: ApiStub, waits: list[float]) -> None:
    api.script += [DOWN] * 5
    meter = Notes(allowed=2)
    with pytest.raises(BudgetExhausted):
        client_of(api, retries=4).recognize(IMAGE, meter=meter)
    assert meter.events == [SENDING, ("answered", "api_error", None)] * 2
    assert len(api.calls) == 2


def test_a_call_that_is_interrupted_is_metered(
    api: ApiStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, meter = client_of(api), Notes()

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(client._session, "post", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.recognize(IMAGE, meter=meter)
    assert meter.events == [SENDING, ("answered", "connection_error", None)]


@pytest.mark.parametrize(
    "start", [AceCaptchaClient.recognize_in_thread, AceCaptchaClient.recognize_async]
)
def test_every_way_to_call_is_metered(api: ApiStub, start: Callable[..., Any]) -> None:
    meter = Notes()

    async def main() -> str:
        with client_of(api) as client:
            calling = start(client, IMAGE, meter=meter)
            return await (calling if asyncio.iscoroutine(calling) else asyncio.wrap_future(calling))

    assert run(main()) == "7364"
    assert meter.events == [SENDING, ("answered", "7364", None)]


# Replies that mean harm


@contextmanager
def dripping(head: bytes, drop: bytes) -> Iterator[str]:
    """A server that sends *drop* again and again, a little before every timeout."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(head)
                while not over.wait(0.02):
                    connection.sendall(drop)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.close()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx-a: ", HEAD])
def test_the_timeout_is_that_of_the_whole_call(head: bytes) -> None:
    with dripping(head, b" ") as url:
        error = failure(AceCaptchaClient(TOKEN, url, timeout=0.3, retries=0))
    assert (type(error), error.code) == (ApiTimeout, "timeout")


@pytest.mark.parametrize("packed", [True, False])
def test_a_reply_is_bounded(api: ApiStub, packed: bool) -> None:
    body = b'{"text": "' + b"7" * 40_000_000 + b'"}'
    headers = {"Content-Encoding": "gzip"} if packed else {}
    api.script.append((200, gzip.compress(body) if packed else body[:100_000], headers))
    error = failure(client_of(api))
    assert (type(error), error.code) == (ApiServerError, "bad_response")
    assert "more than 64,000 bytes" in error.message


def test_a_packed_reply_is_read(api: ApiStub) -> None:
    packed = gzip.compress(b'{"text": "7364"}')
    api.script.append((200, packed, {"Content-Encoding": "gzip"}))
    assert client_of(api).recognize(IMAGE) == "7364"


def test_nothing_that_commands_a_terminal_gets_through(api: ApiStub) -> None:
    api.script.append((200, {"text": "7\x1b[2J3\ud800\n\t4"}, {}))
    assert client_of(api).recognize(IMAGE) == "7\ufffd[2J3\ufffd  4"
    evil = {"code": "\x1b]0;hi\x07", "message": "a\r\nb\x9b31m"}
    api.script.append((400, {"error": evil, "trace_id": "\ud800"}, {}))
    error = failure(client_of(api))
    assert all(char.isprintable() for char in f"{error}{error.code}{error.trace_id}")


@pytest.mark.parametrize("trouble", [RESET, (200, "junk", {}), (401, {}, {}), (302, {}, {})])
def test_the_token_cannot_be_reached_from_an_error(api: ApiStub, trouble: Any) -> None:
    api.script.append(trouble)
    error: BaseException | None = failure(client_of(api))
    while error is not None:
        for value in vars(error).values():
            assert not isinstance(value, (requests.Request, requests.PreparedRequest))
        assert TOKEN not in f"{error!r}{vars(error)}"
        assert error.__cause__ is None
        error = error.__context__


# Tasks


def test_a_task_is_noted_before_its_text_is_fetched(api: ApiStub) -> None:
    seen: list[tuple[str, int]] = []

    class Meter(Notes):
        def task_begun(self, task_id: str) -> None:
            seen.append((task_id, len(api.polls)))

    client = client_of(api, tasks=True)
    client.pace.learn([0.01])
    assert client.recognize(IMAGE, meter=Meter()) == "7364"
    assert json.loads(api.calls[0].body)["async"] is True
    assert seen == [(api.polls[0], 0)]
    assert api.charged == 1


def test_a_text_that_is_not_fetched_costs_nothing(api: ApiStub) -> None:
    class Gone(Notes):
        def task_begun(self, task_id: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client_of(api, tasks=True).recognize(IMAGE, meter=Gone())
    assert (len(api.calls), api.charged) == (1, 0)


def test_a_lost_connection_does_not_send_the_image_again(api: ApiStub, waits: list[float]) -> None:
    api.poll_script += [RESET, RESET, (503, {}, {})]
    assert client_of(api, tasks=True, retries=4).recognize(IMAGE) == "7364"
    assert (len(api.calls), len(api.polls), api.charged) == (1, 4, 1)


def test_polling_begins_at_the_median_latency() -> None:
    pace = tasks.Pace()
    pace.learn([9.0, 1.0, 2.0])
    assert pace.first == 2.0
    assert [pace.next(elapsed) for elapsed in (1, 10, 100)] == [0.25, 0.5, 3.0]


@pytest.mark.parametrize("median", [0.4, 2.0, 8.0, 30.0])
def test_tasks_take_little_longer_than_the_api(
    median: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On average a tenth or 0.3 s, by a clock that only waiting moves."""
    now = [0.0]
    monkeypatch.setattr(tasks, "time", Mock(monotonic=lambda: now[0]))
    dice = random.Random(1)
    pace = tasks.Pace()
    pace.learn([5 * median] * 40)  # the API was slower yesterday
    late = []
    for _ in range(1000):
        latency = dice.lognormvariate(math.log(median), 0.2)
        started = now[0]
        ready = started + latency
        tasks.Task(
            "t",
            look=lambda _, ready=ready: {"text": "7364"} if now[0] >= ready else {},  # type: ignore[misc]
            wait=lambda seconds: now.append(now.pop() + seconds),
            started=started,
            deadline=started + 1000,
        ).fetch(pace)
        late.append(now[0] - ready)
    assert sum(late[200:]) / 800 <= max(0.1 * median, 0.3)
