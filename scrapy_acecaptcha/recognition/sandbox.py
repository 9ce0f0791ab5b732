"""A local stand-in for Ace Data Cloud's captcha recognition, to try and test with no account.

It speaks the same HTTP as ``https://api.acedata.cloud/captcha/recognition/image2text``, errors and
late answers included, listens on loopback only, and reads the images for real with ddddocr, an
offline recogniser. Needs the extra: ``pip install 'scrapy-acecaptcha[sandbox]'``.
"""

from __future__ import annotations

import base64
import binascii
import math
import random
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

try:
    from flask import Flask, Response, jsonify, request
    from PIL import Image
    from waitress import create_server, wasyncore
    from werkzeug.exceptions import HTTPException

    from scrapy_acecaptcha.recognition import ocr
except ImportError as error:
    raise ImportError(
        f"The sandbox needs its extra ({error}): pip install 'scrapy-acecaptcha[sandbox]'"
    ) from error

from scrapy_acecaptcha.errors import SettingsError
from scrapy_acecaptcha.hosts import space_of
from scrapy_acecaptcha.recognition.api_errors import ERRORS
from scrapy_acecaptcha.recognition.waits import in_thread

if TYPE_CHECKING:
    from typing_extensions import Self

_LATE = "task"

FAILURES = (*ERRORS, _LATE)
"""What the parameter ``fail`` may name: the API's error codes, and ``task`` for a late answer."""


MAX_BODY = 4_000_000  # bytes of a request
MAX_TASKS = 10_000  # newest ones that are remembered


def create_app(
    latency: float = 0.0,
    fail: Mapping[str, float] | None = None,
    token: str | None = None,
    recognise: Callable[[bytes], str] | None = None,
) -> Flask:
    """Make the sandbox as a WSGI application.

    :param latency: seconds that a recognition takes on top of the reading itself
    :param fail: how likely a recognition call is to go wrong: one of :data:`FAILURES` -> 0 to 1.
        ``task`` is not an error: the call is answered 201 and its text is handed out on polling
    :param token: the one token to accept; None accepts every token
    :param recognise: reads the bytes of an image, instead of ddddocr
    :raises SettingsError: a latency, failure or probability that cannot be
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.before_request(_check_host)
    api = _Api(latency, fail or {}, token, recognise)
    app.extensions["sandbox"] = api
    app.add_url_rule("/captcha/recognition/image2text", view_func=api.image2text, methods=["POST"])
    app.add_url_rule("/captcha/tasks", view_func=api.tasks, methods=["POST"])
    app.register_error_handler(_Refusal, _error_reply)
    app.register_error_handler(HTTPException, _http_error_reply)
    return app


class LocalServer:
    """Serves a WSGI application on loopback in background threads, as a context manager.

    :param app: the application
    :param port: TCP port, 0 for a free one
    :raises OSError: on entering, when the port is taken
    """

    # As many calls as there are threads can wait out a latency at a time without queueing.
    threads = 64

    def __init__(self, app: Any, port: int = 0) -> None:
        self.app = app
        self.port = port
        self._sockets: dict[int, Any] = {}
        self._stopping = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._server = create_server(
            self.app,
            map=self._sockets,
            sockets=[listener],
            threads=self.threads,
            max_request_body_size=MAX_BODY,
            connection_limit=1000,
        )
        self._stopping.clear()
        self._loop = threading.Thread(target=self._serve, daemon=True)
        self._loop.start()
        return self

    def __exit__(self, *exc: object) -> None:
        # The workers and this thread write to the loop's pipe: close it when nobody does any more.
        self._server.task_dispatcher.shutdown()
        self._stopping.set()
        self._server.pull_trigger()
        self._loop.join()
        wasyncore.close_all(self._sockets)

    def _serve(self) -> None:
        # Waitress' own run() goes on until its last connection is closed.
        while not self._stopping.is_set():
            # poll, as select() ends at 1024 files
            wasyncore.loop(timeout=60, use_poll=True, map=self._sockets, count=1)


class Sandbox(LocalServer):
    """The sandbox on loopback: ``with Sandbox() as sandbox: AceCaptchaClient("any", sandbox.url)``.

    :param port: TCP port, 0 for a free one

    The other parameters are those of :func:`create_app`.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        latency: float = 0.0,
        fail: Mapping[str, float] | None = None,
        token: str | None = None,
        recognise: Callable[[bytes], str] | None = None,
    ) -> None:
        super().__init__(create_app(latency, fail, token, recognise), port)
        self._api: _Api = self.app.extensions["sandbox"]

    def __exit__(self, *exc: object) -> None:
        self._api.closing.set()  # nobody waits out a latency any more
        super().__exit__(*exc)

    @property
    def calls(self) -> int:
        """Number of recognitions that the API would have charged: a task when its text is read."""
        return self._api.charged

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that point a client here."""
        return {
            "ACEDATACLOUD_API_BASE_URL": self.url,
            "ACEDATACLOUD_API_TOKEN": self._api.token or "sandbox",
        }


class _Refusal(Exception):
    """Makes the reply an error of the API."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.message = message or ERRORS[code].message


class _Api:
    """The two endpoints and what they remember."""

    def __init__(
        self,
        latency: float,
        fail: Mapping[str, float],
        token: str | None,
        recognise: Callable[[bytes], str] | None,
    ) -> None:
        if not (math.isfinite(latency) and latency >= 0):
            raise SettingsError(f"The latency must be 0 or more seconds, not {latency}")
        _check_failures(fail)
        self.latency = latency
        self.fail = dict(fail)
        self.token = token
        self.recognise = recognise
        self.charged = 0
        self.closing = threading.Event()
        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()

    def image2text(self) -> Response | tuple[Response, int]:
        self._authorize()
        failure = self._draw_failure()
        if failure in ERRORS:
            raise _Refusal(failure)
        data, image = _image_in_body()
        if failure == _LATE or _json_body().get("async") is True:
            return self._answer_later(data, image, not_at_once=failure == _LATE)
        started = datetime.now(timezone.utc)
        self.closing.wait(self.latency)
        text = self._read(data, image)
        self._charge()
        return jsonify(text=text, trace_id=_new_id(), **_times(started, datetime.now(timezone.utc)))

    def tasks(self) -> Response:
        self._authorize()
        task_id = _json_body().get("task_id")
        task = self._tasks.get(task_id) if isinstance(task_id, str) else None
        if task is None:
            raise _Refusal("bad_request", f"There is no task {task_id!r:.80}.")
        ids = {"task_id": task_id, "trace_id": task.trace_id}
        status = task.status()
        if status != "ready":
            return jsonify(status=status, **ids)
        if task.is_first_read():
            self._charge()
        return jsonify(status=status, text=task.text, **ids, **_times(task.started, task.due))

    def _authorize(self) -> None:
        """Let a bearer token pass; werkzeug has it without white space around it."""
        credentials = request.authorization
        if credentials is None or credentials.type != "bearer" or not credentials.token:
            raise _Refusal("no_token")
        if self.token is not None and credentials.token != self.token:
            raise _Refusal("invalid_token")

    def _draw_failure(self) -> str | None:
        dice = random.random()  # noqa: S311 - nobody's secret
        for code, probability in self.fail.items():
            dice -= probability
            if dice < 0:
                return code
        return None

    def _read(self, data: bytes, image: Image.Image) -> str:
        return self.recognise(data) if self.recognise else ocr.read(image)

    def _charge(self) -> None:
        with self._lock:
            self.charged += 1

    def _answer_later(
        self, data: bytes, image: Image.Image, *, not_at_once: bool
    ) -> tuple[Response, int]:
        task = _Task(in_thread(lambda: self._read(data, image)), self.latency, not_at_once)
        task_id = _new_id()
        with self._lock:
            self._tasks[task_id] = task
            while len(self._tasks) > MAX_TASKS:
                del self._tasks[next(iter(self._tasks))]
        return jsonify(task_id=task_id, trace_id=task.trace_id), 201


class _Task:
    """A recognition whose text is handed out when it is asked for, and charged then.

    :param latency: seconds that it takes at least
    :param not_at_once: the first look finds it under way in any case
    """

    def __init__(self, text: Future[str], latency: float, not_at_once: bool) -> None:
        self.trace_id = _new_id()
        self.started = datetime.now(timezone.utc)
        self.due = self.started + timedelta(seconds=latency)
        self._text = text
        self._not_at_once = not_at_once
        self._unread = [True]

    @property
    def text(self) -> str:
        return self._text.result()

    def status(self) -> str:
        not_yet, self._not_at_once = self._not_at_once, False
        if not_yet or not self._text.done() or datetime.now(timezone.utc) < self.due:
            return "processing"
        return "failed" if self._text.exception() else "ready"

    def is_first_read(self) -> bool:
        try:
            return self._unread.pop()  # as one step, whoever else asks at this moment
        except IndexError:
            return False


def _check_host() -> None:
    """Answer to loopback names only: a page in a browser could have its own name lead here."""
    if space_of(urlsplit(f"//{request.host}").hostname or "") != "loopback":
        raise _Refusal("forbidden", "The sandbox answers to localhost and 127.0.0.1 only.")


def _check_failures(fail: Mapping[str, float]) -> None:
    for code, probability in fail.items():
        if code not in FAILURES:
            raise SettingsError(f"Unknown failure {code!r}; known are {', '.join(FAILURES)}")
        if not 0 <= probability <= 1:
            raise SettingsError(f"The probability of {code} must be 0 to 1, not {probability}")
    if sum(fail.values()) > 1 + 1e-9:  # ten times 0.1 is a little more than 1
        raise SettingsError("The probabilities of all failures together must not exceed 1")


def _error_reply(refusal: _Refusal) -> tuple[Response, int]:
    code, message, trace_id = refusal.code, refusal.message, _new_id()
    status = random.choice(ERRORS[code].statuses)  # noqa: S311
    if code == "timeout":  # the one error that the API writes flat
        return jsonify(code=code, detail=message, task_id=_new_id(), trace_id=trace_id), status
    reply = jsonify(success=False, error={"code": code, "message": message}, trace_id=trace_id)
    if code == "too_many_requests":
        reply.headers["Retry-After"] = "1"
    return reply, status


def _http_error_reply(error: HTTPException) -> tuple[Response, int]:
    """Answer for Flask: an unknown address or method, or a bug here."""
    if error.code == 413:
        return _error_reply(_Refusal("bad_request", f"The body has more than {MAX_BODY} bytes."))
    broken = error.code is not None and error.code >= 500
    return _error_reply(_Refusal("api_error" if broken else "no_api"))


def _json_body() -> dict[str, Any]:
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # nested a thousand times
        body = None
    if not isinstance(body, dict):
        raise _Refusal(
            "bad_request", "The body must be a JSON object, sent as content-type: application/json."
        )
    return body


def _image_in_body() -> tuple[bytes, Image.Image]:
    """Return the bytes of the image in the request, and the image, drawn on white."""
    encoded = _json_body().get("image")
    if not isinstance(encoded, str) or not encoded:
        raise _Refusal("bad_request", "`image` must be the base64 of an image.")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise _Refusal("bad_request", "`image` is not base64; it has no data: prefix.") from None
    try:
        return data, ocr.on_white(data)
    except ocr.UnfitSize as error:
        raise _Refusal("bad_request", f"`image` has {error}.") from None
    except ocr.DAMAGED:
        raise _Refusal("bad_request", "`image` is not an image.") from None


def _new_id() -> str:
    return str(uuid.uuid4())


def _times(started: datetime, finished: datetime) -> dict[str, Any]:
    return {
        "elapsed": round((finished - started).total_seconds(), 3),
        "started_at": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "finished_at": finished.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
