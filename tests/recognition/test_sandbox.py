"""The local stand-in for the recognition API, over real HTTP."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
import requests
from PIL import Image, ImageDraw, ImageFont

from scrapy_acecaptcha import AceCaptchaClient, ApiRateLimited, ApiRequestError, SettingsError
from scrapy_acecaptcha.recognition.sandbox import FAILURES, Sandbox, create_app

STATUSES = {
    "bad_request": {400},
    "invalid_request": {400},
    "token_mismatched": {400, 401},
    "api_not_implemented": {400},
    "no_token": {400},
    "invalid_token": {401},
    "token_expired": {401},
    "used_up": {403},
    "disabled": {403},
    "forbidden": {403},
    "no_api": {404},
    "not_found": {404},
    "too_many_requests": {429},
    "api_error": {500},
    "timeout": {504},
}


def draw(text: str, mode: str = "RGB", paper: Any = "white", format: str = "PNG") -> bytes:
    """Write *text* so that any recogniser can read it."""
    image = Image.new(mode, (40 * len(text), 64), paper)
    ImageDraw.Draw(image).text((8, 4), text, "black", ImageFont.load_default(48))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def post(
    sandbox: Sandbox,
    image: bytes | None = None,
    path: str = "/captcha/recognition/image2text",
    token: str | None = "any",
    **options: Any,
) -> requests.Response:
    if image is not None:
        options["json"] = {"image": base64.b64encode(image).decode()}
    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    headers |= options.pop("headers", {})
    return requests.post(sandbox.url + path, headers=headers, timeout=60, **options)


def poll(sandbox: Sandbox, task_id: Any, **options: Any) -> requests.Response:
    return post(sandbox, path="/captcha/tasks", json={"task_id": task_id}, **options)


def assert_error(response: requests.Response, code: str) -> None:
    body = response.json()
    assert response.status_code in STATUSES[code]
    assert body["success"] is False
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["trace_id"]
    assert set(body) == {"success", "error", "trace_id"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


# Reading


def test_an_image_is_answered_with_its_text(sandbox: Sandbox) -> None:
    response = post(sandbox, draw("7364"))
    body = response.json()
    assert response.status_code == 200
    assert set(body) == {"text", "elapsed", "started_at", "finished_at", "trace_id"}
    assert body["text"] == "7364"
    started, finished = (
        datetime.strptime(body[key], "%Y-%m-%dT%H:%M:%S.%f%z")
        for key in ("started_at", "finished_at")
    )
    assert finished >= started
    assert body["elapsed"] >= 0


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_every_raster_format_is_read(sandbox: Sandbox, format: str) -> None:
    assert post(sandbox, draw("7364", format=format)).json()["text"] == "7364"


def test_transparent_paper_is_white(sandbox: Sandbox) -> None:
    assert post(sandbox, draw("7364", "RGBA", (0, 0, 0, 0))).json()["text"] == "7364"


def test_the_first_frame_of_an_animation_is_read(sandbox: Sandbox) -> None:
    first, second = (Image.open(io.BytesIO(draw(text))) for text in ("7364", "2085"))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[second])
    assert post(sandbox, file.getvalue()).json()["text"] == "7364"


def test_many_at_a_time_read_the_same_as_one(sandbox: Sandbox) -> None:
    texts = [f"{number:04}" for number in range(1000, 1020)]
    with ThreadPoolExecutor(len(texts)) as pool:
        replies = pool.map(lambda text: post(sandbox, draw(text)).json()["text"], texts * 3)
        assert list(replies) == texts * 3


def test_another_recogniser_gets_the_bytes() -> None:
    image = draw("7364")
    with Sandbox(recognise=lambda data: str(data == image)) as sandbox:
        assert post(sandbox, image).json()["text"] == "True"


def test_a_call_takes_as_long_as_the_latency() -> None:
    with Sandbox(latency=0.2, recognise=lambda data: "x") as sandbox:
        assert post(sandbox, draw("x")).json()["elapsed"] >= 0.2


def test_calls_under_way_do_not_queue() -> None:
    everybody = threading.Barrier(48)  # passed only when all are inside at once

    def recognise(data: bytes) -> str:
        everybody.wait(60)
        return "met"

    with Sandbox(recognise=recognise) as sandbox, ThreadPoolExecutor(48) as pool:
        replies = pool.map(lambda _: post(sandbox, draw("x")).json()["text"], range(48))
        assert list(replies) == ["met"] * 48


def test_only_readings_are_charged() -> None:
    with Sandbox(recognise=lambda data: "x") as sandbox:
        post(sandbox, draw("x"))
        post(sandbox, b"no image")
        post(sandbox, draw("x"), token=None)
        assert sandbox.calls == 1


# Errors


@pytest.mark.parametrize(
    "request_",
    [
        {"data": b"{"},
        {"data": b'{"image": "eA=="}', "headers": {"content-type": "text/plain"}},
        {"json": ["image"]},
        {"json": {}},
        {"json": {"image": None}},
        {"json": {"image": ""}},
        {"json": {"image": "data:image/png;base64," + base64.b64encode(draw("x")).decode()}},
        {"json": {"image": "???"}},
        {"json": {"image": "é"}},
        {"image": b"<html>"},
        {"image": b"<svg xmlns='http://www.w3.org/2000/svg'/>"},
        {"image": draw("7364")[:-40]},
        {"image": draw("7364", format="JPEG")[:300]},
        {"image": b"BM" + bytes(60)},
        {"image": draw("x" * 110)},
    ],
    ids=lambda request_: str(request_)[:40],
)
def test_what_is_no_image_is_a_bad_request(sandbox: Sandbox, request_: dict[str, Any]) -> None:
    assert_error(post(sandbox, **request_), "bad_request")


@pytest.mark.parametrize("code", sorted(STATUSES.keys() - {"timeout"}))
def test_each_error_can_be_called_for(code: str) -> None:
    with Sandbox(fail={code: 1}) as sandbox:
        response = post(sandbox, draw("7364"))
        assert_error(response, code)
        assert response.headers.get("Retry-After") == ("1" if code == "too_many_requests" else None)
        assert sandbox.calls == 0


def test_the_timeout_is_written_flat() -> None:
    with Sandbox(fail={"timeout": 1}) as sandbox:
        response = post(sandbox, draw("7364"))
        assert response.status_code == 504
        assert set(response.json()) == {"code", "detail", "task_id", "trace_id"}
        assert response.json()["code"] == "timeout"


def test_every_failure_is_covered_here() -> None:
    assert set(FAILURES) == {*STATUSES, "task"}


def test_failures_are_as_likely_as_asked_for() -> None:
    client = create_app(
        fail={"api_error": 0.3, "used_up": 0.0}, recognise=lambda _: "x"
    ).test_client()
    body = {"image": base64.b64encode(draw("x")).decode()}
    statuses = [
        client.post(
            "/captcha/recognition/image2text", json=body, headers={"authorization": "Bearer any"}
        ).status_code
        for _ in range(300)
    ]
    assert set(statuses) == {200, 500}
    assert 40 < statuses.count(500) < 140  # 90 expected; further off once in a billion runs


@pytest.mark.parametrize(
    "options",
    [
        {"fail": {"teapot": 1}},
        {"fail": {"api_error": 1.5}},
        {"fail": {"api_error": -0.1}},
        {"fail": {"api_error": float("nan")}},
        {"fail": {"api_error": 0.6, "timeout": 0.6}},
        {"latency": -1},
        {"latency": float("nan")},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        create_app(**options)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/captcha/recognition/hcaptcha"),
        ("GET", "/captcha/recognition/image2text"),
        ("POST", "/captcha/recognition/image2text/"),
    ],
)
def test_there_is_no_other_api(sandbox: Sandbox, method: str, path: str) -> None:
    response = requests.request(method, sandbox.url + path, timeout=60)
    assert_error(response, "no_api")


def test_a_recogniser_that_breaks_is_the_servers_error() -> None:
    def recognise(data: bytes) -> str:
        raise RuntimeError("broken")

    with Sandbox(recognise=recognise) as sandbox:
        assert_error(post(sandbox, draw("x")), "api_error")
        assert sandbox.calls == 0


# Tokens


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic eDp5", "any"])
def test_without_a_token_nothing_goes(sandbox: Sandbox, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    assert_error(post(sandbox, draw("x"), token=None, headers=headers), "no_token")
    assert_error(poll(sandbox, "x", token=None, headers=headers), "no_token")


def test_only_the_token_that_was_named_passes() -> None:
    with Sandbox(token="right", recognise=lambda data: "x") as sandbox:
        assert post(sandbox, draw("x"), token="right").status_code == 200
        assert_error(post(sandbox, draw("x"), token="wrong"), "invalid_token")
        assert_error(post(sandbox, draw("x"), token=None), "no_token")
        assert_error(poll(sandbox, "x", token="wrong"), "invalid_token")


# Late answers


def test_a_task_is_ready_at_the_second_look() -> None:
    with Sandbox(fail={"task": 1}, recognise=lambda data: "7364") as sandbox:
        response = post(sandbox, draw("x"))
        assert response.status_code == 201
        assert set(response.json()) == {"task_id", "trace_id"}
        task_id = response.json()["task_id"]
        first, second, third = (poll(sandbox, task_id) for _ in range(3))
        assert first.json()["status"] == "processing"
        assert "text" not in first.json()
        assert second.json()["status"] == "ready"
        assert second.json()["text"] == "7364"
        assert second.json()["trace_id"] == response.json()["trace_id"]
        assert third.json() == second.json()
        assert sandbox.calls == 1


def test_a_task_takes_as_long_as_the_latency() -> None:
    with Sandbox(fail={"task": 1}, latency=3600, recognise=lambda data: "x") as sandbox:
        task_id = post(sandbox, draw("x")).json()["task_id"]
        states = [poll(sandbox, task_id).json()["status"] for _ in range(3)]
        assert states == ["processing"] * 3


def test_a_task_needs_an_image_too() -> None:
    with Sandbox(fail={"task": 1}) as sandbox:
        assert_error(post(sandbox, b"no image"), "bad_request")


@pytest.mark.parametrize("task_id", ["unknown", None, 7, ["x"]])
def test_an_unknown_task_is_a_bad_request(sandbox: Sandbox, task_id: Any) -> None:
    assert_error(poll(sandbox, task_id), "bad_request")


# With the client


def test_the_client_and_the_sandbox_understand_each_other(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sandbox.environ.items():
        monkeypatch.setenv(name, value)
    with AceCaptchaClient() as client:
        assert client.recognize(draw("7364")) == "7364"
        with pytest.raises(ApiRequestError, match="is not an image"):
            client.recognize(b"no image")


def test_the_client_waits_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scrapy_acecaptcha.recognition.tasks.POLL_SECONDS", 0.01)
    with (
        Sandbox(fail={"task": 1}, recognise=lambda data: "late") as sandbox,
        AceCaptchaClient("any", sandbox.url) as client,
    ):
        assert client.recognize(draw("x")) == "late"


def test_the_client_hears_of_too_many_requests() -> None:
    with (
        Sandbox(fail={"too_many_requests": 1}) as sandbox,
        AceCaptchaClient("any", sandbox.url, retries=0) as client,
        pytest.raises(ApiRateLimited) as caught,
    ):
        client.recognize(draw("x"))
    assert caught.value.retry_after == "1"
    assert caught.value.trace_id


# Serving


def test_it_stops_though_calls_are_waiting_out_their_latency() -> None:
    class Noted(threading.Event):
        entered = threading.Event()

        def wait(self, timeout: float | None = None) -> bool:
            self.entered.set()
            return super().wait(timeout)

    with ThreadPoolExecutor(1) as pool:
        with Sandbox(latency=3600, recognise=lambda data: "x") as sandbox:
            sandbox.app.extensions["sandbox"].closing = Noted()
            reply = pool.submit(post, sandbox, draw("x"))
            assert Noted.entered.wait(60)
        assert reply.result(60).json()["text"] == "x"


def test_it_is_gone_afterwards_and_can_come_back() -> None:
    with Sandbox(recognise=lambda data: "x") as sandbox:
        port = sandbox.port
        session = requests.Session()  # keeps its connection open
        assert session.get(sandbox.url, timeout=60).status_code == 404
    with pytest.raises(requests.ConnectionError):
        session.get(sandbox.url, timeout=60)
    with Sandbox(port) as again:
        assert again.port == port
        assert session.get(again.url, timeout=60).status_code == 404
        session.close()


def test_a_port_in_use_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="in use"), Sandbox(sandbox.port):
        pass


def test_it_listens_on_loopback_only(sandbox: Sandbox) -> None:
    assert sandbox.url.startswith("http://127.0.0.1:")
    assert sandbox._server.effective_host == "127.0.0.1"


# The extra


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_package_does_without_the_extra() -> None:
    code = (
        "import sys, scrapy_acecaptcha\n"
        "print({'ddddocr', 'flask', 'waitress', 'playwright'} & set(sys.modules))"
    )
    assert run_python(code).stdout == "set()\n"


def test_without_the_extra_the_error_names_it() -> None:
    code = "import sys; sys.modules['ddddocr'] = None; import scrapy_acecaptcha.recognition.sandbox"
    last_line = run_python(code).stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: ")
    assert "pip install 'scrapy-acecaptcha[sandbox]'" in last_line


def test_stdout_stays_quiet() -> None:
    image = base64.b64encode(draw("7364")).decode()
    code = (
        "import base64\n"
        "from scrapy_acecaptcha.recognition.sandbox import Sandbox\n"
        "from scrapy_acecaptcha import AceCaptchaClient\n"
        "with Sandbox() as sandbox, AceCaptchaClient('any', sandbox.url) as client:\n"
        f"    client.recognize(base64.b64decode({image!r}))\n"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class TestTasks:
    def test_a_text_is_charged_when_it_is_first_read(self) -> None:
        read = threading.Event()

        def recognise(image: bytes) -> str:
            read.wait(10)
            return "7364"

        with Sandbox(recognise=recognise) as sandbox:
            image = base64.b64encode(draw("1")).decode()
            reply = post(sandbox, json={"image": image, "async": True})
            task = {"task_id": reply.json()["task_id"]}
            assert (reply.status_code, "text" in reply.json()) == (201, False)
            assert post(sandbox, path="/captcha/tasks", json=task).json()["status"] == "processing"
            read.set()
            while (reply := post(sandbox, path="/captcha/tasks", json=task)).json()[
                "status"
            ] != "ready":
                assert sandbox.calls == 0
            assert reply.json()["text"] == "7364"
            post(sandbox, path="/captcha/tasks", json=task)
            assert sandbox.calls == 1

    def test_the_client_reads_by_tasks(self) -> None:
        with (
            Sandbox(latency=0.05, recognise=lambda _: "7364") as sandbox,
            AceCaptchaClient("any", sandbox.url, tasks=True) as client,
        ):
            assert client.recognize(draw("1")) == "7364"
            assert sandbox.calls == 1

    def test_a_task_that_fails_is_free(self) -> None:
        with Sandbox(recognise=lambda _: 1 / 0) as sandbox:  # type: ignore[arg-type, return-value]
            image = base64.b64encode(draw("1")).decode()
            task = post(sandbox, json={"image": image, "async": True}).json()["task_id"]
            while (status := post(sandbox, path="/captcha/tasks", json={"task_id": task}).json())[
                "status"
            ] == "processing":
                pass
            assert status["status"] == "failed"
            assert sandbox.calls == 0


class TestStrangers:
    @pytest.mark.parametrize("host", ["evil.example.org", "10.0.0.1:80", "localhost.evil.org", "["])
    def test_other_names_that_lead_here(self, host: str) -> None:
        with Sandbox(recognise=lambda _: "1") as sandbox:
            reply = post(sandbox, draw("1"), headers={"host": host})
        assert (reply.status_code, sandbox.calls) in ((403, 0), (400, 0))

    @pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765"])
    def test_loopback_names(self, host: str) -> None:
        with Sandbox(recognise=lambda _: "1") as sandbox:
            assert post(sandbox, draw("1"), headers={"host": host}).status_code == 200

    def test_a_body_without_end(self) -> None:
        client = create_app().test_client()
        head = {"authorization": "Bearer any"}
        path = "/captcha/recognition/image2text"
        large = client.post(path, json={"image": "A" * 4_000_001}, headers=head)
        deep = client.post(
            path, data="[" * 100_000, headers={**head, "content-type": "application/json"}
        )
        for reply in (large, deep):
            assert (reply.status_code, reply.get_json()["error"]["code"]) == (400, "bad_request")
