"""A stand-in for the recognition API that does what a test tells it to, over real HTTP.

with ApiStub(site.answers) as api:
    api.script += ["WRONG", (429, {"error": {"code": "too_many_requests"}}, {}), RESET]
    ...                     # three scripted replies, then right answers
    assert len(api.calls) == 4
"""

from __future__ import annotations

import base64
import binascii
import random
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from flask import Flask, Response, jsonify, request

from tests.site.drawing import ALPHABET
from tests.site.server import Server


class Failure(Enum):
    """Replies that are none."""

    RESET = "the connection is closed without a reply"
    HANG = "nothing happens until the stub's `unhang` is set, then as RESET"


RESET, HANG = Failure.RESET, Failure.HANG


@dataclass
class Task:
    """201 with a task id; `processing` polls say so, the next has `text` (None: the right one)."""

    processing: int = 1
    text: str | None = None


# A str is the answer read; a tuple is (status, body, headers), the body str, bytes or JSON.
Reply = str | tuple[int, Any, Mapping[str, str]] | Failure | Task | Callable[[bytes], Any]


@dataclass
class Call:
    """One recognition call as it came in."""

    image: bytes
    headers: dict[str, str]
    body: bytes
    time: float = field(default_factory=time.monotonic)


class ApiStub:
    """Answers with `answers(image)` unless the script says otherwise.

    `wrong` is the share of wrong answers (same length and letters, but different), drawn with
    `seed`; `token`, where given, is the only one accepted. What tests set: `script`, `latency`
    (seconds), `gate` (cleared: every call waits). What they read: `calls`, `polls` (task ids
    asked for), `charged` (answers given, right or wrong), `max_parallel`; `wait_for(n)`.
    """

    def __init__(
        self,
        answers: Callable[[bytes], str | None],
        script: Iterable[Reply] = (),
        *,
        wrong: float = 0.0,
        seed: int = 0,
        latency: float = 0.0,
        token: str | None = None,
    ) -> None:
        self.answers = answers
        self.script: deque[Reply] = deque(script)
        self.wrong = wrong
        self.latency = latency
        self.token = token
        self.calls: list[Call] = []
        self.polls: list[str] = []
        self.poll_script: deque[Reply] = deque()  # what the next looks at a task get
        self.charged = 0
        self.parallel = self.max_parallel = 0
        self.gate = threading.Event()
        self.gate.set()
        self.unhang = threading.Event()
        self.arrived = threading.Condition()  # notified with every call
        self._random = random.Random(seed)
        self._tasks: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        app = Flask("api-stub")
        app.add_url_rule(
            "/captcha/recognition/image2text", view_func=self._recognize, methods=["POST"]
        )
        app.add_url_rule("/captcha/tasks", view_func=self._poll, methods=["POST"])
        self._server = Server(app)
        self.url = self._server.url

    def __enter__(self) -> ApiStub:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever still waits is let go, and finds that nobody wants the reply any more.
        for event in (self._closing, self.gate, self.unhang):
            event.set()
        self._server.stop()

    def wait_for(self, count: int, timeout: float = 10) -> None:
        """Wait until `count` calls have arrived, answered or not."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.calls) >= count, timeout):
                raise TimeoutError(f"{len(self.calls)} of {count} calls arrived in {timeout} s")

    def _recognize(self) -> Response:
        with self._lock:
            self.parallel += 1
            self.max_parallel = max(self.max_parallel, self.parallel)
        try:
            return self._recognized()
        finally:
            with self._lock:
                self.parallel -= 1

    def _recognized(self) -> Response:
        image = _image(request.get_json(silent=True))
        with self.arrived:
            reply = self._next_reply()
            self.calls.append(Call(image or b"", dict(request.headers), request.get_data()))
            self.arrived.notify_all()
        self.gate.wait()
        self._closing.wait(self.latency)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "invalid_token", "The token is invalid.")
        if image is None and reply is None:
            return _error(400, "bad_request", "The image is not base64.")
        return self._response(reply, image or b"")

    def _next_reply(self) -> Reply | None:
        """The next of the script; None for the default. Drawn here, in the calls' order."""
        if self.script:
            return self.script.popleft()
        if self.wrong and self._random.random() < self.wrong:
            return self._wrong_answer
        return None

    def _response(self, reply: Reply | None, image: bytes) -> Response:
        if callable(reply):
            return self._response(reply(image), image)
        if reply is None:
            reply = self.answers(image)
            if reply is None:
                return _error(400, "bad_request", "The stub does not know this image.")
        if isinstance(reply, str):
            if (request.get_json(silent=True) or {}).get("async") is True:
                return self._task(Task(0, reply), image)
            return self._answer(reply)
        if isinstance(reply, Task):
            return self._task(reply, image)
        if isinstance(reply, tuple):
            return _scripted(*reply)
        if reply is HANG:
            self.unhang.wait()
        return _drop_connection()

    def _answer(self, text: str) -> Response:
        with self._lock:
            self.charged += 1
        return jsonify(text=text, elapsed=self.latency, started_at=time.time())

    def _wrong_answer(self, image: bytes) -> Reply:
        right = self.answers(image)
        if not right:
            return (400, {"error": {"code": "bad_request", "message": "unknown image"}}, {})
        with self._lock:
            place = self._random.randrange(len(right))
            others = [letter for letter in ALPHABET if letter != right[place]]
            return right[:place] + self._random.choice(others) + right[place + 1 :]

    def _task(self, task: Task, image: bytes) -> Response:
        text = task.text if task.text is not None else self.answers(image) or ""
        task_id = str(uuid.uuid4())
        with self._lock:
            self._tasks[task_id] = (task.processing, text)
        response = jsonify(task_id=task_id, trace_id=str(uuid.uuid4()))
        response.status_code = 201
        return response

    def _poll(self) -> Response:
        task_id = (request.get_json(silent=True) or {}).get("task_id", "")
        with self._lock:
            self.polls.append(task_id)
            scripted = self.poll_script.popleft() if self.poll_script else None
        if scripted is not None:
            return self._response(scripted, b"")
        with self._lock:
            if task_id not in self._tasks:
                return _error(404, "bad_request", "There is no such task.")
            left, text = self._tasks[task_id]
            self._tasks[task_id] = (left - 1, text)
        if left > 0:
            return jsonify(task_id=task_id, status="processing")
        if left == 0:
            with self._lock:
                self.charged += 1
        return jsonify(task_id=task_id, status="ready", text=text)


def _image(body: Any) -> bytes | None:
    """The bytes in {"image": "<base64>"}; None where the API could not read them either."""
    try:
        return base64.b64decode(body["image"], validate=True)
    except (TypeError, KeyError, binascii.Error, ValueError):
        return None


def _error(status: int, code: str, message: str) -> Response:
    error = {"code": code, "message": message}
    return _scripted(status, {"success": False, "error": error, "trace_id": str(uuid.uuid4())}, {})


def _scripted(status: int, body: Any, headers: Mapping[str, str]) -> Response:
    if isinstance(body, (str, bytes)):
        response = Response(body, mimetype="text/plain")
    else:
        response = jsonify(body)
    response.status_code = status
    response.headers.update(headers)
    return response


def _drop_connection() -> Response:
    """Close the socket under the server; what it then tries to send goes nowhere."""
    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return Response()
